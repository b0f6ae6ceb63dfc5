//! Which process this is: told apart from later ones with the same number.

use invivo_apply::TargetError;

use crate::proc_file;

/// A process, told apart from later ones with the same number and from what it was
/// before it executed another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation {
    /// Its number.
    pub pid: i32,
    /// When it started, in ticks since boot.
    started: u64,
    /// Where its stack starts: elsewhere after each `exec`.
    stack: u64,
}

impl Incarnation {
    /// What the process with this number is now; `None` if there is none, or it has ended.
    #[must_use]
    pub fn of(pid: i32) -> Option<Incarnation> {
        Seen::of(pid).ok().and_then(|seen| seen.now)
    }

    /// True unless it has ended, or become another program.
    #[must_use]
    pub fn is_still_there(&self) -> bool {
        Incarnation::of(self.pid) == Some(*self)
    }
}

/// What a process's `stat` says.
pub(crate) struct Seen {
    /// `None` if it has ended.
    pub(crate) now: Option<Incarnation>,
    /// Threads of the kernel have none.
    pub(crate) has_memory: bool,
    /// The process that started it, if it still lives.
    pub(crate) parent: i32,
    /// The thread whose folder in `/proc` shows the process: its first one, but where that has
    /// ended before the others.
    pub(crate) shown_by: i32,
}

impl Seen {
    pub(crate) fn of(pid: i32) -> Result<Seen, TargetError> {
        let stat = proc_file::read_piece(&format!("/proc/{pid}/stat"));
        let stat = Stat::of(&stat.map_err(|error| proc_file::failure(pid, error))?);
        let mut seen = Seen {
            now: stat.now(pid, &stat),
            has_memory: stat.size > 0,
            parent: stat.parent,
            shown_by: pid,
        };
        if stat.has_ended && stat.threads > 1 {
            for tid in threads(pid) {
                let other = proc_file::read_piece(&format!("/proc/{pid}/task/{tid}/stat"));
                let Ok(other) = other.map(|text| Stat::of(&text)) else {
                    continue;
                };
                if let Some(now) = other.now(pid, &stat) {
                    seen.now = Some(now);
                    seen.has_memory = other.size > 0;
                    seen.shown_by = tid;
                    break;
                }
            }
        }
        Ok(seen)
    }
}

/// The thread whose folder in `/proc` shows the process with this number.
pub(crate) fn shown_by(pid: i32) -> i32 {
    Seen::of(pid).map_or(pid, |seen| seen.shown_by)
}

/// Threads of a process, in order: each who asks is to come to the same one.
fn threads(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let names = tasks.into_iter().flatten().flatten();
    let mut tids: Vec<i32> = names
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect();
    tids.sort_unstable();
    tids
}

/// What a `stat` says of a process or a thread.
struct Stat {
    has_ended: bool,
    parent: i32,
    threads: u64,
    started: Option<u64>,
    size: u64,
    stack: Option<u64>,
}

impl Stat {
    fn of(text: &str) -> Stat {
        /// Of the values behind the name of the program, which may hold anything.
        const PARENT: usize = 1;
        const THREADS: usize = 17;
        const STARTED: usize = 19;
        const SIZE: usize = 20;
        const STACK: usize = 25;
        let values = text.rsplit_once(')').map_or("", |(_, values)| values);
        let values: Vec<&str> = values.split_whitespace().collect();
        let number = |at: usize| values.get(at).and_then(|value| value.parse::<u64>().ok());
        let parent = values.get(PARENT).and_then(|value| value.parse().ok());
        Stat {
            has_ended: matches!(values.first(), None | Some(&"Z" | &"X")),
            parent: parent.unwrap_or(0),
            threads: number(THREADS).unwrap_or(0),
            started: number(STARTED),
            size: number(SIZE).unwrap_or(0),
            stack: number(STACK),
        }
    }

    /// The process `pid`, which started as `first` says; `None` if this thread has ended.
    fn now(&self, pid: i32, first: &Stat) -> Option<Incarnation> {
        let (started, stack) = first.started.zip(self.stack)?;
        (!self.has_ended).then_some(Incarnation {
            pid,
            started,
            stack,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_one_and_the_same_until_it_ends() {
        let own = std::process::id().cast_signed();
        assert!(Incarnation::of(own).is_some_and(|own| own.is_still_there()));
        assert_eq!(Incarnation::of(i32::MAX), None);
        let seen = Seen::of(own).unwrap();
        assert_eq!(seen.parent, nix::unistd::getppid().as_raw());
        assert_eq!((seen.shown_by, seen.has_memory), (own, true));
    }
}
