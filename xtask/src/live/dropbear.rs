//! Dropbear, which forks for each connection.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::extras::Extra;
use super::{Answer, Case, Expectation};
use crate::load::{Client, Clients, ssh};
use crate::process::{self, Server};

/// CVE-2023-48795, Terrapin: the numbers of packets went on counting when the
/// keys were new.
#[derive(Debug)]
pub(crate) struct Dropbear;

const CLIENTS: usize = 2;

const LIMIT: Duration = Duration::from_secs(60);

impl Case for Dropbear {
    fn name(&self) -> &'static str {
        "dropbear-48795"
    }

    fn label(&self) -> &'static str {
        "CVE-2023-48795"
    }

    fn image(&self) -> &'static str {
        "dropbear"
    }

    /// `read_kex_algos` and `svr_algos_initialise` are inlined into their callers.
    fn changed(&self) -> &'static [&'static str] {
        &[
            "send_msg_newkeys",
            "recv_msg_newkeys",
            "recv_msg_kexinit",
            "process_packet",
            "svr_session",
        ]
    }

    fn extras(&self) -> &'static [Extra] {
        &[("common_session_init", "clears `ses`, which is larger")]
    }

    fn expectation(&self) -> Expectation {
        Expectation::Refused {
            rule: "R-SIZE",
            subject: "ses",
        }
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        // One of a run before would not be written over.
        let key = run.join("key");
        let _ = std::fs::remove_file(&key);
        let mut make = Command::new(programs.join("dropbearkey"));
        make.args(["-t", "ed25519", "-f"]).arg(&key);
        let made = process::capture(&mut make, LIMIT)?;
        if !made.status.success() {
            bail!("no key for the server: {}", made.stderr);
        }
        let port = process::free_port()?;
        let mut command = Command::new(programs.join("dropbear"));
        command
            .args(["-F", "-E", "-p", &format!("127.0.0.1:{port}"), "-r"])
            .arg(key)
            .arg("-P")
            .arg(run.join("pid"));
        Server::start(&mut command, port, &run.join("log"))
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        for number in 0..CLIENTS {
            clients.start(format!("client {number}"), move |client| {
                knock(client, port)
            })?;
        }
        Ok(())
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        let algorithms = ssh::key_exchanges(port)?;
        let strict = "kex-strict-s-v00@openssh.com";
        Ok(if algorithms.split(',').any(|name| name == strict) {
            (Answer::New, format!("the server offers {strict}"))
        } else {
            (Answer::Old, format!("the server offers no {strict}"))
        })
    }

    fn requests(&self) -> u64 {
        20
    }
}

/// Exchanges keys with a client that others wrote, and is turned away, as nobody
/// who has no key to show is let in.
fn knock(client: &mut Client, port: u16) -> Result<()> {
    while client.goes_on() {
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-p", &port.to_string()]);
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "IdentityFile=/dev/null",
            "IdentityAgent=none",
            "PreferredAuthentications=publickey",
        ] {
            command.args(["-o", option]);
        }
        command.args(["nobody@127.0.0.1", "true"]);
        let sent = client.send();
        let output = process::capture(&mut command, LIMIT)?;
        ensure!(
            output.stderr.contains("Permission denied"),
            "ssh says: {}",
            output.stderr
        );
        client.receive(sent, 1, 0);
    }
    Ok(())
}
