//! A module of a process is taken over as its record has it, after what a tool that died left in the middle
//! was put in order.

use std::sync::Arc;

use invivo_image::LiveAddr;
use invivo_image::pe::PeImage;

use super::host::Block;
use super::lasting::Lasting;
use super::record::{LegacyRecord, places};
use super::{PatchedModule, switch};
use crate::hpat::{Host, HostImage, WordRecord};
use crate::pe::{Ledger, close_pages, open_in};
use crate::{ApplyError, Loaded, Target, refused};

const MAGIC: [u8; 8] = *b"invivoH1";

/// Bytes of a page; the block begins with one that says what it is.
const PAGE: u64 = 0x1000;

/// Bytes that each of the two places for a record has.
const PLACE: u64 = 0x8_0000;

/// Bytes of a block.
pub(super) const SIZE: u64 = PAGE + 2 * PLACE;

/// The record in the memory that begins at `at`; `None` where it is no such block.
pub(super) fn open_block(
    target: &dyn Target,
    at: LiveAddr,
) -> Result<Option<(Ledger, LegacyRecord)>, ApplyError> {
    let mut magic = [0; 8];
    if target.read(at, &mut magic).is_err() || magic != MAGIC {
        return Ok(None);
    }
    let found = Ledger::open(target, LiveAddr(at.0 + PAGE), PLACE);
    let found: Option<(Ledger, LegacyRecord)> = found;
    match found {
        Some((_, record)) if !record.is_sound() => {
            refused(format!("the record at {at} contradicts itself"))
        }
        found => Ok(found),
    }
}

impl<'h> Lasting<'h> {
    /// `image` is the file that the module was loaded from; `known` is what stands in the target's memory
    /// about it, if anything does.
    pub(super) fn open(
        host: &'h mut dyn Host,
        module: &HostImage,
        image: PeImage,
        known: Option<Block>,
        applied_by: &str,
    ) -> Result<Lasting<'h>, ApplyError> {
        let at = module.range.start;
        let known = match known {
            Some(known) => known,
            None => {
                // Not near: what is there is left to the patches.
                let block = host.reserve(None, SIZE)?;
                if let Err(error) = host.write(block, &MAGIC) {
                    // Nothing is in it that anybody needs.
                    let _ = host.release(block);
                    return Err(error.into());
                }
                let record = LegacyRecord {
                    path: module.path.clone(),
                    time_stamp: image.time_stamp,
                    checksum: image.checksum,
                    at: at.0,
                    ..LegacyRecord::default()
                };
                (block, Ledger::new(LiveAddr(block.0 + PAGE), PLACE), record)
            }
        };
        let target = Loaded {
            image: Arc::new(image),
            at,
            reserve: 0,
            table: None,
        };
        Lasting::with(host, known, target, applied_by)
    }

    /// The module of a record, whatever became of its file: what is in memory is enough to remove a
    /// patch.
    pub(super) fn open_known(
        host: &'h mut dyn Host,
        known: Block,
        applied_by: &str,
    ) -> Result<Lasting<'h>, ApplyError> {
        let record = &known.2;
        let Some(target) = Loaded::seen_as(host, record.at, record.identity()) else {
            return refused(format!("{} is not loaded any more", record.path));
        };
        Lasting::with(host, known, target, applied_by)
    }

    fn with(
        host: &'h mut dyn Host,
        (block, ledger, mut record): Block,
        target: Loaded,
        applied_by: &str,
    ) -> Result<Lasting<'h>, ApplyError> {
        applied_by.clone_into(&mut record.applied_by);
        let mut lasting = Lasting {
            host,
            block,
            ledger,
            record,
            state: PatchedModule::new(target),
            settled: false,
        };
        lasting.settle()?;
        Ok(lasting)
    }

    /// Undoes what a tool that died left in the middle, and takes over the rest.
    fn settle(&mut self) -> Result<(), ApplyError> {
        let words = std::mem::take(&mut self.record.words);
        let undone = self.undo(&words);
        if undone.is_err() {
            self.record.words = words;
            return undone;
        }
        let mut opened = places(&words);
        let (mut list, mut open) = (Vec::new(), Vec::new());
        for patch in self.record.patches.clone() {
            match patch.seen(self.host) {
                _ if !patch.fixed => open.push(patch),
                Some(seen) => {
                    // Its own words may have been about to be written.
                    let open = open_in(self.host, &(seen.at..seen.end()))?.into_iter();
                    opened.extend(open.map(|page| LiveAddr(page)..LiveAddr(page + 1)));
                    list.push(patch.listed(seen));
                }
                None if patch.active => {
                    return refused(format!(
                        "{}, to which hooks lead, is not at {:#x} any more",
                        patch.path, patch.at
                    ));
                }
                None => self.record.patches.retain(|one| one.at != patch.at),
            }
        }
        close_pages(self.host, &opened, &self.record.open)?;
        self.state = PatchedModule::with_list(self.state.target().clone(), list);
        self.settled = !words.is_empty() || !open.is_empty();
        if self.settled {
            self.ledger.write(self.host, &self.record)?;
        }
        // Nothing of the module leads there, and nobody is inside.
        open.iter().try_for_each(|patch| self.leave(patch))
    }

    /// Puts back what a switch had written that did not end: all of it, part of it or nothing.
    fn undo(&mut self, words: &[WordRecord]) -> Result<(), ApplyError> {
        let mut back = Vec::new();
        for word in words.iter().rev() {
            let at = LiveAddr(word.at);
            let mut now = vec![0; word.old.len()];
            self.host.read(at, &mut now)?;
            if !word.may_be(&now) {
                return refused(format!("somebody changed {at}, which belongs to a patch"));
            }
            if now != word.old {
                back.push((at, now, word.old.clone()));
            }
        }
        switch::put_back(self.host, &back)
    }
}
