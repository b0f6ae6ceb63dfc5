//! Python, running a server with a thread for each connection.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Answer, Case};
use crate::load::{Clients, http};
use crate::process::{self, Server};

/// CVE-2023-41105: a path ended at its first NUL when it was normalised.
#[derive(Debug)]
pub(crate) struct Python;

const CLIENTS: usize = 4;

impl Case for Python {
    fn name(&self) -> &'static str {
        "python311-41105"
    }

    fn label(&self) -> &'static str {
        "CVE-2023-41105"
    }

    fn image(&self) -> &'static str {
        "python"
    }

    /// `_Py_normpath` became a call of the new `_Py_normpath_and_size`.
    fn changed(&self) -> &'static [&'static str] {
        &["_Py_normpath", "os__path_normpath"]
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        let port = process::free_port()?;
        let mut command = Command::new(programs.join("python"));
        command
            .args(["-s", "-B"])
            .arg(programs.join("pyserver.py"))
            .arg(port.to_string())
            .env("PYTHONHOME", programs)
            .env_remove("PYTHONPATH");
        Server::start(&mut command, port, &run.join("log"))
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        clients.start_many(CLIENTS, move |client, number| {
            http::work(client, port, |round| {
                let path = format!("/a/../{number}/./{round}//b");
                (path, format!("'/srv/{number}/{round}/b'"))
            })
        })
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        let answer = http::Connection::open(port)?.get("/nul", "")?;
        let seen = String::from_utf8_lossy(&answer.body);
        let answer = if seen == r"'/foo\x00bar'" {
            Answer::New
        } else {
            Answer::Old
        };
        Ok((answer, format!("a path with a NUL becomes {seen}")))
    }

    fn requests(&self) -> u64 {
        2_000
    }
}
