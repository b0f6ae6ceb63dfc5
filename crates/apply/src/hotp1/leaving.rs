//! What patch modules leave in a process, and how it is given back: whoever dies meanwhile, nothing is
//! given back twice, and nothing that is somebody else's.

use invivo_image::LiveAddr;

use super::Outcome;
use super::host::{Block, Done, blocks};
use super::record::{LegacyPatchRecord, LegacyRecord};
use crate::hpat::{Host, HostImage};
use crate::pe::{Instance, Ledger};
use crate::{ApplyError, Loaded, Stopped, TargetError};

impl LegacyPatchRecord {
    fn identity(&self) -> (u32, u32) {
        (self.time_stamp, self.checksum)
    }

    /// The patch module, by what is in memory; `None` where it is not.
    pub(super) fn seen(&self, host: &dyn Host) -> Option<Loaded> {
        Loaded::seen_as(host, self.at, self.identity())
    }

    /// Where the loader has it now; a tool that died may not have noted where it came.
    fn loaded_at(&self, host: &dyn Host) -> Result<Option<LiveAddr>, TargetError> {
        let is_it = |image: &HostImage| match self.at {
            0 => image.path.eq_ignore_ascii_case(&self.path),
            at => image.range.start.0 == at,
        };
        let images = host.images()?;
        let found = images.iter().find(|image| is_it(image));
        let at = found.map(|image| image.range.start);
        Ok(at.filter(|at| Loaded::seen_as(host, at.0, self.identity()).is_some()))
    }
}

/// Gives the memory of a patch module back that nobody is inside; the record has it until then.
pub(super) fn leave(
    host: &mut dyn Host,
    ledger: &mut Ledger,
    record: &mut LegacyRecord,
    patch: &LegacyPatchRecord,
) -> Result<(), ApplyError> {
    if let Some(at) = patch.loaded_at(host)? {
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
    let range = patch.at..patch.end();
    let mut found = None;
    host.stop(&[], &mut |stopped: &mut dyn Stopped| {
        found = stopped.finds(&range)?;
        Ok(())
    })?;
    Ok(found)
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
