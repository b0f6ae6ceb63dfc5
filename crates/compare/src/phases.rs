//! How long each phase of a comparison takes.

use std::time::{Duration, Instant};

/// The phases that are over, in order.
#[derive(Debug)]
pub struct Phases {
    since: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Phases {
    pub(crate) fn start() -> Self {
        Phases {
            since: Instant::now(),
            done: Vec::new(),
        }
    }

    /// Notes that the phase `name` is over and that another one begins.
    pub(crate) fn end(&mut self, name: &'static str) {
        self.done.push((name, self.since.elapsed()));
        self.since = Instant::now();
    }

    /// Each phase and how long it took.
    #[must_use]
    pub fn done(&self) -> &[(&'static str, Duration)] {
        &self.done
    }
}
