//! This program's place in the queue for processors.

use std::marker::PhantomData;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
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
    let processor = processor(&format!("/proc/{pid}/task/{tid}/stat"))?;
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).ok()?;
    let mut there = CpuSet::new();
    there.set(processor).ok()?;
    sched_setaffinity(this, &there).ok()?;
    Some(before)
}

/// The processor on which a thread ran last.
fn processor(stat: &str) -> Option<usize> {
    /// Of the values behind the name of the program.
    const PROCESSOR: usize = 36;
    let stat = proc_file::read_piece(stat).ok()?;
    proc_file::value_of(&stat, PROCESSOR)?.parse().ok()
}

/// The processor on which a process's first thread ran last. Whoever changes several
/// processes takes first those that ran where it runs itself: a thread that is held is
/// visited on its own processor, where two visitors would be in each other's way.
#[must_use]
pub fn last_processor(pid: i32) -> Option<usize> {
    processor(&format!("/proc/{pid}/stat"))
}

/// The processor on which the caller runs.
#[must_use]
pub fn own_processor() -> Option<usize> {
    sched_getcpu().ok()
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
    fn this_process_runs_on_a_processor_that_there_is() {
        let own = std::process::id().cast_signed();
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
        for processor in [last_processor(own), own_processor()] {
            assert!(all.is_set(processor.unwrap()).unwrap());
        }
        assert_eq!(last_processor(i32::MAX), None);
    }

    #[test]
    fn a_thread_may_run_everywhere_again_afterwards() {
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let own = std::process::id().cast_signed();
        drop(First::beside(own, own));
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), before);
    }
}
