//! A base of a process with what stands in its memory: each change is written there before it is
//! made.

use std::sync::Arc;

use invivo_image::LiveAddr;
use invivo_image::pe::PeImage;

use super::block::{Block, RESERVE, tables};
use super::host::{Host, HostImage, Patched, Refitted};
use super::record::{HotPatchRecord, PatchRecord};
use super::{Outcome, PatchedImage};
use crate::pe::parse;
use crate::{ApplyError, Loaded, Stopped, TargetError, refused};

/// A base of a process with what stands in its memory.
pub(super) struct Lasting<'h> {
    host: &'h mut dyn Host,
    block: Block,
    record: HotPatchRecord,
    pub(super) state: PatchedImage,
    pub(super) settled: bool,
}

impl std::fmt::Debug for Lasting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.record.path, self.host.describe())
    }
}

impl<'h> Lasting<'h> {
    /// `known` is what stands in the target's memory about it, if anything does.
    pub(super) fn open(
        host: &'h mut dyn Host,
        base: &HostImage,
        known: Option<Patched>,
        applied_by: &str,
    ) -> Result<Lasting<'h>, ApplyError> {
        let image = parse(&base.path, host.file(&base.path)?)?;
        let at = base.range.start;
        let (mut block, mut record) = match known {
            Some(known) => (known.block, known.record),
            None => {
                let block = Block::new(host, &base.range)?;
                let record = HotPatchRecord {
                    path: base.path.clone(),
                    time_stamp: image.time_stamp,
                    checksum: image.checksum,
                    at: at.0,
                    table: block.table().0,
                    reserve: RESERVE,
                    ..HotPatchRecord::default()
                };
                (block, record)
            }
        };
        applied_by.clone_into(&mut record.applied_by);
        let base = Loaded {
            image: Arc::new(image),
            at,
            reserve: RESERVE,
            table: Some(block.table()),
        };
        base.check_identity(host)?;
        let mut led = Vec::new();
        for patch in record.patches.iter().filter(|patch| patch.led) {
            led.push(loaded(host, patch)?);
        }
        let (state, mut settled) = PatchedImage::settle(host, base, led, &record)?;
        let (led, open): (Vec<_>, Vec<_>) = record.patches.into_iter().partition(|one| one.led);
        record.patches = led;
        for patch in open {
            // Nothing of the base ever led there.
            release(host, &patch)?;
            settled = true;
        }
        if settled {
            record.words = Vec::new();
            record.entries = state.entries();
            block.write(host, &record)?;
        }
        Ok(Lasting {
            host,
            block,
            record,
            state,
            settled,
        })
    }

    pub(super) fn nothing(&self) -> Refitted {
        Refitted {
            base: self.record.path.clone(),
            sequence: self.state.sequence(),
            outcome: Outcome::default(),
            settled: self.settled,
            unloaded: Vec::new(),
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
        let patch = match known.next() {
            Some(known) => loaded(self.host, known)?,
            None => self.load(path, image, sequence)?,
        };
        let is_new = !self
            .record
            .patches
            .iter()
            .any(|one| one.led && one.at == patch.at.0);
        let (block, record) = (&mut self.block, &self.record);
        let applied = self
            .state
            .apply_before(self.host, &patch, &mut |target, intent| {
                let mut next = record.clone();
                next.entries.clone_from(&intent.entries);
                next.words.clone_from(&intent.words);
                if !intent.words.is_empty() {
                    next.patches.iter_mut().for_each(|one| one.led = true);
                }
                block.write(target, &next)
            });
        if applied.is_ok() || self.state.led.iter().any(|led| led.at == patch.at) {
            self.record
                .patches
                .iter_mut()
                .for_each(|one| one.led = true);
        } else if is_new && !matches!(applied, Err(ApplyError::Inconsistent(_))) {
            let open = self.record.patches.pop();
            open.map_or(Ok(()), |open| release(self.host, &open))?;
        }
        self.note()?;
        Ok(Refitted {
            outcome: applied?,
            ..self.nothing()
        })
    }

    /// Lets the process load a patch, and makes its address table.
    fn load(&mut self, path: &str, image: PeImage, sequence: u32) -> Result<Loaded, ApplyError> {
        let at = self.host.load(path)?;
        let size = u64::from(image.size).next_multiple_of(0x1000);
        let end = at
            .checked_add(size)
            .map_or_else(|| refused("no room"), Ok)?;
        let mut patch = PatchRecord {
            path: path.to_owned(),
            time_stamp: image.time_stamp,
            checksum: image.checksum,
            at: at.0,
            table: 0,
            sequence,
            led: false,
        };
        let table = self.host.reserve(Some(&(at..end)), RESERVE);
        let made = table.and_then(|table| {
            patch.table = table.0;
            tables(self.host, table, RESERVE)
        });
        if let Err(error) = made {
            release(self.host, &patch)?;
            return Err(error.into());
        }
        let table = LiveAddr(patch.table);
        self.record.patches.push(patch);
        Ok(Loaded {
            image: Arc::new(image),
            at,
            reserve: RESERVE,
            table: Some(table),
        })
    }

    pub(super) fn revert(&mut self) -> Result<Refitted, ApplyError> {
        let (block, record) = (&mut self.block, &self.record);
        let outcome = self.state.revert_before(self.host, &mut |target, intent| {
            let mut next = record.clone();
            next.words.clone_from(&intent.words);
            block.write(target, &next)
        });
        self.note()?;
        Ok(Refitted {
            outcome: outcome?,
            ..self.nothing()
        })
    }

    /// Gives the memory of patches back that no function leads to and no thread needs.
    pub(super) fn unload(&mut self) -> Result<Vec<(String, Option<String>)>, ApplyError> {
        let mut told = Vec::new();
        if !self.state.entries.is_empty() {
            let why = "functions of the base still lead there, or a thread is on its way";
            let patches = self.record.patches.iter();
            return Ok(patches
                .map(|patch| (patch.path.clone(), Some(why.to_owned())))
                .collect());
        }
        for patch in std::mem::take(&mut self.record.patches) {
            match self.needed(&patch)? {
                Some(why) => {
                    told.push((patch.path.clone(), Some(why)));
                    self.record.patches.push(patch);
                }
                None => {
                    self.state.led.retain(|led| led.at.0 != patch.at);
                    // First, so that nobody takes memory for a patch that may be gone.
                    let mut next = self.record.clone();
                    next.patches.retain(|one| one.at != patch.at);
                    self.block.write(self.host, &next)?;
                    release(self.host, &patch)?;
                    told.push((patch.path, None));
                }
            }
        }
        self.note()?;
        Ok(told)
    }

    /// A place that holds an address in a patch or in its table.
    fn needed(&mut self, patch: &PatchRecord) -> Result<Option<String>, ApplyError> {
        let loaded = loaded(self.host, patch)?;
        let mut ranges = vec![loaded.at..loaded.end()];
        if patch.table != 0 {
            ranges.push(LiveAddr(patch.table)..LiveAddr(patch.table + RESERVE));
        }
        let mut found = None;
        self.host.stop(&[], &mut |stopped: &mut dyn Stopped| {
            for range in &ranges {
                if found.is_none() {
                    found = stopped.finds(range)?;
                }
            }
            Ok(())
        })?;
        Ok(found)
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

/// A patch of a record, if it still is what it was.
fn loaded(host: &dyn Host, patch: &PatchRecord) -> Result<Loaded, ApplyError> {
    let file = host.file(&patch.path)?;
    let known = (patch.time_stamp, patch.checksum);
    let mut loaded = Loaded::recorded(&patch.path, file, known, patch.at)?;
    if patch.table != 0 {
        loaded.reserve = RESERVE;
        loaded.table = Some(LiveAddr(patch.table));
    }
    Ok(loaded)
}

fn release(host: &mut dyn Host, patch: &PatchRecord) -> Result<(), TargetError> {
    if patch.table != 0 {
        host.release(LiveAddr(patch.table))?;
    }
    host.unload(LiveAddr(patch.at))
}
