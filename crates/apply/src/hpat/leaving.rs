//! What patches leave in a process, and how it is given back: whoever dies meanwhile, nothing is given
//! back twice, and nothing that is somebody else's.

use std::ops::Range;

use invivo_image::LiveAddr;

use super::block::{Block, RESERVE};
use super::host::{Host, Patched, Refitted};
use super::record::{HotPatchRecord, PatchRecord};
use super::{Outcome, list};
use crate::pe::{Instance, Kept, held_in, loaded_at};
use crate::{ApplyError, Loaded};

impl PatchRecord {
    fn identity(&self) -> (u32, u32) {
        (self.time_stamp, self.checksum)
    }

    /// Where it is, by what file, and what that is known by.
    pub(super) fn kept(&self) -> Kept<'_> {
        (self.at, &self.path, self.identity())
    }

    /// The patch, by what is in memory; `None` where it is not.
    pub(super) fn seen(&self, host: &dyn Host) -> Option<Loaded> {
        let mut loaded = Loaded::seen_as(host, self.at, self.identity())?;
        if self.table != 0 {
            loaded.reserve = RESERVE;
            loaded.table = Some(LiveAddr(self.table));
        }
        Some(loaded)
    }

    /// Its memory, and that of its table.
    fn ranges(&self, host: &dyn Host) -> Vec<Range<LiveAddr>> {
        let loaded = self.seen(host).into_iter();
        let mut ranges: Vec<_> = loaded.map(|loaded| loaded.at..loaded.end()).collect();
        if self.table != 0 {
            ranges.push(LiveAddr(self.table)..LiveAddr(self.table + RESERVE));
        }
        ranges
    }
}

/// Gives the memory of a patch back that nobody is inside. The record says at each step what is
/// still there.
pub(super) fn leave(
    host: &mut dyn Host,
    block: &mut Block,
    record: &mut HotPatchRecord,
    patch: &PatchRecord,
) -> Result<(), ApplyError> {
    let is_it = |one: &PatchRecord| one.at == patch.at && one.path == patch.path;
    if patch.table != 0 {
        // First: once it is given back the place may be anybody's.
        let own = record.patches.iter_mut().filter(|one| is_it(one));
        own.for_each(|one| one.table = 0);
        block.write(host, record)?;
        host.release(LiveAddr(patch.table))?;
    }
    if let Some(at) = loaded_at(host, (patch.at, &patch.path), patch.identity())? {
        host.unload(at)?;
    }
    record.patches.retain(|one| !is_it(one));
    block.write(host, record)
}

/// A place that holds an address in a patch or in its table.
pub(super) fn needed(
    host: &mut dyn Host,
    patch: &PatchRecord,
) -> Result<Option<String>, ApplyError> {
    let ranges = patch.ranges(host);
    held_in(host, &ranges)
}

/// What the records tell of bases that are still loaded, and what was done about the others: they are
/// told of no longer. The program unloaded those, so that no function leads to their patches;
/// memory that somebody may still use stays.
pub(super) fn current(host: &mut dyn Host) -> Result<(Vec<Patched>, Vec<Refitted>), ApplyError> {
    let all = list(host)?.into_iter();
    let (same, others): (Vec<_>, Vec<_>) = all.partition(|one| one.instance == Instance::Same);
    let mut gone = Vec::new();
    for Patched {
        mut block,
        mut record,
        ..
    } in others
    {
        let mut unloaded = Vec::new();
        for patch in record.patches.clone() {
            let why = needed(host, &patch)?;
            if why.is_none() {
                leave(host, &mut block, &mut record, &patch)?;
            }
            unloaded.push((patch.path, why));
        }
        match held_in(host, &[block.range()])? {
            None => block.release(host)?,
            Some(_) => block.forget(host)?,
        }
        gone.push(Refitted {
            base: record.path,
            sequence: 0,
            outcome: Outcome::default(),
            settled: true,
            unloaded,
            warnings: Vec::new(),
        });
    }
    Ok((same, gone))
}
