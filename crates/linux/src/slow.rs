//! Threads that do not come to stand at once, because they wait inside the kernel or get no processor.
//!
//! While one is waited for, all that stand already are frozen. So that wait is short. Whoever was late is
//! remembered, and the next time made to stand first, when nobody else does yet.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use invivo_apply::TargetError;

use crate::ptrace::Standing;
use crate::seize::wait_standing;
use crate::ticks::Ticks;

/// How long those that stand wait for the next one, at first and at most. On a busy machine a thread
/// may need longer to get a processor, so each stop in vain makes it longer.
const WAIT: Duration = Duration::from_millis(10);
pub(crate) const LONGEST: Duration = Duration::from_secs(1);
const LONGER: u32 = 4;

/// What stops in vain have told of a process.
#[derive(Debug)]
pub(crate) struct Slow {
    threads: RefCell<BTreeSet<i32>>,
    wait: Cell<Duration>,
}

impl Slow {
    pub(crate) fn new() -> Slow {
        Slow {
            threads: RefCell::new(BTreeSet::new()),
            wait: Cell::new(WAIT),
        }
    }

    /// Those that were late, as far as they are still `there`.
    pub(crate) fn threads(&self, there: impl Fn(i32) -> bool) -> Vec<i32> {
        self.threads.borrow_mut().retain(|tid| there(*tid));
        self.threads.borrow().iter().copied().collect()
    }

    /// How long those that stand may wait for the next one.
    pub(crate) fn wait(&self) -> Duration {
        self.wait.get()
    }

    /// Notes who was late.
    ///
    /// # Errors
    /// If anybody was, as the reason for which all others are let go.
    pub(crate) fn are_late(&self, pid: i32, late: &[i32]) -> Result<(), TargetError> {
        let Some(tid) = late.first() else {
            return Ok(());
        };
        self.threads.borrow_mut().extend(late);
        self.wait.set((self.wait.get() * LONGER).min(LONGEST));
        Err(TargetError::NotNow(format!(
            "thread {tid} of process {pid} does not stop: it waits inside the kernel, or gets no processor"
        )))
    }
}

/// A wait for threads that were all asked to stop.
pub(crate) struct Waiting {
    begun: Instant,
    /// For each of them. Whoever came before the last one did stands meanwhile.
    wait: Duration,
    /// Who did not come.
    pub(crate) late: Vec<i32>,
    /// What else kept one from standing.
    pub(crate) failed: Option<TargetError>,
}

impl Waiting {
    /// Somebody stands since `begun`.
    pub(crate) fn new(begun: Instant, wait: Duration) -> Waiting {
        Waiting {
            begun,
            wait,
            late: Vec::new(),
            failed: None,
        }
    }

    /// The next of them, if it stands in time. Once one does not, nobody else is waited for: all
    /// had the same time, and whoever stands is let go.
    pub(crate) fn stand(&mut self, pid: i32, tid: i32, ticks: &Rc<Ticks>) -> Option<Standing> {
        let wait = self.wait.min(LONGEST.saturating_sub(self.begun.elapsed()));
        match wait_standing(pid, tid, wait, ticks) {
            Ok(thread) => return Some(thread),
            Err(TargetError::Gone(_)) => {}
            Err(TargetError::NotNow(_)) => {
                self.late.push(tid);
                self.wait = Duration::ZERO;
            }
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_late_comes_first_and_gets_more_time() {
        let slow = Slow::new();
        assert!(slow.threads(|_| true).is_empty());
        slow.are_late(7, &[]).unwrap();
        assert_eq!(slow.wait(), WAIT);
        let error = slow.are_late(7, &[3, 9]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("thread 3 of process 7 does not stop")
        );
        assert!(slow.wait() > WAIT);
        assert_eq!(slow.threads(|tid| tid < 9), [3]);
        for _ in 0..9 {
            slow.are_late(7, &[3]).unwrap_err();
        }
        assert_eq!(slow.wait(), LONGEST);
    }
}
