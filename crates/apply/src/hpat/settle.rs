//! What a tool that died left in the middle is undone.

use std::collections::BTreeMap;

use invivo_image::LiveAddr;

use super::entries::intact;
use super::live::ways;
use super::record::{HotPatchRecord, WordRecord};
use super::table::{ENTRY, Slot};
use super::{Entry, PatchedImage};
use crate::pe::{Word, bytes};
use crate::{ApplyError, Loaded, Target, refused};

impl PatchedImage {
    /// The base as a record has it; `led` are its patches that lead there.
    ///
    /// Undone first is what a tool that died left in the middle: functions go where they went
    /// before, and entries that are only there in part are taken away. True if there was any.
    ///
    /// # Errors
    /// When another image is in the place of the base, somebody else changed what the record is about,
    /// or it cannot be undone.
    pub fn settle(
        target: &mut dyn Target,
        base: Loaded,
        led: Vec<Loaded>,
        record: &HotPatchRecord,
    ) -> Result<(PatchedImage, bool), ApplyError> {
        base.check_identity(target)?;
        let mut undo = Vec::new();
        for word in record.words.iter().rev() {
            let at = LiveAddr(word.at);
            if target.holds(at, &word.old)? {
                continue;
            }
            if !target.holds(at, &word.new)? {
                return refused(format!("somebody changed {at}, which belongs to a patch"));
            }
            undo.push(Word {
                at,
                old: word.new.clone(),
                new: word.old.clone(),
            });
        }
        Word::make_live(target, &undo)?;
        let mut state = PatchedImage {
            base,
            entries: BTreeMap::new(),
            led,
            sequence: record.sequence,
        };
        let mut settled = !record.words.is_empty();
        for entry in &record.entries {
            let (at, entry) = (entry.at, Entry::from(entry));
            if entry.live || intact(target, &state.base, at, &entry)? {
                state.entries.insert(at, entry);
            } else {
                state.take_away(target, at, &entry)?;
                settled = true;
            }
        }
        Ok((state, settled))
    }

    /// Takes away what there is of an entry that nothing leads to: it was being made, or being
    /// taken away after all threads were seen elsewhere.
    fn take_away(&self, target: &mut dyn Target, at: u32, entry: &Entry) -> Result<(), ApplyError> {
        let function = self.base.address(at)?;
        let now: [u8; 2] = bytes(target, function)?;
        if now == ENTRY {
            return refused(format!("somebody hooked the function at {function}"));
        }
        let [before, _] = ways(&self.base, function, entry.index);
        let slot = Slot::of(&self.base, entry.index);
        let padding = WordRecord {
            at: before.start.0,
            old: entry.original[..5].to_vec(),
            new: slot.approach(function)?.to_vec(),
        };
        if !padding.may_be(&bytes::<5>(target, before.start)?) {
            let at = before.start;
            return refused(format!("somebody changed {at}, which belongs to a patch"));
        }
        target.write(before.start, &entry.original[..5])?;
        target.write(slot.code, &[0; 8])?;
        target.write(slot.pointer, &[0; 8])?;
        Ok(())
    }
}
