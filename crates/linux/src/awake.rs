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
use rustix::thread::{CpuSet, gettid, sched_setaffinity, sched_yield};

/// The lowest priority that makes a processor busy: of `SCHED_IDLE` the kernel thinks as of sleep.
const LOWEST: i32 = 19;
/// That of who holds somebody.
const FIRST: i32 = -20;
/// How long at most. A deputy that needs more gains nothing by it.
const MOST: Duration = Duration::from_millis(2);
/// How long a deputy that has done its work waits for who keeps awake to see it.
const NOTICE: Duration = Duration::from_micros(20);

/// Of one deputy and its parent, who share it.
pub(crate) struct Awake {
    /// One thread of the deputy's parent.
    parent: Pid,
    /// Where the deputy works.
    here: CpuSet,
    /// What is kept awake.
    there: CpuSet,
    done: AtomicBool,
    seen: AtomicBool,
}

impl Awake {
    /// With the caller for a parent, who is led to another processor and belongs `here` (see `First`).
    pub(crate) fn new(here: CpuSet, there: CpuSet) -> Awake {
        Awake {
            parent: gettid(),
            here,
            there,
            done: AtomicBool::new(false),
            seen: AtomicBool::new(false),
        }
    }

    /// What the deputy does first. The parent waits here for a processor meanwhile, and it costs
    /// little to take it elsewhere: where others are busy it waits on, and disturbs nobody.
    pub(crate) fn begin(&self) {
        let lead = || {
            setpriority_process(Some(self.parent), LOWEST)?;
            sched_setaffinity(Some(self.parent), &self.there)
        };
        if lead().is_err() {
            // Here it would only be in the way.
            self.done.store(true, Ordering::Release);
        }
    }

    /// What the parent does until the deputy is done, or after a while.
    ///
    /// The two share all memory, the thread's own variables too, so this makes no call of the C
    /// library: a call that fails would write where the deputy looks for its own errors.
    pub(crate) fn keep(&self) {
        let end = Instant::now() + MOST;
        while !self.done.load(Ordering::Acquire) && Instant::now() < end {
            // Whoever has something to do on this processor comes first.
            sched_yield();
        }
        self.seen.store(true, Ordering::Release);
        let _ = setpriority_process(None, FIRST);
    }

    /// What the deputy does last. Where others are busy, the parent would not see it for long.
    pub(crate) fn end(&self) {
        self.done.store(true, Ordering::Release);
        let end = Instant::now() + NOTICE;
        while !self.seen.load(Ordering::Acquire) {
            if Instant::now() > end {
                let _ = setpriority_process(Some(self.parent), FIRST);
                let _ = sched_setaffinity(Some(self.parent), &self.here);
                break;
            }
            spin_loop();
        }
    }
}
