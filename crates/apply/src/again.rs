//! A stop that failed is tried again, and in between the target runs much longer than it stood.

use std::time::{Duration, Instant};

use crate::{Options, Stopped, Target, TargetError};

/// Between two stops the target runs at least so many times as long as it stood.
pub(crate) const RUN_BETWEEN: u32 = 25;
/// The longest pause where nobody stood.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long a stop is tried for which no time was given.
const USUAL: Duration = Duration::from_secs(5);

/// How often a stop is tried.
pub(crate) struct Again<'a> {
    pause: Duration,
    deadline: Instant,
    /// True once no time is left but for one more.
    is_last: bool,
    options: Option<&'a Options<'a>>,
}

impl<'a> Again<'a> {
    /// Until `deadline`, and until the user wants to stop.
    pub(crate) fn until(deadline: Instant, options: Option<&'a Options<'a>>) -> Again<'a> {
        Again {
            pause: Duration::from_millis(1),
            deadline,
            is_last: false,
            options,
        }
    }

    /// Lets the target run after a stop that failed with `error`.
    ///
    /// # Errors
    /// That error where there is no time left, or another try would not help.
    pub(crate) fn after(
        &mut self,
        target: &dyn Target,
        error: TargetError,
    ) -> Result<(), TargetError> {
        let rest = match &error {
            TargetError::NotNow(_) => self.pause,
            TargetError::Late { stood, .. } => self.pause.max(*stood * RUN_BETWEEN),
            _ => return Err(error),
        };
        let now = Instant::now();
        if self.is_last || now >= self.deadline || self.is_interrupted() {
            return Err(error);
        }
        // On a machine that is busy with others each try needs longer than the one before, and
        // the rest after it would last beyond the end. The last one is made at the end.
        self.is_last = now + rest >= self.deadline;
        let until = self.deadline.min(now + rest);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        while !self.is_interrupted() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            target.rest(left.min(LONGEST_PAUSE));
        }
        Ok(())
    }

    fn is_interrupted(&self) -> bool {
        self.options.is_some_and(Options::is_interrupted)
    }
}

/// Stops all threads once, as [`Target::stop`] does, and tries again where some are late.
pub(crate) fn stop_once(
    target: &mut dyn Target,
    during: &mut dyn FnMut(&mut dyn Stopped) -> Result<(), TargetError>,
) -> Result<Duration, TargetError> {
    let mut again = Again::until(Instant::now() + USUAL, None);
    loop {
        match target.stop(&[], during) {
            Err(error @ TargetError::Late { .. }) => again.after(target, error)?,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTarget;

    fn late(stood: u64) -> TargetError {
        TargetError::Late {
            text: "one is late".to_owned(),
            stood: Duration::from_millis(stood),
        }
    }

    #[test]
    fn the_target_runs_longer_than_it_stood() {
        let mut again = Again::until(Instant::now() + Duration::from_secs(60), None);
        let begun = Instant::now();
        let target = MemoryTarget::default();
        again.after(&target, late(4)).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(100));
    }

    #[test]
    fn the_last_try_is_made_when_the_time_is_over() {
        let deadline = Instant::now() + Duration::from_millis(50);
        let mut again = Again::until(deadline, None);
        let target = MemoryTarget::default();
        again.after(&target, late(10_000)).unwrap();
        assert!(Instant::now() >= deadline);
        assert!(again.after(&target, late(1)).is_err());
        let mut over = Again::until(Instant::now(), None);
        let not_now = TargetError::NotNow(String::new());
        assert!(over.after(&target, not_now).is_err());
    }

    #[test]
    fn what_another_try_would_not_help_is_an_error_at_once() {
        let mut again = Again::until(Instant::now() + Duration::from_secs(60), None);
        let target = MemoryTarget::default();
        assert!(again.after(&target, TargetError::Gone(1)).is_err());
    }
}
