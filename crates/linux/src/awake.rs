//! A processor is kept awake for the thread that a deputy holds.
//!
//! A thread that was stopped is woken on a processor that sleeps, if there is one, rather than on
//! the one where its tracer runs (`select_idle_sibling` in kernel/sched/fair.c). To wake a
//! processor takes a virtual machine 15 µs and more, and the deputy and the thread take turns
//! about six times: a thread that could be let go after 100 µs was held for 300. With something to
//! do for the other processor the two take turns on theirs. Where more than two are free, the kernel
//! finds another one that sleeps, so nothing is done there.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, gettid, sched_setaffinity};

/// The lowest priority that makes a processor busy: of `SCHED_IDLE` the kernel thinks as of sleep.
const LOWEST: i32 = 19;
/// That of who holds somebody.
const FIRST: i32 = -20;
/// How long at most. A deputy that needs more gains nothing by it.
const MOST: Duration = Duration::from_millis(5);
/// How long a deputy that has done its work waits for who keeps awake to see it.
const NOTICE: Duration = Duration::from_micros(20);

/// Of one deputy and its parent, who share it.
pub(crate) struct Awake {
    /// The parent: one thread of it.
    parent: Pid,
    /// Where the deputy works and the parent belongs.
    here: CpuSet,
    /// What is kept awake.
    there: CpuSet,
    done: AtomicBool,
    seen: AtomicBool,
}

impl Awake {
    /// With the caller for a parent.
    pub(crate) fn new(here: CpuSet, there: CpuSet) -> Awake {
        Awake {
            parent: gettid(),
            here,
            there,
            done: AtomicBool::new(false),
            seen: AtomicBool::new(false),
        }
    }

    /// What the parent does until the deputy is done, or after a while.
    ///
    /// The two share all memory, the thread's own variables too, so this makes no call of the C
    /// library: a call that fails would write where the deputy looks for its own errors.
    pub(crate) fn keep(&self) {
        // Where it may not run there it would only be in the deputy's way.
        if sched_setaffinity(None, &self.there).is_ok() {
            // Whoever has something to do there comes first.
            let _ = setpriority_process(None, LOWEST);
            let end = Instant::now() + MOST;
            while !self.done.load(Ordering::Acquire) && Instant::now() < end {
                spin_loop();
            }
            self.seen.store(true, Ordering::Release);
            let _ = setpriority_process(None, FIRST);
        }
        // Here it waits for the deputy's end.
        let _ = sched_setaffinity(None, &self.here);
    }

    /// What the deputy does at its end: where others are busy, the parent of the lowest priority
    /// would wait for long until it sees it.
    pub(crate) fn end(&self) {
        self.done.store(true, Ordering::Release);
        let end = Instant::now() + NOTICE;
        while !self.seen.load(Ordering::Acquire) {
            if Instant::now() > end {
                let _ = sched_setaffinity(Some(self.parent), &self.here);
                break;
            }
            spin_loop();
        }
    }
}
