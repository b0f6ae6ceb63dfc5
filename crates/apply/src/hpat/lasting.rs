//! A base of a process with what stands in its memory: each change is written there before it is
//! made.

use std::sync::Arc;

use invivo_image::LiveAddr;
use invivo_image::pe::PeImage;

use super::block::{Block, RESERVE, tables};
use super::host::{Host, HostImage, Refitted};
use super::leaving::{leave, needed};
use super::record::{HotPatchRecord, PatchRecord};
use super::{Outcome, PatchedImage};
use crate::pe::{open_pages, refuse_loaded};
use crate::{ApplyError, Loaded, TargetError, refused};

/// A base of a process with what stands in its memory.
pub(super) struct Lasting<'h> {
    pub(super) host: &'h mut dyn Host,
    pub(super) block: Block,
    pub(super) record: HotPatchRecord,
    pub(super) state: PatchedImage,
    pub(super) settled: bool,
}

impl std::fmt::Debug for Lasting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.record.path, self.host.describe())
    }
}

impl Lasting<'_> {
    pub(super) fn nothing(&self) -> Refitted {
        Refitted {
            base: self.record.path.clone(),
            sequence: self.state.sequence(),
            outcome: Outcome::default(),
            settled: self.settled,
            unloaded: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn apply(
        &mut self,
        path: &str,
        image: PeImage,
        sequence: u32,
    ) -> Result<Refitted, ApplyError> {
        let identity = (image.time_stamp, image.checksum);
        let known = self.record.patches.iter();
        let mut known = known.filter(|one| (one.time_stamp, one.checksum) == identity);
        let known = known.next().and_then(|known| known.seen(self.host));
        let (patch, is_new) = match known {
            Some(known) => {
                let image = Arc::new(image);
                (Loaded { image, ..known }, false)
            }
            None => (self.load(path, image, sequence)?, true),
        };
        let (block, record) = (&mut self.block, &mut self.record);
        let base = self.state.base().clone();
        let applied = self
            .state
            .apply_before(self.host, &patch, &mut |target, intent| {
                let mut next = record.clone();
                next.entries.clone_from(&intent.entries);
                next.words.clone_from(&intent.words);
                if intent.words.is_empty() {
                    // Nothing is written yet.
                    next.open = open_pages(target, &next.places(&base))?;
                    record.open.clone_from(&next.open);
                } else {
                    next.patches.iter_mut().for_each(|one| one.led = true);
                }
                block.write(target, &next)
            });
        if let Err(ApplyError::Inconsistent(_)) = applied {
            // What is to be undone stands in the record.
            return applied.map(|_| self.nothing());
        }
        let led = self.state.led.iter().any(|led| led.at == patch.at);
        if led {
            let patches = self.record.patches.iter_mut();
            patches.for_each(|one| one.led = true);
        }
        self.note()?;
        if is_new && !led {
            self.leave(patch.at)?;
        }
        Ok(Refitted {
            outcome: applied?,
            ..self.nothing()
        })
    }

    /// Lets the process load a patch, and makes its address table.
    fn load(&mut self, path: &str, image: PeImage, sequence: u32) -> Result<Loaded, ApplyError> {
        let before = self.host.images()?;
        refuse_loaded(&before, path)?;
        self.record.patches.push(PatchRecord {
            path: path.to_owned(),
            time_stamp: image.time_stamp,
            checksum: image.checksum,
            at: 0,
            table: 0,
            sequence,
            led: false,
        });
        self.block.write(self.host, &self.record)?;
        let made = self.load_with_table(path, &image, &before);
        if let Err(error) = made {
            // What comes late is found by its name.
            if !matches!(error, ApplyError::Target(TargetError::Unfinished(_))) {
                let at = self.record.patches.last().map_or(0, |new| new.at);
                self.leave(LiveAddr(at))?;
            }
            return Err(error);
        }
        let new = self.record.patches.last();
        let (at, table) = new.map_or((0, 0), |new| (new.at, new.table));
        Ok(Loaded {
            image: Arc::new(image),
            at: LiveAddr(at),
            reserve: RESERVE,
            table: Some(LiveAddr(table)),
        })
    }

    fn load_with_table(
        &mut self,
        path: &str,
        image: &PeImage,
        before: &[HostImage],
    ) -> Result<(), ApplyError> {
        let at = self.host.load(path)?;
        if before.iter().any(|image| image.range.start == at) {
            // By another name; it was not loaded for us.
            self.host.unload(at)?;
            self.record.patches.pop();
            self.block.write(self.host, &self.record)?;
            return refused(format!(
                "the process has {path} loaded already, at {at}; copy it and apply the copy"
            ));
        }
        let size = u64::from(image.size).next_multiple_of(0x1000);
        let end = at
            .checked_add(size)
            .map_or_else(|| refused("no room"), Ok)?;
        let new = self.record.patches.len() - 1;
        self.record.patches[new].at = at.0;
        let table = self.host.reserve(Some(&(at..end)), RESERVE)?;
        self.record.patches[new].table = table.0;
        tables(self.host, table, RESERVE)?;
        self.block.write(self.host, &self.record)
    }

    /// Gives the memory of the patch at `at` back, which nobody is inside.
    fn leave(&mut self, at: LiveAddr) -> Result<(), ApplyError> {
        let patches = self.record.patches.iter();
        let open: Vec<_> = patches
            .filter(|one| one.at == at.0 && !one.led)
            .cloned()
            .collect();
        open.iter()
            .try_for_each(|one| leave(self.host, &mut self.block, &mut self.record, one))
    }

    pub(super) fn revert(&mut self) -> Result<Refitted, ApplyError> {
        let (block, record) = (&mut self.block, &self.record);
        let outcome = self.state.revert_before(self.host, &mut |target, intent| {
            let mut next = record.clone();
            next.words.clone_from(&intent.words);
            if !intent.entries.iter().any(|entry| entry.live) {
                next.entries.clone_from(&intent.entries);
                next.sequence = 0;
            }
            block.write(target, &next)
        });
        if let Err(ApplyError::Inconsistent(_)) = outcome {
            return outcome.map(|_| self.nothing());
        }
        self.note()?;
        Ok(Refitted {
            outcome: outcome?,
            ..self.nothing()
        })
    }

    /// Gives the memory of patches back that no function leads to and no thread needs.
    pub(super) fn unload(&mut self) -> Result<Vec<(String, Option<String>)>, ApplyError> {
        let mut told = Vec::new();
        for patch in self.record.patches.clone() {
            let why = if self.state.entries.is_empty() {
                needed(self.host, &patch)?
            } else {
                let why = "functions of the base still lead there, or a thread is on its way";
                Some(why.to_owned())
            };
            if why.is_none() {
                // First, so that nobody takes memory for a patch that may be gone.
                let own = self.record.patches.iter_mut();
                own.filter(|one| one.at == patch.at)
                    .for_each(|one| one.led = false);
                self.state.led.retain(|led| led.at.0 != patch.at);
                self.block.write(self.host, &self.record)?;
                self.leave(LiveAddr(patch.at))?;
            }
            told.push((patch.path, why));
        }
        Ok(told)
    }

    fn note(&mut self) -> Result<(), ApplyError> {
        self.record.sequence = self.state.sequence();
        self.record.entries = self.state.entries();
        self.record.words = Vec::new();
        self.block.write(self.host, &self.record)
    }

    /// Gives the block back where nothing is left that it tells of.
    pub(super) fn leave_if_unused(self) {
        if self.record.patches.is_empty() && self.state.entries.is_empty() {
            // What is left of it is memory that nobody uses.
            let _ = self.block.release(self.host);
        }
    }
}
