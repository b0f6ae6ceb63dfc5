//! Where Xen puts sections, and what is in those that it reads.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The payload in memory.
#[derive(Default)]
pub(super) struct Memory {
    /// Where each section is, by its number.
    pub(super) places: Vec<Option<u64>>,
    /// Where code is.
    pub(super) text: Range<u64>,
    /// What is in the sections that Xen reads.
    pub(super) kept: BTreeMap<usize, Kept>,
}

/// What is in a section.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    /// Where relocations wrote what cannot be known.
    unknown: BTreeSet<u64>,
}

/// A word in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Known(u64),
    Unknown,
}

impl Memory {
    pub(super) fn place(&self, section: usize) -> Option<u64> {
        self.places.get(section).copied().flatten()
    }

    /// Writes a relocated word, if anybody reads that section.
    pub(super) fn write(&mut self, section: usize, offset: u64, width: usize, value: Option<u64>) {
        let Some(kept) = self.kept.get_mut(&section) else {
            return;
        };
        match value {
            Some(value) => {
                kept.unknown.remove(&offset);
                let Ok(at) = usize::try_from(offset) else {
                    return;
                };
                let Some(end) = at.checked_add(width) else {
                    return;
                };
                if let Some(place) = kept.bytes.get_mut(at..end) {
                    place.copy_from_slice(&value.to_le_bytes()[..width]);
                }
            }
            None => {
                kept.unknown.insert(offset);
            }
        }
    }
}

impl Kept {
    pub(super) fn new(bytes: Vec<u8>) -> Kept {
        Kept {
            bytes,
            unknown: BTreeSet::new(),
        }
    }

    /// Eight bytes.
    pub(super) fn long(&self, at: usize) -> Word {
        self.word(at, super::super::file::long(&self.bytes, at))
    }

    /// Where four bytes lead that tell a distance from themselves, in a section that begins at `start`.
    pub(super) fn leads_to(&self, at: usize, start: u64) -> Word {
        let distance = super::super::file::word(&self.bytes, at).cast_signed();
        let own = start.wrapping_add(at as u64);
        self.word(at, own.wrapping_add_signed(distance.into()))
    }

    fn word(&self, at: usize, value: u64) -> Word {
        match self.unknown.contains(&(at as u64)) {
            true => Word::Unknown,
            false => Word::Known(value),
        }
    }
}
