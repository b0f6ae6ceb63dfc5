//! Redis, with threads that read and write for the main one.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Answer, Case};
use crate::load::{Client, Clients, redis};
use crate::paint;
use crate::process::{self, Server};

/// One fix of it.
#[derive(Debug)]
pub(crate) enum Redis {
    /// CVE-2024-31228: a pattern that nests too deep recursed without limit.
    DeepPattern,
    /// CVE-2025-21605: answers piled up for clients that had not logged in.
    OutputLimit,
}

const CLIENTS: usize = 4;

/// How many groups of three requests a client sends at once.
const BATCH: u64 = 32;

impl Case for Redis {
    fn name(&self) -> &'static str {
        match self {
            Self::DeepPattern => "redis-31228",
            Self::OutputLimit => "redis-21605",
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::DeepPattern => "CVE-2024-31228",
            Self::OutputLimit => "CVE-2025-21605",
        }
    }

    fn image(&self) -> &'static str {
        "redis-server"
    }

    fn changed(&self) -> &'static [&'static str] {
        match self {
            Self::DeepPattern => &[
                "stringmatchlen_impl",
                "stringmatchlen",
                "stringmatch",
                "stringmatchlen_fuzz_test",
                "ACLSetSelector",
                "bit_tohex",
            ],
            Self::OutputLimit => &["checkClientOutputBufferLimits"],
        }
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        let port = process::free_port()?;
        let mut command = Command::new(programs.join("redis-server"));
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(run)
            .args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--daemonize",
                "no",
                "--io-threads",
                "4",
                "--requirepass",
                redis::PASSWORD,
            ]);
        Server::start(&mut command, port, &run.join("log"))
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        clients.start_many(CLIENTS, move |client, number| {
            redis::work(client, port, number, BATCH)
        })?;
        clients.start("redis-benchmark".to_owned(), move |client| {
            benchmark(client, port)
        })
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        let (old, seen) = match self {
            Self::DeepPattern => {
                let found = redis::deep_pattern(port)?;
                let seen = format!("a pattern 1500 deep finds {}", paint::of(found, "key"));
                (found == 1, seen)
            }
            Self::OutputLimit => {
                let answers = redis::unread(port)?;
                let seen = format!("a stranger gets {}", paint::of(answers, "answer"));
                (answers == redis::UNREAD, seen)
            }
        };
        Ok((if old { Answer::Old } else { Answer::New }, seen))
    }

    fn requests(&self) -> u64 {
        1_000_000
    }
}

/// A load that others wrote, beside our own: one run after the other.
fn benchmark(client: &mut Client, port: u16) -> Result<()> {
    const TESTS: [&str; 5] = ["SET", "GET", "INCR", "LPUSH", "HSET"];
    const EACH: u64 = 10_000;
    while client.goes_on() {
        let mut command = Command::new("redis-benchmark");
        command
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-c",
                "10",
                "-P",
                "8",
                "-q",
                "--csv",
                "-a",
                redis::PASSWORD,
            ])
            .args([
                "-n",
                &EACH.to_string(),
                "-t",
                &TESTS.join(",").to_lowercase(),
            ]);
        let output = process::capture(&mut command, redis::BENCHMARK_LIMIT)?;
        let text = format!("{}{}", output.stdout, output.stderr);
        let complete = TESTS
            .iter()
            .all(|test| output.stdout.contains(&format!("\"{test}\",\"")));
        let complaint = ["error", "refused", "closed"]
            .iter()
            .any(|word| text.to_lowercase().contains(word));
        ensure!(
            output.status.success() && complete && !complaint,
            "it says: {text}"
        );
        client.count(EACH * TESTS.len() as u64);
    }
    Ok(())
}
