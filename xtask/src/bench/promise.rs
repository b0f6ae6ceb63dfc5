//! Promises: what is promised, what was measured, and how far apart they are.

use anyhow::Result;

use crate::paint;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Amount {
    /// Nanoseconds; differences may be negative.
    Nanos(f64),
    /// Microseconds; differences may be negative.
    Micros(f64),
    /// Bytes; differences may be negative.
    Bytes(f64),
    /// Things.
    Count(f64),
}

impl Amount {
    fn value(self) -> f64 {
        match self {
            Self::Nanos(value) | Self::Micros(value) | Self::Bytes(value) | Self::Count(value) => {
                value
            }
        }
    }

    fn text(self) -> String {
        let sign = if self.value() < 0.0 { "-" } else { "" };
        let size = self.value().abs();
        let text = match self {
            Self::Nanos(_) => format!("{size:.2} ns"),
            Self::Micros(_) if size < 1_000.0 => format!("{size:.0} µs"),
            Self::Micros(_) if size < 1_000_000.0 => format!("{:.1} ms", size / 1_000.0),
            Self::Micros(_) => format!("{:.2} s", size / 1_000_000.0),
            Self::Bytes(_) if size < 1_024.0 => format!("{size:.0} B"),
            Self::Bytes(_) if size < 1_048_576.0 => format!("{:.1} KiB", size / 1_024.0),
            Self::Bytes(_) if size < 1_073_741_824.0 => format!("{:.1} MiB", size / 1_048_576.0),
            Self::Bytes(_) => format!("{:.2} GiB", size / 1_073_741_824.0),
            Self::Count(_) => format!("{size:.0}"),
        };
        format!("{sign}{text}")
    }
}

/// The promises of `SPECIFICATION.md`, as they are measured.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    rows: Vec<Row>,
    unmeasured: u32,
}

#[derive(Debug)]
struct Row {
    promise: String,
    limit: Amount,
    measured: Amount,
}

impl Row {
    /// A limit of nothing is kept by nothing; any other must be stayed below.
    fn kept(&self) -> bool {
        let (limit, measured) = (self.limit.value(), self.measured.value());
        measured < limit || (limit == 0.0 && measured == 0.0)
    }

    fn print(&self) {
        let ratio = match (self.limit.value(), self.measured.value()) {
            (0.0, 0.0) => "0.00".to_owned(),
            (0.0, _) => "over".to_owned(),
            (limit, measured) => format!("{:.2}", measured.max(0.0) / limit),
        };
        let line = format!(
            "{:62} {:>9} {:>10} {ratio:>6}",
            self.promise,
            self.limit.text(),
            self.measured.text(),
        );
        if self.kept() {
            println!("  {} {line}", paint::good("✓"));
        } else {
            println!("  {} {}", paint::bad("✗"), paint::bad(line));
        }
    }
}

impl Promises {
    /// Notes a measurement and prints it at once.
    pub(crate) fn measured(&mut self, promise: impl Into<String>, limit: Amount, measured: Amount) {
        let row = Row {
            promise: promise.into(),
            limit,
            measured,
        };
        row.print();
        self.rows.push(row);
    }

    /// Notes a part whose promises could not all be measured, and why. What is not
    /// measured is not kept.
    pub(crate) fn part(&mut self, name: &str, result: Result<()>) {
        if let Err(error) = result {
            println!(
                "  {} {}",
                paint::bad("✗"),
                paint::bad(format!("{name}: {error:#}"))
            );
            self.unmeasured += 1;
        }
    }

    /// Prints all of them once more, below each other; `true` when all are kept.
    pub(crate) fn finish(&self) -> bool {
        println!(
            "\n    {}",
            paint::dim(format!(
                "{:62} {:>9} {:>10} {:>6}",
                "promise", "limit", "measured", "ratio"
            ))
        );
        self.rows.iter().for_each(Row::print);
        let kept = self.rows.iter().filter(|row| row.kept()).count();
        println!("\n{kept} of {} promises kept", self.rows.len());
        if self.unmeasured > 0 {
            let parts = paint::of(self.unmeasured.into(), "part");
            println!("{}", paint::bad(format!("{parts} could not be measured")));
        }
        kept == self.rows.len() && self.unmeasured == 0
    }
}

/// What 99 of 100 numbers do not exceed; 0 when there are none.
pub(crate) fn p99(numbers: &[u64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(0) as f64
}

/// The middle of some numbers; 0 when there are none.
pub(crate) fn median(numbers: &[u64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let middle = |at: usize| sorted.get(at).copied().unwrap_or(0) as f64;
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        middle(half)
    } else {
        (middle(half.saturating_sub(1)) + middle(half)) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[7]), 7.0);
        assert_eq!(median(&[9, 1, 2]), 2.0);
        assert_eq!(median(&[4, 1, 2, 9]), 3.0);
    }

    #[test]
    fn the_last_of_a_hundred_is_left_out() {
        assert_eq!(p99(&[]), 0.0);
        assert_eq!(p99(&[3, 1]), 3.0);
        assert_eq!(p99(&(1..=100).collect::<Vec<u64>>()), 99.0);
    }

    #[test]
    fn limits_are_limits() {
        let row = |limit, measured| Row {
            promise: String::new(),
            limit: Amount::Count(limit),
            measured: Amount::Count(measured),
        };
        assert!(row(0.0, 0.0).kept());
        assert!(!row(0.0, 1.0).kept());
        assert!(row(2.0, 1.0).kept());
        assert!(!row(2.0, 2.0).kept());
    }

    #[test]
    fn amounts_are_easy_to_read() {
        assert_eq!(Amount::Micros(-250.0).text(), "-250 µs");
        assert_eq!(Amount::Micros(20_000.0).text(), "20.0 ms");
        assert_eq!(Amount::Bytes(65_536.0).text(), "64.0 KiB");
        assert_eq!(Amount::Bytes(1_073_741_824.0).text(), "1.00 GiB");
    }
}
