//! A small HTTP server on hyper, in Rust, with four worker threads.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::{Answer, Case};
use crate::load::http::Connection;
use crate::load::{Client, Clients};
use crate::process::{self, Server};

/// CVE-2021-32714 and CVE-2021-32715: lengths were read more generously than
/// others read them.
#[derive(Debug)]
pub(crate) struct Hyper;

const CLIENTS: usize = 4;

/// Requests on one connection before the next one is opened.
const REQUESTS_PER_CONNECTION: u64 = 300;

impl Case for Hyper {
    fn name(&self) -> &'static str {
        "rust-hyper-32715"
    }

    fn label(&self) -> &'static str {
        "CVE-2021-32714, CVE-2021-32715"
    }

    fn image(&self) -> &'static str {
        "hyperd"
    }

    /// What reads digits in `headers.rs` is inlined into all who read or write a length.
    fn changed(&self) -> &'static [&'static str] {
        &[
            "hyper::proto::h1::decode::Decoder::decode",
            "<hyper::proto::h1::role::Server as hyper::proto::h1::Http1Transaction>::parse",
            "<hyper::proto::h1::role::Server as hyper::proto::h1::Http1Transaction>::encode",
            "hyper::proto::h1::role::Server::encode_headers_with_original_case",
        ]
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        let port = process::free_port()?;
        let mut command = Command::new(programs.join("hyperd"));
        command.arg(port.to_string());
        Server::start(&mut command, port, &run.join("log"))
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        for number in 0..CLIENTS {
            clients.start(format!("client {number}"), move |client| {
                work(client, port, number)
            })?;
        }
        Ok(())
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        let ask = |head, body| Connection::open(port)?.ask("POST", "/echo", head, body);
        let signed = ask("Content-Length: +5\r\n", "hello")?.status;
        // The size of the chunk does not fit into 64 bits; what is left of it is 5.
        let wide = ask(CHUNKED, "f0000000000000005\r\nhello\r\n0\r\n\r\n")?.status;
        let seen = format!("a length of +5 gives {signed}, a chunk that is too large {wide}");
        match (signed, wide) {
            (200, 200) => Ok((Answer::Old, seen)),
            (400, 400) => Ok((Answer::New, seen)),
            _ => bail!("neither without nor with the fix: {seen}"),
        }
    }

    fn requests(&self) -> u64 {
        50_000
    }
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// Sends bodies in both ways that the fix touches, and compares what comes back.
fn work(client: &mut Client, port: u16, number: usize) -> Result<()> {
    let mut round = 0_u64;
    while client.goes_on() {
        let mut connection = Connection::open(port)?;
        for _ in 0..REQUESTS_PER_CONNECTION {
            if !client.goes_on() {
                break;
            }
            let text = format!("{number}:{round}:{}", "x".repeat((round % 700) as usize));
            let (head, body) = if round.is_multiple_of(2) {
                (format!("Content-Length: {}\r\n", text.len()), text.clone())
            } else {
                let chunks = format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len());
                (CHUNKED.to_owned(), chunks)
            };
            let sent = client.send();
            let answer = connection.ask("POST", "/echo", &head, &body)?;
            let right = answer.status == 200 && answer.body == text.as_bytes();
            client.receive(sent, 1, u64::from(!right));
            round += 1;
        }
    }
    Ok(())
}
