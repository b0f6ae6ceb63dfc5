//! This program's place in the queue for processors.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use rustix::thread::{
    CpuSet, sched_getaffinity as affinity, sched_getcpu, sched_setaffinity as set_affinity,
};

use crate::awake::Awake;
use crate::proc_file;

/// While a thread of the target waits for us, we should not wait for a processor: as
/// long as this lives, this program comes first. At all other times the target does.
///
/// Only root may ask for that; for everybody else nothing changes.
#[derive(Debug)]
pub(crate) struct First {
    before: i32,
    /// Where this thread may run at other times, if it was moved.
    moved: Option<Moved>,
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
            moved: None,
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
            first.moved = move_beside(pid, tid);
        }
        first
    }

    /// What keeps the one other processor awake on which the thread `tid` may run, for as long as
    /// a deputy works here; `None` where there is not exactly one.
    pub(crate) fn keep_awake(&self, tid: i32) -> Option<Awake> {
        let here = self.moved.as_ref()?.processor;
        let mut others = affinity(Some(rustix::process::Pid::from_raw(tid)?)).ok()?;
        others.unset(here);
        (others.count() == 1).then(|| Awake::new(only(here), others))
    }
}

/// That this thread was moved.
#[derive(Debug)]
struct Moved {
    before: CpuSet,
    processor: usize,
}

/// A move takes no longer where this program comes first.
const MOVE: Duration = Duration::from_millis(2);

/// Moves this thread, while nobody is held yet. It stays where it is if the move shows that
/// somebody comes before it there: a thread of a real-time class may keep a processor for
/// seconds, and whoever is held would stand as long.
fn move_beside(pid: i32, tid: i32) -> Option<Moved> {
    let processor = processor(&format!("/proc/{pid}/task/{tid}/stat"))?;
    let processor = (processor < CpuSet::MAX_CPU).then_some(processor)?;
    let before = affinity(None).ok()?;
    let begun = Instant::now();
    set_affinity(None, &only(processor)).ok()?;
    if begun.elapsed() > MOVE {
        let _ = set_affinity(None, &before);
        return None;
    }
    Some(Moved { before, processor })
}

fn only(processor: usize) -> CpuSet {
    let mut only = CpuSet::new();
    only.set(processor);
    only
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
pub fn own_processor() -> usize {
    sched_getcpu()
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some(moved) = &self.moved {
            let _ = set_affinity(None, &moved.before);
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
    use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

    use rustix::thread::gettid;

    use super::*;

    #[test]
    fn this_process_runs_on_a_processor_that_there_is() {
        let own = std::process::id().cast_signed();
        let all = affinity(None).unwrap();
        for processor in [last_processor(own).unwrap(), own_processor()] {
            assert!(all.is_set(processor));
        }
        assert_eq!(last_processor(i32::MAX), None);
    }

    /// Keeps a processor in a real-time class until it is told, if it may; tells its number.
    fn keep_a_processor(told: &AtomicBool, number: &AtomicI32) {
        let first = libc::sched_param { sched_priority: 1 };
        // SAFETY: the call reads `first`, and is about this thread alone.
        let may = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) } == 0;
        number.store(gettid().as_raw_nonzero().get(), Ordering::Release);
        let end = Instant::now() + Duration::from_secs(20);
        while may && !told.load(Ordering::Acquire) && Instant::now() < end {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn nobody_goes_where_a_thread_of_real_time_runs() {
        let before = affinity(None).unwrap();
        let own = std::process::id().cast_signed();
        let (told, number) = (AtomicBool::new(false), AtomicI32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| keep_a_processor(&told, &number));
            while number.load(Ordering::Acquire) == 0 {
                std::thread::yield_now();
            }
            // The kernel leaves others a twentieth of each second, and a move may come in there.
            let stays = (0..10).any(|_| {
                let first = First::beside(own, number.load(Ordering::Acquire));
                first.moved.is_none() && affinity(None).unwrap() == before
            });
            told.store(true, Ordering::Release);
            assert!(stays || before.count() == 1);
        });
    }

    #[test]
    fn a_thread_may_run_everywhere_again_afterwards() {
        let before = affinity(None).unwrap();
        let own = std::process::id().cast_signed();
        drop(First::beside(own, own));
        assert_eq!(affinity(None).unwrap(), before);
    }
}
