//! The writes, in their order, and what is left when nothing leads to it any more.

use std::ops::Range;
use std::time::Duration;

use invivo_image::LiveAddr;

use super::preflight::Plan;
use super::record::{Witness, WordRecord};
use super::table::Slot;
use super::{Outcome, PatchedImage};
use crate::pe::{Journal, Quiet, Word, when_nobody_is_in};
use crate::{ApplyError, Loaded, Target, TargetError};

impl PatchedImage {
    pub(super) fn carry_out(
        &mut self,
        target: &mut dyn Target,
        patch: &Loaded,
        plan: Plan,
        witness: &mut Witness<'_>,
    ) -> Result<Outcome, ApplyError> {
        let mut intent = self.intent(&plan);
        witness(target, &intent)?;
        let mut patch_side = Journal::default();
        let mut base_side = Journal::default();
        let prepared = prepare(target, &mut patch_side, &plan.reverse)
            .and_then(|()| prepare(target, &mut base_side, &plan.forward));
        let prepared = prepared.map_err(ApplyError::from).and_then(|()| {
            intent.words = plan.words.iter().map(WordRecord::from).collect();
            witness(target, &intent)
        });
        if let Err(error) = prepared {
            // Nothing leads to any of it yet.
            let undone = base_side
                .undo(target)
                .and_then(|()| patch_side.undo(target));
            return Err(after(error, undone));
        }
        let stopped = match Word::make_live(target, &plan.words) {
            Ok(stopped) => stopped,
            Err(error) => return Err(self.give_up(target, patch, &plan, base_side, error)),
        };
        self.keep(patch);
        self.entries = plan.entries.into_iter().collect();
        self.sequence = plan.sequence;
        Ok(Outcome {
            fresh: plan.fresh,
            replaced: plan.replaced,
            restored: plan.restored,
            stopped,
            left: false,
        })
    }

    /// Some of it may have been live for a moment, and is not any more. A thread may be in the
    /// patch, which therefore stays led to the base; what leads there is taken away when nobody
    /// is on the way.
    fn give_up(
        &mut self,
        target: &mut dyn Target,
        patch: &Loaded,
        plan: &Plan,
        base_side: Journal,
        error: ApplyError,
    ) -> ApplyError {
        if matches!(error, ApplyError::Inconsistent(_)) {
            return error;
        }
        self.keep(patch);
        let places = plan
            .entries
            .iter()
            .filter(|(at, _)| !self.entries.contains_key(at));
        let places: Vec<Range<LiveAddr>> = places
            .filter_map(|(at, entry)| {
                let function = self.base.address(*at).ok()?;
                Some(ways(&self.base, function, entry.index))
            })
            .flatten()
            .collect();
        let mut left = Some(base_side);
        let undone = match when_nobody_is_in(target, &places, false, &mut |_| Ok(())) {
            // Nothing leads there, so nobody comes there again.
            Ok(Quiet::Found(_)) => left.take().map_or(Ok(()), |journal| journal.undo(target)),
            Ok(Quiet::Missed(who)) => Err(TargetError::NotNow(format!(
                "a thread stays on its way to the patch: {who}"
            ))),
            Err(second) => Err(second),
        };
        after(error, undone)
    }

    fn keep(&mut self, patch: &Loaded) {
        if !self.led.iter().any(|led| led.at == patch.at) {
            self.led.push(patch.clone());
        }
    }

    /// Gives the bytes before functions and the address table back where nothing leads through
    /// them; `None` where a thread was always there.
    pub(super) fn clean(
        &mut self,
        target: &mut dyn Target,
    ) -> Result<Option<Duration>, ApplyError> {
        let idle = self.entries.iter().filter(|(_, entry)| !entry.live);
        let idle: Vec<_> = idle.map(|(at, entry)| (*at, entry.clone())).collect();
        if idle.is_empty() {
            return Ok(Some(Duration::ZERO));
        }
        let (mut places, mut writes) = (Vec::new(), Vec::new());
        for (at, entry) in &idle {
            let function = self.base.address(*at)?;
            let slot = Slot::of(&self.base, entry.index);
            places.extend(ways(&self.base, function, entry.index));
            // From the function's side on: what is left of a broken row still leads somewhere.
            writes.push((LiveAddr(function.0 - 5), entry.original[..5].to_vec()));
            writes.push((slot.code, vec![0; 8]));
            writes.push((slot.pointer, vec![0; 8]));
        }
        places.sort_by_key(|place| place.start);
        let quiet = when_nobody_is_in(target, &places, false, &mut |_| Ok(()))?;
        let Quiet::Found(stopped) = quiet else {
            return Ok(None);
        };
        // All threads were seen outside, and nothing leads there: none comes there again.
        let mut journal = Journal::default();
        if let Err(error) = prepare(target, &mut journal, &writes) {
            let undone = journal.undo(target);
            return Err(after(error.into(), undone));
        }
        self.entries.retain(|_, entry| entry.live);
        Ok(Some(stopped))
    }
}

/// Where a thread can be between a function of the base and a patch.
pub(super) fn ways(base: &Loaded, function: LiveAddr, index: u32) -> [Range<LiveAddr>; 2] {
    let slot = Slot::of(base, index).code;
    [
        LiveAddr(function.0 - 5)..function,
        slot..LiveAddr(slot.0 + 8),
    ]
}

fn prepare(
    target: &mut dyn Target,
    journal: &mut Journal,
    writes: &[(LiveAddr, Vec<u8>)],
) -> Result<(), TargetError> {
    let mut writes = writes.iter();
    writes.try_for_each(|(at, bytes)| journal.write(target, *at, bytes))
}

/// The first error, or that it could not be undone.
fn after(error: ApplyError, undone: Result<(), TargetError>) -> ApplyError {
    match undone {
        Ok(()) => error,
        Err(second) => ApplyError::Inconsistent(format!("{error}; then {second}")),
    }
}
