//! How long each phase of a comparison takes.

use std::time::{Duration, Instant};

/// Tells how much processor time the program has used.
pub type Clock = fn() -> Option<Duration>;

/// One phase.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// What is done in it.
    pub name: &'static str,
    /// How long it took.
    pub time: Duration,
    /// How much processor time, on all processors; `None` where nobody measured it.
    pub processor: Option<Duration>,
}

/// The phases that are over, in order.
#[derive(Debug)]
pub struct Phases {
    clock: Option<Clock>,
    since: (Instant, Option<Duration>),
    done: Vec<Phase>,
}

impl Phases {
    /// Begins the first phase; `clock` is asked at the end of each.
    #[must_use]
    pub fn start(clock: Option<Clock>) -> Self {
        Phases {
            clock,
            since: (Instant::now(), clock.and_then(|clock| clock())),
            done: Vec::new(),
        }
    }

    /// Notes that the phase `name` is over and that another one begins.
    pub fn end(&mut self, name: &'static str) {
        let now = (Instant::now(), self.clock.and_then(|clock| clock()));
        let used = now.1.zip(self.since.1);
        self.done.push(Phase {
            name,
            time: now.0 - self.since.0,
            processor: used.and_then(|(now, then)| now.checked_sub(then)),
        });
        self.since = now;
    }

    /// Those that are over.
    #[must_use]
    pub fn done(&self) -> &[Phase] {
        &self.done
    }
}
