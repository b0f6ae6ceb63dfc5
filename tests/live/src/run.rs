//! Running another program to its end, never longer than a time-out.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Ran {
    /// Everything about the run, for a failure message.
    #[must_use]
    pub fn told(&self) -> String {
        let code = self
            .code
            .map_or("a signal".to_owned(), |code| code.to_string());
        format!(
            "$ {}\nexit: {code}\nstdout: {}\nstderr: {}",
            self.command,
            self.stdout.trim(),
            self.stderr.trim()
        )
    }
}

/// Runs `command` and collects what it says.
///
/// # Errors
///
/// When it cannot be started, or still runs after `limit`; then it has been killed.
pub fn run(mut command: Command, limit: Duration) -> Result<Ran> {
    let line = format!("{command:?}").replace('"', "");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {line}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("still running after {limit:?}, killed: {line}");
        }
        thread::sleep(Duration::from_millis(2));
    };
    let joined = |thread: thread::JoinHandle<String>| thread.join().unwrap_or_default();
    Ok(Ran {
        command: line,
        code: status.code(),
        stdout: joined(stdout),
        stderr: joined(stderr),
    })
}

// A thread for each stream: a program that fills one pipe while the other is being read would wait for ever.
fn collect(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // A broken pipe leaves what was read so far, which is all there is to show.
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits until something `holds`.
///
/// # Errors
/// When it does not within ten seconds; `what` names it.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !holds()? {
        ensure!(
            started.elapsed() < Duration::from_secs(10),
            "did not happen: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
