//! A histogram of durations whose buckets grow with the value: an error of at
//! most one sixteenth, whatever the range.

use std::time::Duration;

const STEPS: u64 = 16;

/// Durations, counted in buckets of microseconds; the longest is kept exactly.
#[derive(Debug, Default, Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    longest_us: u64,
}

impl Histogram {
    /// Counts one duration.
    pub(crate) fn note(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket(us);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.longest_us = self.longest_us.max(us);
    }

    /// Adds another histogram.
    pub(crate) fn add(&mut self, other: &Self) {
        self.buckets
            .resize(self.buckets.len().max(other.buckets.len()), 0);
        self.buckets
            .iter_mut()
            .zip(&other.buckets)
            .for_each(|(count, more)| *count += more);
        self.longest_us = self.longest_us.max(other.longest_us);
    }

    /// The longest duration, in microseconds.
    pub(crate) fn longest_us(&self) -> u64 {
        self.longest_us
    }

    /// The duration that this share of all (0.999 for p99.9) does not exceed,
    /// in microseconds.
    pub(crate) fn quantile_us(&self, share: f64) -> u64 {
        let total: u64 = self.buckets.iter().sum();
        let mut left = (total as f64 * share).ceil() as u64;
        for (bucket, count) in self.buckets.iter().enumerate() {
            if *count >= left {
                return upper_end(bucket).min(self.longest_us);
            }
            left -= count;
        }
        self.longest_us
    }
}

/// Below 16 µs each value has its bucket; above, each doubling has sixteen.
fn bucket(us: u64) -> usize {
    let doublings = us.max(1).ilog2().saturating_sub(STEPS.ilog2());
    let bucket = u64::from(doublings) * STEPS + (us >> doublings);
    usize::try_from(bucket).expect("a bucket number is below 1100")
}

fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doublings = (bucket / STEPS).saturating_sub(1);
    let step = bucket - doublings * STEPS;
    ((step + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_values() {
        for us in (0..5_000).chain([1 << 20, 123_456_789]) {
            let end = upper_end(bucket(us));
            assert!(end >= us && end <= us + us / STEPS, "{us} ends at {end}");
        }
    }

    #[test]
    fn quantiles_are_near() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|us| histogram.note(Duration::from_micros(us)));
        let median = histogram.quantile_us(0.5);
        assert!((500..=532).contains(&median), "{median}");
        assert_eq!(histogram.quantile_us(1.0), 1000);
        assert_eq!(histogram.longest_us(), 1000);
    }
}
