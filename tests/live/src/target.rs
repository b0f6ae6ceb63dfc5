//! A running program that is asked questions.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::fixture::Ask;

const LIMIT: Duration = Duration::from_secs(20);

/// Which of the two answers is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The base's.
    Old,
    /// The fix's.
    New,
}

/// A process of a scenario. It is killed, by its number, when this goes out of scope.
#[derive(Debug)]
pub struct Target {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    what: String,
}

impl Target {
    /// Starts `program` and waits until it says `ready`.
    ///
    /// # Errors
    ///
    /// When it cannot be started or says something else.
    pub fn start(program: &Path, args: &[impl AsRef<str>]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(args.iter().map(AsRef::as_ref));
        Self::start_command(command, program)
    }

    /// Starts a command whose standard error goes to `PROGRAM.stderr`.
    ///
    /// # Errors
    ///
    /// As [`Target::start`].
    pub fn start_command(mut command: Command, program: &Path) -> Result<Self> {
        let what = program.display().to_string();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(format!("{what}.stderr"))?)
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        let stdin = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .context("the program has no standard output")?;
        let (sender, lines) = channel();
        // A thread that reads, because reading a pipe knows no time-out; it ends with the program.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut target = Self {
            child,
            stdin,
            lines,
            what,
        };
        let first = target.line()?;
        ensure!(
            first == "ready",
            "{} said {first:?} instead of \"ready\"",
            target.what
        );
        Ok(target)
    }

    /// The process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line and reads the answer.
    ///
    /// # Errors
    ///
    /// When the program is gone or does not answer in time; both say in which state it was.
    pub fn ask(&mut self, question: &str) -> Result<String> {
        let stdin = self.stdin.as_mut().context("the input is closed")?;
        let sent = stdin
            .write_all(format!("{question}\n").as_bytes())
            .and_then(|()| stdin.flush());
        if let Err(error) = sent {
            return Err(anyhow!(
                "cannot ask {question:?}: {error}; {}",
                self.state()
            ));
        }
        self.line().with_context(|| format!("asked {question:?}"))
    }

    /// Asks and compares.
    ///
    /// # Errors
    ///
    /// When the answer is another one.
    pub fn expect(&mut self, question: &str, answer: &str) -> Result<()> {
        let got = self.ask(question)?;
        ensure!(
            got == answer,
            "asked {question:?}: expected {answer:?}, got {got:?}"
        );
        Ok(())
    }

    /// Asks every question of a fixture and compares with the old or the new answers.
    ///
    /// # Errors
    ///
    /// When one answer is another one.
    pub fn expect_all(&mut self, asks: &[Ask], side: Side) -> Result<()> {
        for ask in asks {
            let answer = if side == Side::Old {
                &ask.old
            } else {
                &ask.new
            };
            self.expect(&ask.question, answer)
                .with_context(|| format!("{side:?} code must answer"))?;
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        if let Ok(line) = self.lines.recv_timeout(LIMIT) {
            return Ok(line);
        }
        let state = self.state();
        Err(anyhow!(
            "no answer from {} (time-out {LIMIT:?}); {state}",
            self.what
        ))
    }

    // How the program is: a crash and a hang need different looks.
    fn state(&mut self) -> String {
        // A process that was just killed by a signal needs a moment until it can be waited for.
        thread::sleep(Duration::from_millis(50));
        match self.child.try_wait() {
            Ok(Some(status)) => {
                let said = fs::read_to_string(format!("{}.stderr", self.what)).unwrap_or_default();
                format!("it ended: {status} {said}")
            }
            Ok(None) => {
                let status =
                    fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
                let state = status
                    .lines()
                    .find(|line| line.starts_with("State:"))
                    .unwrap_or("State: unknown");
                format!("it is alive, {state}")
            }
            Err(error) => format!("its state is unknown: {error}"),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // The process may have ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
