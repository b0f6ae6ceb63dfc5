//! Windows of time with and without an apply, compared.
//!
//! A stall says little by itself: on a busy machine threads wait for each other
//! all the time. So the same run has windows in which nothing happens, windows
//! in which the tool only makes its plan (which costs processor time but touches
//! nothing), and windows in which it applies or reverts.

use super::promise::{median, p99};
use crate::load::Histogram;

/// What happens in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    /// Nothing.
    Quiet,
    /// The tool looks and computes.
    Plan,
    /// The patch goes in.
    Apply,
    /// The patch goes out.
    Revert,
}

impl Window {
    /// What each round consists of.
    pub(crate) const ROUND: [Self; 5] = [
        Self::Quiet,
        Self::Plan,
        Self::Apply,
        Self::Quiet,
        Self::Revert,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Quiet => "nothing",
            Self::Plan => "plan only",
            Self::Apply => "apply",
            Self::Revert => "revert",
        }
    }
}

/// The waits that were seen in the windows of each kind.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    seen: Vec<(Window, Histogram)>,
}

/// The waits in windows of one kind, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    /// The median of the windows' longest waits.
    pub(crate) typical: f64,
    /// What 99 of 100 of the windows' longest waits did not exceed.
    pub(crate) unusual: f64,
    /// What 999 of 1000 waits stayed below.
    pub(crate) p999: f64,
    /// The longest wait of all.
    pub(crate) longest: f64,
}

impl Waits {
    /// Adds what was seen in a window.
    pub(crate) fn add(&mut self, window: Window, waits: Histogram) {
        self.seen.push((window, waits));
    }

    /// Adds up the windows of one kind.
    pub(crate) fn summary(&self, window: Window) -> Summary {
        let of_kind = || self.seen.iter().filter(|(kind, _)| *kind == window);
        let longest: Vec<u64> = of_kind().map(|(_, waits)| waits.longest_us()).collect();
        let mut all = Histogram::default();
        of_kind().for_each(|(_, waits)| all.add(waits));
        Summary {
            typical: median(&longest),
            unusual: p99(&longest),
            p999: all.quantile_us(0.999) as f64,
            longest: all.longest_us() as f64,
        }
    }

    /// Prints the kinds beside each other.
    pub(crate) fn print(&self) {
        for window in [Window::Quiet, Window::Plan, Window::Apply, Window::Revert] {
            let Summary {
                typical,
                unusual,
                p999,
                longest,
            } = self.summary(window);
            println!(
                "      longest wait in a window with {:10} median {typical:>8.0} µs, p99 {unusual:>8.0} µs, of all {longest:>8.0} µs, p99.9 {p999:>8.0} µs",
                format!("{}:", window.name())
            );
        }
    }
}
