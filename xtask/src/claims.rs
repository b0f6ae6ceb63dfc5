//! What a run claims, and whether it was seen. A run succeeds when every claim
//! is true; a claim that could not be looked at is false.

use crate::paint;

/// The claims of one run, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Claims(Vec<(String, bool)>);

impl Claims {
    /// Adds a claim with what was seen of it.
    pub(crate) fn add(&mut self, claim: impl Into<String>, seen: bool) {
        self.0.push((claim.into(), seen));
    }

    /// Whether every claim is true.
    pub(crate) fn hold(&self) -> bool {
        self.0.iter().all(|(_, seen)| *seen)
    }

    /// Prints each claim with a mark.
    pub(crate) fn print(&self) {
        for (claim, seen) in &self.0 {
            if *seen {
                println!("  {} {claim}", paint::good("✓"));
            } else {
                println!(
                    "  {} {}",
                    paint::bad("✗"),
                    paint::bad(format!("not so: {claim}"))
                );
            }
        }
    }
}
