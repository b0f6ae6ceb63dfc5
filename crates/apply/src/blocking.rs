//! Who would block a quiescent apply, seen at one moment.

use std::time::Duration;

use invivo_patch::{Hex, Patch};

use crate::again::stop_once;
use crate::changes::changes;
use crate::going_live::torn;
use crate::quiescence::{Blocker, name_places};
use crate::switch::threads_in_the_way;
use crate::{ApplyError, HookRecord, Preflight, Target};

/// Threads and coroutines of `target` that are inside what `patch` replaces, or may be, or, where it
/// is live, inside the patch, so that they would block taking it back; and how long all
/// threads stood for that.
///
/// # Errors
/// When the patch would be refused, or the threads cannot be stopped.
pub fn blocking(
    target: &mut dyn Target,
    patch: &Patch,
    id: &Hex,
) -> Result<(Vec<Blocker>, Duration), ApplyError> {
    let plan = Preflight::new(target, patch, id)?;
    let busy = plan.busy();
    let torn = if let Some(applied) = &plan.applied {
        applied.pads()
    } else {
        let hooks: Vec<HookRecord> = plan.writes().cloned().collect();
        let previous = plan.previous.as_ref();
        let changes = changes(previous, &hooks);
        torn(&patch.identity.name, &hooks, previous, &changes)
    };
    target.expect_coroutines()?;
    let mut found = Vec::new();
    let stopped = stop_once(target, &mut |all| {
        found = threads_in_the_way(all, &busy, &torn, true)?;
        Ok(())
    })?;
    name_places(target, &mut found);
    Ok((found, stopped))
}
