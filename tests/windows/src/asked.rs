//! Programs for Windows, run by Wine, that say what a library answers.

use std::io::{BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result};

use crate::wine::{self, Wine, name};

/// A process that has loaded the library.
#[derive(Debug)]
pub struct Asked {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Asked {
    /// Starts the program ([`asker`](crate::asker)) with the library, and waits until it has loaded it: a
    /// file that is exchanged before that would be the new one for this process too.
    ///
    /// # Errors
    /// When Wine is missing, or the library is not loaded.
    pub fn start(program: &Path, library: &Path) -> Result<Asked> {
        let mut command = Wine::ready()?.command(program);
        command
            .arg(name(library))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().context("wine64 is not installed")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut asked = Asked {
            child,
            input,
            output,
        };
        // It reads its first question when the library is there.
        asked.ask("PID 0")?;
        Ok(asked)
    }

    /// What a function answers, and whether the code that runs has unwind data.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&mut self, question: &str) -> Result<(i32, bool)> {
        self.input.write_all(format!("{question}\n").as_bytes())?;
        self.input.flush()?;
        let line = wine::line(&mut self.output)?;
        let (answer, unwound) = line.split_once(' ').with_context(|| line.clone())?;
        Ok((answer.parse()?, unwound == "1"))
    }

    /// The number that Linux knows it by.
    #[must_use]
    pub fn linux_pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // It is ours; where it has ended nothing happens.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
