//! What patch modules leave in a process, and how it is given back: whoever dies meanwhile, nothing is
//! given back twice, and nothing that is somebody else's.

use super::Outcome;
use super::host::{Block, Done, blocks};
use super::record::{LegacyPatchRecord, LegacyRecord};
use crate::hpat::Host;
use crate::pe::{Instance, Kept, Ledger, held_in, loaded_at};
use crate::{ApplyError, Loaded};

impl LegacyPatchRecord {
    fn identity(&self) -> (u32, u32) {
        (self.time_stamp, self.checksum)
    }

    /// Where it is, by what file, and what that is known by.
    pub(super) fn kept(&self) -> Kept<'_> {
        (self.at, &self.path, self.identity())
    }

    /// The patch module, by what is in memory; `None` where it is not.
    pub(super) fn seen(&self, host: &dyn Host) -> Option<Loaded> {
        Loaded::seen_as(host, self.at, self.identity())
    }
}

/// Gives the memory of a patch module back that nobody is inside; the record has it until then.
pub(super) fn leave(
    host: &mut dyn Host,
    ledger: &mut Ledger,
    record: &mut LegacyRecord,
    patch: &LegacyPatchRecord,
) -> Result<(), ApplyError> {
    if let Some(at) = loaded_at(host, (patch.at, &patch.path), patch.identity())? {
        host.unload(at)?;
    }
    let is_it = |one: &LegacyPatchRecord| one.at == patch.at && one.path == patch.path;
    record.patches.retain(|one| !is_it(one));
    ledger.write(host, record)
}

/// A place that holds an address in a patch module.
pub(super) fn needed(
    host: &mut dyn Host,
    patch: &LegacyPatchRecord,
) -> Result<Option<String>, ApplyError> {
    let Some(patch) = patch.seen(host) else {
        return Ok(None);
    };
    held_in(host, &[patch.at..patch.end()])
}

/// What the records tell of modules that are still loaded, and what was done about the others: they are
/// told of no longer. The program unloaded those, so that no hook leads to their patches; memory
/// that somebody may still use stays.
pub(super) fn current(host: &mut dyn Host) -> Result<(Vec<Block>, Vec<Done>), ApplyError> {
    let images = host.images()?;
    let (mut same, mut gone) = (Vec::new(), Vec::new());
    for (at, mut ledger, mut record) in blocks(host)? {
        if record.instance(host, &images)? == Instance::Same {
            same.push((at, ledger, record));
            continue;
        }
        let mut unloaded = Vec::new();
        for patch in record.patches.clone() {
            let why = needed(host, &patch)?;
            if why.is_none() {
                leave(host, &mut ledger, &mut record, &patch)?;
            }
            unloaded.push((patch.path, why));
        }
        host.release(at)?;
        gone.push(Done {
            target: record.path,
            patch: String::new(),
            outcome: Outcome::default(),
            active: 0,
            settled: true,
            unloaded,
        });
    }
    Ok((same, gone))
}
