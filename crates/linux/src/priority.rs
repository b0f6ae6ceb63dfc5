//! This program's place in the queue for processors.

use std::marker::PhantomData;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::proc_file;

/// While a thread of the target waits for us, we should not wait for a processor: as
/// long as this lives, this program comes first. At all other times the target does.
///
/// Only root may ask for that; for everybody else nothing changes.
#[derive(Debug)]
pub(crate) struct First {
    before: i32,
    /// The processors on which this thread may run at other times.
    processors: Option<CpuSet>,
    /// Priorities belong to the thread of this program that asked.
    _same_thread: PhantomData<*const ()>,
}

impl First {
    pub(crate) fn new() -> First {
        // SAFETY: the call takes two numbers and returns one.
        let before = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        set(-20);
        First {
            before,
            processors: None,
            _same_thread: PhantomData,
        }
    }

    /// The same, on the processor of the thread that is about to be held.
    ///
    /// That thread and we take turns. On one processor each turn is a switch; on two, each
    /// waits until the other one's processor is awake, or has time.
    pub(crate) fn beside(pid: i32, tid: i32) -> First {
        let mut first = First::new();
        // SAFETY: the call takes two numbers and returns one.
        let now = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        // Whoever does not come first there might wait for long.
        if now == -20 {
            first.processors = move_beside(pid, tid);
        }
        first
    }
}

/// Moves this thread; returns where it could run before.
fn move_beside(pid: i32, tid: i32) -> Option<CpuSet> {
    /// Of the values behind the name of the program, which may hold anything.
    const PROCESSOR: usize = 36;
    let stat = proc_file::read(&format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    let mut values = stat.rsplit_once(')')?.1.split_whitespace();
    let processor: usize = values.nth(PROCESSOR)?.parse().ok()?;
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).ok()?;
    let mut there = CpuSet::new();
    there.set(processor).ok()?;
    sched_setaffinity(this, &there).ok()?;
    Some(before)
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some(processors) = &self.processors {
            let _ = sched_setaffinity(Pid::from_raw(0), processors);
        }
        set(self.before);
    }
}

fn set(priority: i32) {
    // SAFETY: the call takes three numbers and changes only this thread's priority.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, priority) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_run_everywhere_again_afterwards() {
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let own = std::process::id().cast_signed();
        drop(First::beside(own, own));
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), before);
    }
}
