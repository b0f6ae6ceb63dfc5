//! The base's code as it is without any patch, and what a patch expects of it.

use invivo_image::LiveAddr;
use invivo_patch::{Hex, Patch};
use sha2::{Digest as _, Sha256};

use std::ops::Range;

use crate::preflight::live_place;
use crate::{ApplyError, HookRecord, Module, Record, Target, refused};

/// The target's code as it is without any patch.
pub(crate) struct CleanCode<'t> {
    pub(crate) target: &'t dyn Target,
    /// What is written over it.
    pub(crate) records: Vec<Record>,
}

impl CleanCode<'_> {
    /// Reads it.
    pub(crate) fn read(&self, at: LiveAddr, size: u64) -> Result<Vec<u8>, ApplyError> {
        let size =
            usize::try_from(size).map_err(|_| ApplyError::Refused("a huge function".to_owned()))?;
        let mut bytes = vec![0; size];
        self.target.read(at, &mut bytes)?;
        let overlaps = |hook: &&HookRecord| {
            hook.at.0 < at.0.saturating_add(bytes.len() as u64)
                && at.0 < hook.at.0.saturating_add(hook.new.0.len() as u64)
        };
        let hooks = self.records.iter().flat_map(|record| &record.hooks);
        for hook in hooks.filter(overlaps).collect::<Vec<_>>() {
            // A patch that was taken back may have left padding (see `revert`).
            if !self.target.holds(hook.at, &hook.new.0).unwrap_or(false) {
                continue;
            }
            for (old, place) in hook.old.0.iter().zip(hook.at.0..) {
                let inside = place
                    .checked_sub(at.0)
                    .and_then(|i| usize::try_from(i).ok());
                if let Some(byte) = inside.and_then(|inside| bytes.get_mut(inside)) {
                    *byte = *old;
                }
            }
        }
        Ok(bytes)
    }

    /// SHA-256 of all of `ranges`, one behind the other.
    pub(crate) fn digest(
        &self,
        ranges: impl Iterator<Item = Range<LiveAddr>>,
    ) -> Result<Hex, ApplyError> {
        let mut digest = Sha256::new();
        for range in ranges {
            digest.update(self.read(range.start, range.end.0.saturating_sub(range.start.0))?);
        }
        Ok(Hex(digest.finalize().to_vec()))
    }
}

/// `Ok` if the base's code is what `patch` was made for.
pub(crate) fn check_bytes(
    code: &CleanCode<'_>,
    patch: &Patch,
    module: &Module,
) -> Result<(), ApplyError> {
    for check in &patch.checks {
        let at = live_place(module, check.at.0)?;
        let bytes = code.read(at, check.size)?;
        if !check.is_of(&bytes) {
            let covered = patch.redirects.iter().find(|r| r.at == check.at);
            let name = covered.map_or("code", |r| &r.function);
            return refused(format!(
                "{} at {at} is not what the patch expects: another tool, a debugger's breakpoint \
                 or a probe has changed it",
                invivo_image::demangle(name)
            ));
        }
    }
    Ok(())
}
