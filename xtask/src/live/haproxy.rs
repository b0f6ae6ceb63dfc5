//! HAProxy with four threads, which answers by itself.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::extras::Extra;
use super::{Answer, Case};
use crate::load::{Clients, http};
use crate::process::{self, Server};

/// One fix of it.
#[derive(Debug)]
pub(crate) enum Haproxy {
    /// CVE-2023-40225: a Content-Length without a value was passed on.
    EmptyLength,
    /// CVE-2023-45539: a `#` in a path was passed on.
    Fragment,
}

const CLIENTS: usize = 6;

impl Case for Haproxy {
    fn name(&self) -> &'static str {
        match self {
            Self::EmptyLength => "haproxy-40225",
            Self::Fragment => "haproxy-45539",
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::EmptyLength => "CVE-2023-40225",
            Self::Fragment => "CVE-2023-45539",
        }
    }

    fn image(&self) -> &'static str {
        "haproxy"
    }

    fn changed(&self) -> &'static [&'static str] {
        match self {
            Self::EmptyLength => &["h1_parse_cont_len_header", "http_parse_cont_len_header"],
            Self::Fragment => &[
                "h1_headers_to_hdr_list",
                "h2_make_htx_request",
                "h2c_decode_headers",
            ],
        }
    }

    fn extras(&self) -> &'static [Extra] {
        match self {
            Self::EmptyLength => &[],
            // Both are shortfalls of the comparison.
            Self::Fragment => &[
                (
                    "stats_fill_fe_stats",
                    "its table of jumps, whose address is loaded before a loop, is not known as one",
                ),
                (
                    "hpack_decode_frame",
                    "`hpack_sht` points to an empty text, behind which something moved",
                ),
            ],
        }
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        let port = process::free_port()?;
        let config = run.join("haproxy.cfg");
        std::fs::write(
            &config,
            format!(
                "global\n nbthread 4\n maxconn 2000\n\
                 defaults\n mode http\n timeout client 10s\n timeout server 10s\n timeout connect 5s\n\
                 frontend f\n bind 127.0.0.1:{port}\n http-request set-header x-y %[src]\n \
                 http-request return status 200 content-type text/plain lf-string \"path=%[path]\\n\"\n"
            ),
        )?;
        let mut command = Command::new(programs.join("haproxy"));
        command.arg("-db").arg("-f").arg(config);
        Server::start(&mut command, port, &run.join("log"))
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        clients.start_many(CLIENTS, move |client, number| {
            http::work(client, port, |round| {
                let path = format!("/{number}/{round}");
                let body = format!("path={path}\n");
                (path, body)
            })
        })
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        let mut connection = http::Connection::open(port)?;
        let (what, answer) = match self {
            Self::EmptyLength => (
                "an empty Content-Length",
                connection.get("/a", "Content-Length:\r\n")?,
            ),
            Self::Fragment => ("a path with #", connection.get("/a#b", "")?),
        };
        let seen = format!("{what} is answered with {}", answer.status);
        let answer = if answer.status == 400 {
            Answer::New
        } else {
            Answer::Old
        };
        Ok((answer, seen))
    }

    fn requests(&self) -> u64 {
        50_000
    }
}
