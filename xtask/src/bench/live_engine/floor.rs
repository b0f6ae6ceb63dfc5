//! The least that a tool takes from a program whose threads all have to stand: they are
//! stopped, two bytes are written, and they go on.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// Does that, with the bytes that are there already; how long the threads stood, in
/// microseconds.
pub(super) fn stop_and_write(pid: u32) -> Result<u64> {
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))?;
    let at = text(pid)?;
    let mut bytes = [0; 2];
    memory.read_exact_at(&mut bytes, at)?;
    let mut threads = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = entry?.file_name();
        let number = name.to_str().context("a strange thread")?.parse()?;
        threads.push(Pid::from_raw(number));
    }
    for thread in &threads {
        ptrace::seize(*thread, Options::empty())?;
    }
    let begun = Instant::now();
    for thread in &threads {
        ptrace::interrupt(*thread)?;
    }
    for thread in &threads {
        waitpid(*thread, Some(WaitPidFlag::__WALL))?;
    }
    memory.write_all_at(&bytes, at)?;
    for thread in &threads {
        ptrace::detach(*thread, None)?;
    }
    Ok(u64::try_from(begun.elapsed().as_micros())?)
}

/// Where the program's own code starts.
fn text(pid: u32) -> Result<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.contains(" r-xp "));
    let start = line.and_then(|line| line.split('-').next());
    Ok(u64::from_str_radix(start.context("no code")?, 16)?)
}
