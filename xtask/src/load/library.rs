//! The control port of the drivers that load a library from inside.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Client, PATIENCE};
use crate::process;

/// Sends one line and returns the answer's line.
pub(crate) fn ask(port: u16, line: &str) -> Result<String> {
    let mut stream =
        TcpStream::connect_timeout(&process::address(port), PATIENCE).context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream
        .write_all(format!("{line}\n").as_bytes())
        .context("cannot send")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no answer")?;
    Ok(answer.trim_end().to_owned())
}

/// The driver's counters since the start, and its longest round since the last
/// time somebody asked.
#[derive(Debug, Clone, Copy)]
struct Stats {
    loops: u64,
    errors: u64,
    longest: Duration,
}

fn stats(port: u16) -> Result<Stats> {
    let answer = ask(port, "stats")?;
    let number = |name: &str| -> Result<u64> {
        let text = answer
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        text.and_then(|text| text.parse().ok())
            .with_context(|| format!("no {name} in `{answer}`"))
    };
    Ok(Stats {
        loops: number("loops")?,
        errors: number("errors")?,
        longest: Duration::from_micros(number("longest_us")?),
    })
}

/// Reads the counters until the run ends; the load is the driver itself.
pub(crate) fn work(client: &mut Client, port: u16) -> Result<()> {
    let mut last = stats(port)?;
    while client.goes_on() {
        let sent = client.send();
        thread::sleep(Duration::from_millis(5));
        let now = stats(port)?;
        let (loops, errors) = (now.loops - last.loops, now.errors - last.errors);
        client.note(sent.phase, now.longest, loops, errors);
        last = now;
    }
    Ok(())
}
