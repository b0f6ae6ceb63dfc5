//! Small files below `/proc`, in few calls.

use std::fs::File;
use std::io::{self, Read};

use invivo_apply::TargetError;

use crate::error::system;

/// Larger than any of those that are read so.
const USUAL: usize = 4096;

/// The whole text of a file.
pub(crate) fn read(path: &str) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::with_capacity(USUAL);
    loop {
        let done = bytes.len();
        bytes.resize(done + USUAL, 0);
        let more = file.read(&mut bytes[done..])?;
        bytes.truncate(done + more);
        if more == 0 {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

/// The text of a file that the kernel writes in one piece, such as `stat`.
pub(crate) fn read_piece(path: &str) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; USUAL];
    let size = file.read(&mut bytes)?;
    // Where there may be more, all of it.
    if size == USUAL {
        return read(path);
    }
    bytes.truncate(size);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The value with this number of those that stand behind the name in a `stat`. The name may hold
/// anything.
pub(crate) fn value_of(stat: &str, number: usize) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(number)
}

/// What process `pid`, or a thread, says of itself in `status`.
#[derive(Debug)]
pub(crate) struct Status(String);

impl Status {
    /// Of a process.
    pub(crate) fn of(pid: i32) -> Result<Status, TargetError> {
        read_piece(&format!("/proc/{pid}/status"))
            .map(Status)
            .map_err(|error| failure(pid, error))
    }

    /// Of this program; empty where there is no `/proc`.
    pub(crate) fn own() -> Status {
        Status(read_piece("/proc/self/status").unwrap_or_default())
    }

    /// Of a thread; empty if it is gone.
    pub(crate) fn of_thread(pid: i32, tid: i32) -> Status {
        Status(read_piece(&format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default())
    }

    /// What stands behind `name`, which ends with a colon.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    }

    /// A set of signals, or of capabilities: bits as one number.
    pub(crate) fn bits(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.field(name)?, 16).ok()
    }

    /// The letter of its state.
    pub(crate) fn state(&self) -> char {
        let state = self.field("State:").and_then(|state| state.chars().next());
        state.unwrap_or('?')
    }

    /// True for one that has ended.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state(), 'Z' | 'X')
    }

    /// Who traces it; 0 for nobody.
    pub(crate) fn tracer(&self) -> i32 {
        let tracer = self.field("TracerPid:");
        tracer.and_then(|tracer| tracer.parse().ok()).unwrap_or(0)
    }
}

/// An error of reading below `/proc/PID`.
pub(crate) fn failure(pid: i32, error: io::Error) -> TargetError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => TargetError::Gone(pid),
        _ => system(format!("look at process {pid}"), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_read_to_its_end() {
        let text = read("/proc/self/smaps").unwrap();
        assert!(text.len() > USUAL && text.ends_with('\n'));
    }

    #[test]
    fn a_file_in_one_piece_is_read_as_any_other_is() {
        for name in ["status", "comm", "smaps"] {
            let path = format!("/proc/self/{name}");
            assert_eq!(
                read_piece(&path).unwrap().lines().next(),
                read(&path).unwrap().lines().next()
            );
        }
        let stat = read_piece("/proc/self/stat").unwrap();
        let parent = nix::unistd::getppid().to_string();
        assert_eq!(value_of(&stat, 1), Some(parent.as_str()));
        assert_eq!(value_of("1 (a) b) R 7", 1), Some("7"));
    }

    #[test]
    fn this_process_tells_of_itself() {
        let own = std::process::id().cast_signed();
        let status = Status::of(own).unwrap();
        assert_eq!(status.field("Pid:"), Some(own.to_string().as_str()));
        assert_eq!(status.bits("SigPnd:"), Some(0));
        assert_eq!(Status::own().bits("CapEff:"), status.bits("CapEff:"));
        assert!(!status.has_ended() && status.state() != '?');
        let none = Status::of(i32::MAX);
        assert!(matches!(none, Err(TargetError::Gone(i32::MAX))));
    }
}
