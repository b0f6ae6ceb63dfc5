//! An emulated machine that boots a hypervisor and does what a script says.

use std::ops::Index;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::emulator::{Emulator, UEFI};
use crate::hypervisor::dom0;
use crate::{Answer, Hypervisor, Script, Step};

/// The most that is kept of the console. A hypervisor that crashes while it tells of a crash
/// prints without an end.
const LONGEST_LOG: usize = 1 << 20;
/// How long the hypervisor may go on telling why it crashed.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// What it says when it crashes.
const CRASHES: [&str; 3] = ["Panic on CPU", "DOUBLE FAULT", "FATAL PAGE FAULT"];

/// What it says last then.
const LAST_LINES: [&str; 2] = ["Reboot in ", "Manual reset required"];

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps were done.
    Finished,
    /// The hypervisor crashed; its own words.
    Crashed(String),
    /// It did not end in time.
    TimedOut,
    /// The emulator ended by itself, before the last step.
    Stopped,
}

/// What came of a script.
#[derive(Clone, Debug)]
pub struct Run {
    /// The answers to the steps that were done.
    pub answers: Vec<Answer>,
    /// How it ended.
    pub end: End,
    /// What was on the console, as far as it was kept.
    pub log: String,
    /// How long it took, the boot included.
    pub took: Duration,
}

impl Run {
    /// The answer to a step, if it was done.
    #[must_use]
    pub fn get(&self, step: Step) -> Option<&Answer> {
        self.answers.get(step.0)
    }
}

impl Index<Step> for Run {
    type Output = Answer;

    /// The answer to a step that was done.
    ///
    /// # Panics
    ///
    /// With the end of the console's log, if it was not.
    fn index(&self, step: Step) -> &Answer {
        let last: Vec<&str> = self.log.lines().rev().take(20).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        self.get(step).unwrap_or_else(|| {
            let (end, last) = (&self.end, last.join("\n"));
            unreachable!("step {} was not done ({end:?}):\n{last}", step.0)
        })
    }
}

/// A machine, before it is started.
#[derive(Clone, Debug)]
pub struct Machine {
    hypervisor: Hypervisor,
    processors: u32,
    limit: Duration,
    options: String,
    is_uefi: bool,
}

impl Machine {
    /// A machine with one processor and a limit of 60 s.
    #[must_use]
    pub fn of(hypervisor: &Hypervisor) -> Machine {
        Machine {
            hypervisor: hypervisor.clone(),
            processors: 1,
            limit: Duration::from_secs(60),
            options: String::new(),
            is_uefi: false,
        }
    }

    /// The same with firmware of UEFI, which boots the hypervisor's `xen.efi`: that takes some seconds.
    #[must_use]
    pub fn by_uefi(mut self) -> Machine {
        self.is_uefi = true;
        self
    }

    /// The same with that many processors.
    #[must_use]
    pub fn processors(mut self, processors: u32) -> Machine {
        self.processors = processors;
        self
    }

    /// The same with another limit for all of it.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Machine {
        self.limit = limit;
        self
    }

    /// The same with further words on the hypervisor's command line.
    #[must_use]
    pub fn options(mut self, options: &str) -> Machine {
        self.options.push(' ');
        self.options.push_str(options);
        self
    }

    /// Boots the hypervisor, does all steps and ends the machine.
    ///
    /// # Errors
    ///
    /// If the emulator cannot be started, or an answer cannot be read.
    pub fn run(&self, script: &Script) -> Result<Run> {
        let begun = Instant::now();
        let folder = tempfile::tempdir()?;
        let folder = folder.path();
        let alone = if self.processors == 1 { "alone\n" } else { "" };
        let text = [alone.as_bytes(), &script.text, b"end\n"].concat();
        let options = format!("dom0_mem=64M dom0_max_vcpus=1{}", self.options);
        let emulator = if self.is_uefi {
            let disk = folder.join(UEFI);
            std::fs::create_dir_all(&disk)?;
            std::fs::copy(self.hypervisor.efi(), disk.join("BOOTX64.EFI"))?;
            std::fs::copy(dom0()?, disk.join("dom0"))?;
            std::fs::write(disk.join("script"), text)?;
            Emulator::start_by_uefi(folder, self.processors, 512, &options)?
        } else {
            // The emulator takes a comma or a space in a path for something else.
            std::os::unix::fs::symlink(self.hypervisor.image(), folder.join("xen"))?;
            std::os::unix::fs::symlink(dom0()?, folder.join("dom0"))?;
            std::fs::write(folder.join("script"), text)?;
            Emulator::start(folder, self.processors, 256, &options, "dom0,script")?
        };
        listen(&emulator, begun, begun + self.limit)
    }
}

/// Reads the console until the end, a crash, or the time is over.
fn listen(emulator: &Emulator, begun: Instant, mut end: Instant) -> Result<Run> {
    let (mut answers, mut entries, mut log) = (Vec::new(), Vec::new(), String::new());
    let mut crash: Option<String> = None;
    let how = loop {
        let left = end.saturating_duration_since(Instant::now());
        let line = match emulator.lines.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => break crash.map_or(End::TimedOut, End::Crashed),
            Err(RecvTimeoutError::Disconnected) => break crash.map_or(End::Stopped, End::Crashed),
        };
        if log.len() < LONGEST_LOG {
            log.push_str(&line);
            log.push('\n');
        }
        if line == "R end" {
            break End::Finished;
        }
        if let Some(answer) = line.strip_prefix("R ") {
            answers.extend(Answer::read(answer, &mut entries).with_context(|| line.clone())?);
        }
        if crash.is_some() && LAST_LINES.iter().any(|words| line.contains(words)) {
            break crash.map_or(End::Stopped, End::Crashed);
        }
        if crash.is_some() || CRASHES.iter().any(|words| line.contains(words)) {
            let words = crash.get_or_insert_with(|| {
                end = end.min(Instant::now() + LAST_WORDS);
                String::new()
            });
            if words.len() < 4096 {
                words.push_str(&line);
                words.push('\n');
            }
        }
    };
    Ok(Run {
        answers,
        end: how,
        log,
        took: begun.elapsed(),
    })
}
