//! `spin.c` at work.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// An answer takes this long only if something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the program saw of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The longest gap that the scheduler did not make.
    pub(super) own_gap: Duration,
    /// The longest gap.
    pub(super) gap: Duration,
    /// Of one thing.
    pub(super) price: u32,
}

/// The program at work; ended when it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
}

impl Running {
    /// Starts it and waits until all its threads are at work.
    pub(super) fn start(program: &Path, spinners: usize, sleepers: usize) -> Result<Self> {
        let mut child = Command::new(program)
            .args([spinners.to_string(), sleepers.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (Some(questions), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the program has no pipes");
        };
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut running = Self {
            child,
            questions,
            answers,
        };
        // The first gaps are those of its start.
        thread::sleep(Duration::from_millis(200));
        running.ask()?;
        Ok(running)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the program saw since the last question.
    pub(super) fn ask(&mut self) -> Result<Seen> {
        self.questions
            .write_all(b"?\n")
            .context("the program died")?;
        let answer = self
            .answers
            .recv_timeout(PATIENCE)
            .context("the program does not answer")?;
        let words: Vec<&str> = answer.split(' ').collect();
        let [own_gap, gap, price] = words.as_slice() else {
            bail!("half an answer: {answer}");
        };
        Ok(Seen {
            own_gap: Duration::from_nanos(own_gap.parse()?),
            gap: Duration::from_nanos(gap.parse()?),
            price: price.parse()?,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have died by itself; the run has noticed that by then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
