//! How much may be made of a PDB file.

use std::cell::Cell;

use super::broken;
use crate::pe::PeError;

/// Records of a PDB file may name each other any number of times, so a small file could ask for any number
/// of copies. A byte of a member's record becomes about ten in memory, and rarely more.
const TIMES: u64 = 32;
/// What the smallest file may ask for.
const LEAST: u64 = 1 << 20;

/// How many bytes may still be made of the file.
pub(super) struct Budget(Cell<u64>);

impl Budget {
    /// For a file of so many bytes.
    pub(super) fn of(length: u64) -> Budget {
        Budget(Cell::new(length.saturating_mul(TIMES).max(LEAST)))
    }

    pub(super) fn spend(&self, bytes: usize) -> Result<(), PeError> {
        let left = self.0.get().checked_sub(bytes as u64);
        let left =
            left.ok_or_else(|| broken("it asks for more than a file of its size can hold"))?;
        self.0.set(left);
        Ok(())
    }
}
