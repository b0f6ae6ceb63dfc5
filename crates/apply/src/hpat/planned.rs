//! What making a final image live in a process would do: all that [`apply`](super::apply) checks, but for
//! what only the loader knows, and nothing that it changes.

use std::sync::Arc;

use invivo_image::{LiveAddr, Rva};

use super::block::{RESERVE, SIZE, table_of};
use super::found::{Found, find};
use super::host::{Host, Patched, list};
use super::preflight::{Plan, warnings};
use super::{Entry, PatchedImage};
use crate::pe::{HookChange, Imagined, Instance, Planned, PlannedHook, loaded_still, unsettled};
use crate::{ApplyError, Loaded, Step, Stop};

/// Tells what [`apply`](super::apply) of the final image in `path` would do.
///
/// # Errors
/// When it would be refused, or a tool that died left something in the middle.
pub fn plan(host: &dyn Host, path: &str) -> Result<Planned, ApplyError> {
    let found = find(host, path)?;
    let all = list(host)?.into_iter();
    let (same, stale): (Vec<_>, Vec<_>) = all.partition(|one| one.instance == Instance::Same);
    let mut known = same.into_iter();
    let known = known.find(|one| one.record.at == found.base.range.start.0);
    if known.as_ref().is_some_and(Patched::is_in_the_middle) {
        return unsettled();
    }
    let mut imagined = Imagined::new(host);
    let mut memory = 0;
    let state = state(&mut imagined, host, &found, known.as_ref(), &mut memory)?;
    let loaded = known.iter().flat_map(|one| &one.record.patches);
    let identity = (found.patch.time_stamp, found.patch.checksum);
    let mut loaded = loaded.filter(|one| (one.time_stamp, one.checksum) == identity);
    let mut open = None;
    let patch = match loaded.next().and_then(|one| one.seen(host)) {
        Some(loaded) => Loaded {
            image: Arc::new(found.patch.clone()),
            ..loaded
        },
        None => {
            let left = stale.iter().flat_map(|one| &one.record.patches);
            open = loaded_still(host, path, left.map(|one| one.kept()))?;
            load(&mut imagined, &found, &mut memory)?
        }
    };
    let plan = state.preflight(&imagined, &patch)?;
    Ok(Planned {
        hooks: hooks(&state, &patch, &plan)?,
        memory,
        stops: stops(&state, &plan)?,
        // The loader only maps it; what it imports it takes from the base.
        libraries: Vec::new(),
        warnings: warnings(&found.image, &found.patch),
        base: found.base.path,
        open: open.map(str::to_owned),
    })
}

/// The base as it is; what a tool makes for it first is imagined.
fn state(
    imagined: &mut Imagined<'_>,
    host: &dyn Host,
    found: &Found,
    known: Option<&Patched>,
    memory: &mut u64,
) -> Result<PatchedImage, ApplyError> {
    let mut base = Loaded {
        image: Arc::new(found.image.clone()),
        at: found.base.range.start,
        reserve: RESERVE,
        table: None,
    };
    let Some(known) = known else {
        let block = imagined.place(&found.base.range, SIZE)?;
        let table = table_of(block);
        imagined.with_table(table..LiveAddr(table.0 + RESERVE));
        *memory += SIZE;
        base.table = Some(table);
        return Ok(PatchedImage::new(base));
    };
    base.table = Some(known.block.table());
    let record = &known.record;
    let led = record.led(host)?;
    // Nothing is in the middle, so nothing is written; what would be is refused.
    let (state, settled) = PatchedImage::settle(imagined, base, led, record)?;
    match settled {
        true => unsettled(),
        false => Ok(state),
    }
}

/// The patch, imagined as near to the base as the loader may bring it, with its own address table.
fn load(
    imagined: &mut Imagined<'_>,
    found: &Found,
    memory: &mut u64,
) -> Result<Loaded, ApplyError> {
    let mut patch = Loaded {
        image: Arc::new(found.patch.clone()),
        at: LiveAddr(0),
        reserve: RESERVE,
        table: None,
    };
    let pages = patch.pages();
    patch.at = imagined.place(&found.base.range, pages)?;
    imagined.with_image(&patch);
    let table = imagined.place(&(patch.at..patch.end()), RESERVE)?;
    imagined.with_table(table..LiveAddr(table.0 + RESERVE));
    patch.table = Some(table);
    *memory += pages + RESERVE;
    Ok(patch)
}

/// Entries of the base that would change.
fn hooks(
    state: &PatchedImage,
    patch: &Loaded,
    plan: &Plan,
) -> Result<Vec<PlannedHook>, ApplyError> {
    let mut hooks = Vec::new();
    for (at, entry) in &plan.entries {
        let was_live = state.entries.get(at).is_some_and(|entry| entry.live);
        let Some((form, change)) = change(was_live, entry) else {
            continue;
        };
        let rva = Rva((*at).into());
        let to = entry.to.checked_sub(patch.at.0).map(Rva);
        hooks.push(PlannedHook {
            at: state.base.address(*at)?,
            name: state.base.exported(rva),
            rva,
            form,
            change,
            to: to.filter(|_| entry.live),
        });
    }
    hooks.sort_by_key(|hook| hook.at);
    Ok(hooks)
}

/// How an entry changes, and what becomes of it.
fn change(was_live: bool, entry: &Entry) -> Option<(&'static str, HookChange)> {
    match (was_live, entry.live) {
        (false, true) => Some(("short jump to padding", HookChange::Redirected)),
        (true, true) => Some(("address in the table", HookChange::RedirectedAnew)),
        (true, false) => Some(("own first bytes", HookChange::Restored)),
        (false, false) => None,
    }
}

/// Why all threads would stop.
fn stops(state: &PatchedImage, plan: &Plan) -> Result<Vec<Stop>, ApplyError> {
    let mut stops = Vec::new();
    let entries = plan.entries.iter();
    for (at, _) in entries {
        let function = state.base.address(*at)?;
        let mut words = plan.words.iter();
        if words.any(|word| word.at == function && word.straddles()) {
            stops.push(Stop {
                step: Step::Apply,
                reason: format!(
                    "the function at {function} begins one byte before an 8-byte boundary, so that no \
                     single store changes its first two bytes"
                ),
            });
        }
    }
    stops.push(Stop {
        step: Step::Revert,
        reason: "the bytes of jumps, and what they read, are given back once nobody is on the way through \
                 them"
            .to_owned(),
    });
    Ok(stops)
}
