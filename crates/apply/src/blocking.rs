//! Who would block a quiescent apply, seen at one moment.

use std::time::Duration;

use invivo_patch::{Hex, Patch};

use crate::quiescence::{Blocker, blockers, name_places};
use crate::{ApplyError, Preflight, Target};

/// Threads of `target` that are inside what `patch` replaces, or, where it is live,
/// inside the patch, so that they would block taking it back; and how long all threads
/// stood for that.
///
/// # Errors
/// When the patch would be refused, or the threads cannot be stopped.
pub fn blocking(
    target: &mut dyn Target,
    patch: &Patch,
    id: &Hex,
) -> Result<(Vec<Blocker>, Duration), ApplyError> {
    let busy = Preflight::new(target, patch, id)?.busy();
    let mut found = Vec::new();
    let stopped = target.stop(&[], &mut |all| {
        found = blockers(&all.stacks()?, &busy);
        Ok(())
    })?;
    name_places(target, &mut found);
    Ok((found, stopped))
}
