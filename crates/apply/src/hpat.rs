//! Hot patches of modern Windows (10 and later) made live: the patch is another image in the
//! target, and the base's functions lead to it through an address table behind the base.
//!
//! The order is that of the descriptions of shipped kernels: first the patch is led back to the
//! base, then each function of the base is led to the patch by two bytes. What is added here: all
//! checks come before the first write, a step that fails leaves everything as it was, and a patch
//! can be taken back to the last byte.

mod block;
mod entries;
mod found;
mod host;
mod lasting;
mod leaving;
mod live;
mod opening;
mod planned;
mod preflight;
mod record;
mod settle;
mod standing;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

pub use crate::pe::{Instance, OnDisk};
pub use host::{Host, HostImage, Patched, Refitted, apply, list, recover, revert};
pub use planned::plan;
pub use preflight::Plan;
pub use record::{EntryRecord, HotPatchRecord, Intent, PatchRecord, Witness, WordRecord};
pub use standing::{Concerned, standing};
pub use table::SLOTS;

use crate::{ApplyError, Loaded, Target};

/// A function whose entry is led through the address table, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Its place in the address table.
    index: u32,
    /// What it led to last.
    to: u64,
    /// The bytes from five before it to two behind its begin, as they were.
    original: [u8; 7],
    /// False once its first two bytes are its own again: the jump before it is left, since a
    /// thread may be on its way to it, and serves the next patch.
    live: bool,
}

/// A base image in a target, and all that was done to it.
#[derive(Clone, Debug)]
pub struct PatchedImage {
    base: Loaded,
    entries: BTreeMap<u32, Entry>,
    /// Where patches are that were led to the base. They stay: a thread may be inside.
    led: Vec<Loaded>,
    sequence: u32,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Functions that lead to the patch now and did not before.
    pub fresh: usize,
    /// Functions that led to an earlier patch.
    pub replaced: usize,
    /// Functions that are their own again.
    pub restored: usize,
    /// How long all threads stood.
    pub stopped: Duration,
    /// True if a thread was on its way through an address table, so that the bytes of jumps that
    /// nothing leads to any more are left.
    pub left: bool,
}

impl PatchedImage {
    /// A base that nothing was done to.
    #[must_use]
    pub fn new(base: Loaded) -> PatchedImage {
        PatchedImage {
            base,
            entries: BTreeMap::new(),
            led: Vec::new(),
            sequence: 0,
        }
    }

    /// The base.
    #[must_use]
    pub fn base(&self) -> &Loaded {
        &self.base
    }

    /// The sequence number of the patch that is live; 0 where none is.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Places of the base that lead to a patch now.
    pub fn live(&self) -> impl Iterator<Item = u32> {
        let live = self.entries.iter().filter(|(_, entry)| entry.live);
        live.map(|(at, _)| *at)
    }

    /// Checks all that a patch needs, and tells what would be done; nothing is written.
    ///
    /// # Errors
    /// When it breaks a rule of its format, is for another build, comes too late, or when the
    /// target is not as it expects.
    pub fn preflight(&self, target: &dyn Target, patch: &Loaded) -> Result<Plan, ApplyError> {
        preflight::plan(self, target, patch)
    }

    /// Makes a patch live, in the place of the one before it: functions that the new one does not
    /// have are their own again.
    ///
    /// # Errors
    /// When [`preflight`](Self::preflight) refuses it, or a step fails; then the base is as it was.
    pub fn apply(
        &mut self,
        target: &mut dyn Target,
        patch: &Loaded,
    ) -> Result<Outcome, ApplyError> {
        self.apply_before(target, patch, &mut |_, _| Ok(()))
    }

    /// The same where `witness` is told what is about to be done: before anything is written, and
    /// again before anything becomes live.
    ///
    /// # Errors
    /// As [`apply`](Self::apply), and what `witness` returns.
    pub fn apply_before(
        &mut self,
        target: &mut dyn Target,
        patch: &Loaded,
        witness: &mut Witness<'_>,
    ) -> Result<Outcome, ApplyError> {
        let plan = preflight::plan(self, target, patch)?;
        self.carry_out(target, patch, plan, witness)
    }

    /// Takes the live patch back: each function is its own again in one store, and then, while
    /// all threads stand for a moment, the bytes before it and the address table are.
    ///
    /// # Errors
    /// When a place is not as it was left, or a step fails; then the patch is live as before.
    pub fn revert(&mut self, target: &mut dyn Target) -> Result<Outcome, ApplyError> {
        self.revert_before(target, &mut |_, _| Ok(()))
    }

    /// The same where `witness` is told what is about to be done: before functions become their own
    /// again, and before what led them away is taken away.
    ///
    /// # Errors
    /// As [`revert`](Self::revert), and what `witness` returns.
    pub fn revert_before(
        &mut self,
        target: &mut dyn Target,
        witness: &mut Witness<'_>,
    ) -> Result<Outcome, ApplyError> {
        let words = entries::restoring(self, target, |_| true)?;
        let mut intent = self.intent(&Plan::default());
        intent.words = words.iter().map(WordRecord::from).collect();
        witness(target, &intent)?;
        let stopped = crate::pe::Word::make_live(target, &words)?;
        let mut outcome = Outcome {
            restored: words.len(),
            stopped,
            ..Outcome::default()
        };
        self.entries
            .values_mut()
            .for_each(|entry| entry.live = false);
        self.sequence = 0;
        // What is taken away now would be missing if the functions were led there again.
        let told = witness(target, &self.intent(&Plan::default()));
        match told.and_then(|()| self.clean(target)) {
            Ok(Some(stopped)) => outcome.stopped += stopped,
            Err(error @ ApplyError::Inconsistent(_)) => return Err(error),
            // What is left leads nowhere that is not there, and is used again.
            Ok(None) | Err(_) => outcome.left = true,
        }
        Ok(outcome)
    }
}
