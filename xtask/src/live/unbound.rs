//! Unbound with two threads and a zone of its own.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Answer, Case};
use crate::load::{Clients, dns};
use crate::process::{self, Server};

/// CVE-2024-8508: every name of an answer was compressed, however many there were.
#[derive(Debug)]
pub(crate) struct Unbound;

const CLIENTS: usize = 4;

/// All three hundred names compressed make less than this, 120 of them more.
const COMPRESSED: usize = 7_000;

impl Case for Unbound {
    fn name(&self) -> &'static str {
        "unbound-8508"
    }

    fn label(&self) -> &'static str {
        "CVE-2024-8508"
    }

    fn image(&self) -> &'static str {
        "unbound"
    }

    fn changed(&self) -> &'static [&'static str] {
        &[
            "compress_any_dname",
            "packed_rrset_encode",
            "reply_info_encode",
        ]
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        let port = process::free_port()?;
        let config = run.join("unbound.conf");
        let folder = run.display();
        std::fs::write(
            &config,
            format!(
                "server:\ninterface: 127.0.0.1\nport: {port}\nnum-threads: 2\ndo-daemonize: no\nchroot: \"\"\n\
                 username: \"\"\ndirectory: \"{folder}\"\npidfile: \"{folder}/pid\"\nuse-syslog: no\n\
                 logfile: \"\"\ndo-ip6: no\nmodule-config: \"iterator\"\nmsg-buffer-size: 65552\n{}\
                 remote-control:\ncontrol-enable: no\n",
                dns::zone()
            ),
        )?;
        let mut command = Command::new(programs.join("unbound"));
        command.arg("-c").arg(config);
        Server::start(&mut command, port, &run.join("log"))
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        clients.start_many(CLIENTS, move |client, _| dns::work(client, port))
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        let length = dns::name_servers(port)?;
        let answer = if length > COMPRESSED {
            Answer::New
        } else {
            Answer::Old
        };
        Ok((answer, format!("300 names take {length} bytes")))
    }

    fn requests(&self) -> u64 {
        50_000
    }
}
