//! Only one tool changes a process at a time.
//!
//! The lock is on the process itself and held by an open file, so the kernel lets it
//! go when its holder ends, however it ends. Two files are locked: `/proc/PID/mem`,
//! which nobody can open who may not change the process, and the process's pidfd,
//! which is one and the same from every namespace and every mount of `/proc`.

use std::fs::{File, TryLockError};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use invivo_apply::{Options, TargetError};
use nix::sys::statfs::{FsType, fstatfs};

use crate::error::system;

/// How often a lock is tried that another tool holds.
const PAUSE: Duration = Duration::from_millis(5);
/// `PID_FS_MAGIC`: since Linux 6.9 each process has a pidfd of its own, before they all
/// shared one.
const PID_FS: FsType = FsType(0x5049_4446);

/// Held while a process is changed.
#[derive(Debug)]
pub(crate) struct Lock {
    _files: Vec<File>,
}

impl Lock {
    /// Waits for other tools as long as `options` say.
    pub(crate) fn take(pid: i32, memory: File, options: &Options<'_>) -> Result<Lock, TargetError> {
        let deadline = Instant::now() + options.timeout;
        let mut files = Vec::new();
        let pidfd = pidfd(pid);
        for (file, guarded) in [(Some(memory), true), (pidfd, false)] {
            let Some(file) = file else { continue };
            loop {
                match file.try_lock() {
                    Ok(()) => break,
                    Err(TryLockError::Error(error)) => {
                        return Err(system(format!("lock process {pid}"), error));
                    }
                    Err(TryLockError::WouldBlock) => {}
                }
                let holder = holder(&file);
                // Anybody can open a pidfd. Who may not change the process does not keep
                // others from it.
                if !guarded && holder.is_some_and(|holder| !may_change(holder, pid)) {
                    break;
                }
                if Instant::now() >= deadline || options.is_interrupted() {
                    let who = holder.map_or(String::new(), |holder| format!(" (process {holder})"));
                    return Err(TargetError::NotNow(format!(
                        "another invivo{who} works on process {pid}"
                    )));
                }
                std::thread::sleep(PAUSE);
            }
            files.push(file);
        }
        Ok(Lock { _files: files })
    }
}

/// The process's pidfd, if it is one that can be told from others.
fn pidfd(pid: i32) -> Option<File> {
    // SAFETY: the call takes two numbers and returns a descriptor or an error.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let number = i32::try_from(number).ok().filter(|number| *number >= 0)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(number) });
    let kind = fstatfs(&file).ok()?.filesystem_type();
    (kind == PID_FS).then_some(file)
}

/// The process that holds the lock on `file`, if it can be seen from here.
fn holder(file: &File) -> Option<i32> {
    let data = file.metadata().ok()?;
    let device = (libc::major(data.dev()), libc::minor(data.dev()));
    let place = format!("{:02x}:{:02x}:{}", device.0, device.1, data.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // 5: FLOCK  ADVISORY  WRITE 1234 00:16:5678 0 EOF
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, at, ..] if at == place => pid.parse().ok(),
            _ => None,
        }
    })
}

/// True unless `holder` is known to run neither as root, nor with the right to trace
/// others, nor as the user that `pid` runs as.
fn may_change(holder: i32, pid: i32) -> bool {
    const SYS_PTRACE: u64 = 1 << 19;
    let status = |pid| procfs::process::Process::new(pid).and_then(|process| process.status());
    let (Ok(holder), Ok(target)) = (status(holder), status(pid)) else {
        return true;
    };
    holder.euid == 0 || holder.euid == target.ruid || holder.capeff & SYS_PTRACE != 0
}

/// True if the process is on its way out: a tool that was killed keeps what it traces
/// for a moment longer than its locks.
pub(crate) fn is_ending(pid: i32) -> bool {
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
    stat.map_or(true, |stat| {
        matches!(stat.state, 'Z' | 'X') || stat.vsize == 0
    })
}
