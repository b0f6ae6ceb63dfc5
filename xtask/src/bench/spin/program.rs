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
pub(in crate::bench) struct Seen {
    /// The longest gap that the scheduler did not make.
    pub(in crate::bench) own_gap: Duration,
    /// The longest gap.
    pub(in crate::bench) gap: Duration,
    /// Of one thing.
    pub(in crate::bench) price: u32,
}

/// The program at work; ended when it is dropped.
#[derive(Debug)]
pub(in crate::bench) struct Running {
    child: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
}

impl Running {
    /// Starts it and waits until all its threads are at work.
    pub(in crate::bench) fn start(
        program: &Path,
        spinners: usize,
        sleepers: usize,
    ) -> Result<Self> {
        let mut running = Self::launch(program, &[spinners.to_string(), sleepers.to_string()])?;
        // The first gaps are those of its start.
        thread::sleep(Duration::from_millis(200));
        running.ask()?;
        Ok(running)
    }

    /// Starts a program that answers each line with a line.
    pub(in crate::bench) fn launch(program: &Path, arguments: &[String]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
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
        Ok(Self {
            child,
            questions,
            answers,
        })
    }

    /// Its process id.
    pub(in crate::bench) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One line of answer to one line of question.
    pub(in crate::bench) fn answer(&mut self) -> Result<String> {
        self.questions
            .write_all(b"?\n")
            .context("the program died")?;
        self.answers
            .recv_timeout(PATIENCE)
            .context("the program does not answer")
    }

    /// What the program saw since the last question.
    pub(in crate::bench) fn ask(&mut self) -> Result<Seen> {
        let answer = self.answer()?;
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

    /// The same, asked again for a while until the price is `expected`: a thread that got
    /// no processor since the switch has not looked yet. The gaps are those of all this time.
    pub(in crate::bench) fn ask_until(&mut self, expected: u32) -> Result<Seen> {
        const ONCE_MORE: usize = 40;
        let mut seen = self.ask()?;
        for _ in 0..ONCE_MORE {
            if seen.price == expected {
                break;
            }
            thread::sleep(Duration::from_millis(50));
            let now = self.ask()?;
            seen = Seen {
                own_gap: seen.own_gap.max(now.own_gap),
                gap: seen.gap.max(now.gap),
                price: now.price,
            };
        }
        Ok(seen)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have died by itself; the run has noticed that by then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
