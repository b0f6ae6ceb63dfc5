//! dnsmasq, with one event loop.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Answer, Case, Expectation};
use crate::load::{Clients, authority, dns};
use crate::process::{self, Server};

/// CVE-2026-2291: the blocks for long names in the cache were too small.
#[derive(Debug, Default)]
pub(crate) struct Dnsmasq {
    /// The server's process, and how many times it was asked what the fix changed.
    process: Cell<(u32, u32)>,
}

const CLIENTS: usize = 4;

/// How many long names a probe asks for. The cache takes a thousand of them, so
/// three probes find room in it.
const NAMES: u32 = 300;

/// A block for a long name takes 1040 bytes of the heap without the fix and 2064
/// with it; the heap itself grows in steps of 132 KiB.
const HALF_WAY: u64 = 1550 * NAMES as u64;

impl Case for Dnsmasq {
    fn name(&self) -> &'static str {
        "dnsmasq-2291"
    }

    fn label(&self) -> &'static str {
        "CVE-2026-2291"
    }

    fn image(&self) -> &'static str {
        "dnsmasq"
    }

    fn changed(&self) -> &'static [&'static str] {
        &["really_insert.isra.0"]
    }

    /// New code would write long names into the blocks that the list of free ones
    /// still holds from before: the very overflow that the fix ends.
    fn expectation(&self) -> Expectation {
        Expectation::Refused {
            rule: "R-ALLOC",
            subject: "really_insert",
        }
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        let port = process::free_port()?;
        let upstream = authority::start()?;
        let config = run.join("dnsmasq.conf");
        let folder = run.display();
        let user = if nix::unistd::geteuid().is_root() {
            "user=root\ngroup=root\n"
        } else {
            ""
        };
        std::fs::write(
            &config,
            format!(
                "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nno-poll\n\
                 server=127.0.0.1#{upstream}\ncache-size=10000\npid-file={folder}/pid\n\
                 log-facility={folder}/messages\n{user}"
            ),
        )?;
        let mut command = Command::new(programs.join("dnsmasq"));
        command.arg("--keep-in-foreground").arg("-C").arg(config);
        let server = Server::start(&mut command, port, &run.join("log"))?;
        self.process.set((server.pid(), 0));
        Ok(server)
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        clients.start_many(CLIENTS, move |client, _| dns::work(client, port))
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        let (process, probes) = self.process.get();
        self.process.set((process, probes + 1));
        let before = heap(process)?;
        for number in 0..NAMES {
            // A name longer than fifty letters has a block of its own.
            let name = format!("long{probes:01}{number:050}.corpus.test");
            let addresses = dns::addresses(port, &name)?;
            ensure!(addresses == 1, "{addresses} addresses of {name}");
        }
        let grown = heap(process)?.saturating_sub(before);
        let answer = if grown > HALF_WAY {
            Answer::New
        } else {
            Answer::Old
        };
        let seen = format!("{NAMES} long names take {} KiB", grown / 1024);
        Ok((answer, seen))
    }

    fn requests(&self) -> u64 {
        50_000
    }
}

/// The length of a process's heap.
fn heap(process: u32) -> Result<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))
        .context("the program has ended")?;
    let heap = maps.lines().find(|line| line.ends_with("[heap]"));
    let (from, to) = heap
        .and_then(|line| line.split_once(' ')?.0.split_once('-'))
        .context("the program has no heap")?;
    Ok(u64::from_str_radix(to, 16)? - u64::from_str_radix(from, 16)?)
}
