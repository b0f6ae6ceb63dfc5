//! Steps that are run one after another, each whatever became of those before it.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::tally::Tally;

/// What the steps so far came to, and how long each took.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    tally: Tally,
    took: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Runs one step that is one check.
    pub(crate) fn check(&mut self, name: &'static str, step: impl FnOnce() -> Result<bool>) {
        self.count(name, || {
            let mut one = Tally::default();
            one.check(name, step()?);
            Ok(one)
        });
    }

    /// Runs one step that only what comes later needs: it counts when it fails.
    pub(crate) fn prepare<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) {
        self.count(name, || step().map(|_| Tally::default()));
    }

    /// Runs one step that counts what passed and failed. One that cannot be run, or does not
    /// end, has failed.
    pub(crate) fn count(&mut self, name: &'static str, step: impl FnOnce() -> Result<Tally>) {
        let begun = Instant::now();
        match step() {
            Ok(counted) => self.tally.add(counted),
            Err(error) => {
                println!("{name}: {error:#}");
                self.tally.check(name, false);
            }
        }
        self.took.push((name, begun.elapsed()));
    }

    /// Tells the times, then whatever failed, then the sum; true if nothing failed.
    pub(crate) fn finish(self) -> bool {
        println!("\nseconds for each step:");
        for (name, took) in &self.took {
            println!("{:>7}  {name}", took.as_secs());
        }
        if self.tally.ignored > 0 {
            println!("{} tests were left out", self.tally.ignored);
        }
        for name in self.tally.names() {
            println!("failed: {name}");
        }
        println!("{}", self.tally);
        self.tally.failed == 0
    }
}
