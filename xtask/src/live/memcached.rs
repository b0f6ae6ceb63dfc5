//! memcached, with four worker threads and passwords.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Answer, Case};
use crate::load::{Clients, memcached};
use crate::process::{self, Server};

/// CVE-2026-47783: the search for a password ended at the first line of a user.
#[derive(Debug)]
pub(crate) struct Memcached;

const CLIENTS: usize = 4;

impl Case for Memcached {
    fn name(&self) -> &'static str {
        "memcached-47783"
    }

    fn label(&self) -> &'static str {
        "CVE-2026-47783"
    }

    fn image(&self) -> &'static str {
        "memcached"
    }

    fn changed(&self) -> &'static [&'static str] {
        &["sasl_server_userdb_checkpass"]
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        // SASL adds the host's name to the user's. One user has two lines: only
        // the fixed program reads on to the second.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("this host has no name")?;
        let host = host.trim();
        let passwords = run.join("passwords");
        std::fs::write(
            &passwords,
            format!("load@{host}:pw\nu@{host}:wrong\nu@{host}:right\n"),
        )?;
        std::fs::write(run.join("memcached.conf"), "mech_list: plain\n")?;
        let port = process::free_port()?;
        let mut command = Command::new(programs.join("memcached"));
        command
            .args([
                "-S",
                "-l",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-U",
                "0",
                "-t",
                "4",
                "-m",
                "64",
            ])
            .env("SASL_CONF_PATH", run)
            .env("MEMCACHED_SASL_PWDB", &passwords);
        if nix::unistd::geteuid().is_root() {
            // It refuses to run as root unless told to.
            command.args(["-u", "root"]);
        }
        Server::start(&mut command, port, &run.join("log"))
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        clients.start_many(CLIENTS, move |client, number| {
            memcached::work(client, port, number)
        })
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        let accepted = memcached::Connection::open(port)?.login("u", "right")?;
        Ok(if accepted {
            (
                Answer::New,
                "a user's second password line is read".to_owned(),
            )
        } else {
            (
                Answer::Old,
                "a user's second password line is not read".to_owned(),
            )
        })
    }

    fn requests(&self) -> u64 {
        100_000
    }
}
