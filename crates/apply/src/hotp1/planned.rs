//! What applying a patch of older Windows to a process would do: all that [`apply`](super::apply) checks,
//! but for what only the loader knows, and nothing that it changes.

use std::sync::Arc;

use invivo_image::Rva;

use super::found::{Found, find};
use super::hooks::Descriptor;
use super::host::blocks;
use super::opening::SIZE;
use super::{LegacyRecord, PatchedModule};
use crate::hpat::Host;
use crate::pe::{
    HookChange, Imagined, Instance, Planned, PlannedHook, loaded_still, missing, unsettled,
};
use crate::{ApplyError, Loaded, Step, Stop, refused};

/// Tells what [`apply`](super::apply) of the patch module in `path` would do.
///
/// # Errors
/// When it would be refused, or a tool that died left something in the middle.
pub fn plan(host: &dyn Host, path: &str) -> Result<Planned, ApplyError> {
    let found = find(host, path)?;
    let (record, stale) = records(host, &found)?;
    let middle = |record: &LegacyRecord| {
        !record.words.is_empty() || record.patches.iter().any(|patch| !patch.fixed)
    };
    if record.as_ref().is_some_and(middle) {
        return unsettled();
    }
    let state = state(host, &found, record.as_ref())?;
    let identity = (found.patch.time_stamp, found.patch.checksum);
    let mut known = record.iter().flat_map(|record| &record.patches);
    let known = known.find(|one| (one.time_stamp, one.checksum) == identity);
    let mut imagined = Imagined::new(host);
    let image = Arc::new(found.patch.clone());
    let mut open = Vec::new();
    let (patch, is_new) = match known.and_then(|known| known.seen(host)) {
        Some(loaded) => (Loaded { image, ..loaded }, false),
        None => {
            let left = stale.iter().flat_map(|record| &record.patches);
            open.extend(loaded_still(host, path, left.map(|one| one.kept()))?);
            open.push(
                "whether the loader brings the patch to within 2 GiB of what it is for, without which it is \
                 refused (0xc0000018)",
            );
            let mut patch = Loaded {
                image,
                at: state.target().at,
                reserve: 0,
                table: None,
            };
            patch.at = imagined.place(&found.module.range, patch.pages())?;
            imagined.with_image(&patch);
            (patch, true)
        }
    };
    let plan = state.plan(&imagined, &patch)?;
    let block = record.map_or(SIZE, |_| 0);
    Ok(Planned {
        hooks: plan
            .hooks
            .iter()
            .map(|hook| planned(&state, &patch, hook))
            .collect(),
        memory: block + if is_new { patch.pages() } else { 0 },
        stops: stops(plan.hooks.len()),
        libraries: missing(host, &found.patch)?,
        base: found.module.path,
        open: (!open.is_empty()).then(|| open.join("; ")),
        warnings: Vec::new(),
    })
}

/// What stands in the process about the module, and about modules that are gone or were loaded again.
fn records(
    host: &dyn Host,
    found: &Found,
) -> Result<(Option<LegacyRecord>, Vec<LegacyRecord>), ApplyError> {
    let images = host.images()?;
    let (mut of_module, mut stale) = (None, Vec::new());
    for (_, _, record) in blocks(host)? {
        if record.instance(host, &images)? != Instance::Same {
            stale.push(record);
        } else if record.at == found.module.range.start.0 && of_module.is_none() {
            of_module = Some(record);
        }
    }
    Ok((of_module, stale))
}

/// The module with the list of patches that hang on it.
fn state(
    host: &dyn Host,
    found: &Found,
    record: Option<&LegacyRecord>,
) -> Result<PatchedModule, ApplyError> {
    let mut list = Vec::new();
    for patch in record.iter().flat_map(|record| &record.patches) {
        match patch.seen(host) {
            Some(seen) => list.push(patch.listed(seen)),
            None if patch.active => {
                return refused(format!(
                    "{}, to which hooks lead, is not at {:#x} any more",
                    patch.path, patch.at
                ));
            }
            None => {}
        }
    }
    let target = Loaded {
        image: Arc::new(found.image.clone()),
        at: found.module.range.start,
        reserve: 0,
        table: None,
    };
    Ok(PatchedModule::with_list(target, list))
}

fn planned(state: &PatchedModule, patch: &Loaded, hook: &Descriptor) -> PlannedHook {
    let target = state.target();
    let rva = Rva(hook.at.0.saturating_sub(target.at.0));
    let active = state.list().iter().filter(|listed| listed.active);
    let mut earlier = active.flat_map(|listed| &listed.hooks);
    let change = match earlier.any(|earlier| earlier.at == hook.at) {
        true => HookChange::RedirectedAnew,
        false => HookChange::Redirected,
    };
    PlannedHook {
        at: hook.at,
        name: target.exported(rva),
        rva,
        form: hook.kind.name(),
        change,
        to: leads(hook).and_then(|to| {
            let rva = to.checked_sub(patch.at.0)?;
            (rva < patch.pages()).then_some(Rva(rva))
        }),
    }
}

/// Where a jump leads whose distance stands in it.
fn leads(hook: &Descriptor) -> Option<u64> {
    let [0xe9, distance @ ..] = &hook.code[..] else {
        return None;
    };
    let distance = i32::from_le_bytes(distance.get(..4)?.try_into().ok()?);
    let next = hook.at.0.checked_add(5)?;
    next.checked_add_signed(distance.into())
}

/// All threads stop, whatever the hooks are.
fn stops(hooks: usize) -> Vec<Stop> {
    let reason = format!(
        "{hooks} hooks change in one step, at a moment when no thread is between instructions that are \
         replaced, or comes back there"
    );
    let stop = |step| Stop {
        step,
        reason: reason.clone(),
    };
    vec![stop(Step::Apply), stop(Step::Revert)]
}
