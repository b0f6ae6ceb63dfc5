//! Mosquitto, with one event loop.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::extras::Extra;
use super::{Answer, Case, Expectation};
use crate::load::{Clients, mqtt};
use crate::process::{self, Server};

/// CVE-2023-28366: a message that must arrive exactly once was stored again with
/// each duplicate of it.
#[derive(Debug)]
pub(crate) struct Mosquitto;

/// How often the probe sends its message.
const TIMES: u32 = 6;

impl Case for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto-28366"
    }

    fn label(&self) -> &'static str {
        "CVE-2023-28366"
    }

    fn image(&self) -> &'static str {
        "mosquitto"
    }

    /// `db__message_reconnect_reset_incoming` is inlined into its caller.
    fn changed(&self) -> &'static [&'static str] {
        &[
            "packet__queue",
            "context__init",
            "context__cleanup",
            "db__message_insert",
            "db__message_store_find",
            "db__message_reconnect_reset",
            "handle__publish",
        ]
    }

    fn extras(&self) -> &'static [Extra] {
        const WHY: &str = "writes or reads `dup`, whose type is another one";
        &[
            ("db__message_write_inflight_out_single", WHY),
            ("persist__client_messages_save", WHY),
            ("persist__restore", WHY),
        ]
    }

    /// A member that said yes or no counts from now on, and each message that waits
    /// for a client has one.
    fn expectation(&self) -> Expectation {
        Expectation::Refused {
            rule: "R-LAYOUT",
            subject: "mosquitto_client_msg",
        }
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        let port = process::free_port()?;
        let config = run.join("mosquitto.conf");
        std::fs::write(
            &config,
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 2000\n\
                 persistence false\nlog_dest stderr\nlog_type error\nuser root\n"
            ),
        )?;
        let mut command = Command::new(programs.join("mosquitto"));
        command.arg("-c").arg(config);
        Server::start(&mut command, port, &run.join("log"))
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        for quality in 0..=2 {
            clients.start(format!("client of quality {quality}"), move |client| {
                mqtt::work(client, port, quality)
            })?;
        }
        Ok(())
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        let taken = mqtt::duplicates(port, TIMES)?;
        let answer = if taken == TIMES {
            Answer::Old
        } else {
            Answer::New
        };
        Ok((answer, format!("{taken} of {TIMES} duplicates are taken")))
    }

    fn requests(&self) -> u64 {
        10_000
    }
}
