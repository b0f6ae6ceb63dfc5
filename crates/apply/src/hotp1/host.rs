//! Patches of older Windows that outlast the tool: applied to a process of Windows by one run of it,
//! listed and removed by others.

use invivo_image::LiveAddr;

use super::found::{Found, find};
use super::lasting::Lasting;
use super::leaving::current;
use super::opening::open_block;
use super::{LegacyRecord, Outcome};
use crate::ApplyError;
use crate::hpat::Host;
use crate::pe::Ledger;

/// What was done with a module.
#[derive(Clone, Debug)]
pub struct Done {
    /// The module's file.
    pub target: String,
    /// The patch module's file; empty where only a tool that died was cleaned up after.
    pub patch: String,
    /// What the engine did.
    pub outcome: Outcome,
    /// Patches of the module that are active now.
    pub active: usize,
    /// True if a tool that died had left something in the middle.
    pub settled: bool,
    /// Patches that were to be unloaded, and why they were not.
    pub unloaded: Vec<(String, Option<String>)>,
}

/// All modules of a process that patches of older Windows hang on.
///
/// # Errors
/// When the process is gone or may not be looked at.
pub fn list(host: &dyn Host) -> Result<Vec<LegacyRecord>, ApplyError> {
    let images = host.images()?;
    let mut found = Vec::new();
    for (_, _, record) in blocks(host)? {
        let instance = record.instance(host, &images)?;
        found.push(record.now(instance));
    }
    Ok(found)
}

/// Where a record's memory begins, and what is in it.
pub(crate) type Block = (LiveAddr, Ledger, LegacyRecord);

pub(crate) fn blocks(host: &dyn Host) -> Result<Vec<Block>, ApplyError> {
    let mut found = Vec::new();
    for at in host.reserved()? {
        if let Some((ledger, record)) = open_block(host, at)? {
            found.push((at, ledger, record));
        }
    }
    Ok(found)
}

/// Applies the patch module in `path` to a process that has its target loaded.
///
/// # Errors
/// When it breaks a rule, when no module or more than one is its target, when a thread stays inside
/// what is replaced, or when a step fails; then the process is as before.
pub fn apply(host: &mut dyn Host, path: &str, applied_by: &str) -> Result<Done, ApplyError> {
    let Found {
        patch,
        module,
        image,
    } = find(host, path)?;
    let (known, _) = current(host)?;
    let mut known = known.into_iter();
    let known = known.find(|(.., one)| one.at == module.range.start.0);
    let mut lasting = Lasting::open(host, &module, image, known, applied_by)?;
    let result = lasting.apply(path, patch);
    lasting.leave_if_unused();
    result
}

/// Removes the patch whose file is `which`, or all, the last first; with `unload` the memory of
/// patches that are not active and that nobody needs is given back, too.
///
/// # Errors
/// When another patch lies over it, somebody changed its hooks, a thread stays on its way through
/// them, or a step fails; then what was not yet removed stays as it was.
pub fn revert(
    host: &mut dyn Host,
    which: Option<&str>,
    unload: bool,
    applied_by: &str,
) -> Result<Vec<Done>, ApplyError> {
    let (known, gone) = current(host)?;
    let mut all = gone;
    for block in known {
        let record = &block.2;
        let is_meant = |path: &str| which.is_none_or(|which| which.eq_ignore_ascii_case(path));
        if !record.patches.iter().any(|patch| is_meant(&patch.path)) {
            continue;
        }
        let mut lasting = Lasting::open_known(host, block, applied_by)?;
        for path in lasting.active().into_iter().rev() {
            if is_meant(&path) {
                all.push(lasting.remove(&path)?);
            }
        }
        if unload {
            let unloaded = lasting.unload(&is_meant)?;
            if !unloaded.is_empty() {
                let unloaded = Done {
                    unloaded,
                    ..lasting.nothing()
                };
                all.push(unloaded);
            }
        }
        lasting.leave_if_unused();
    }
    Ok(all)
}

/// Undoes what a tool that died left in the middle; tells which modules were settled.
///
/// # Errors
/// When something is not as it was left, or a step fails.
pub fn recover(host: &mut dyn Host, applied_by: &str) -> Result<Vec<Done>, ApplyError> {
    let (known, gone) = current(host)?;
    let mut settled = gone;
    for block in known {
        let lasting = Lasting::open_known(host, block, applied_by)?;
        if lasting.settled {
            settled.push(lasting.nothing());
        }
        lasting.leave_if_unused();
    }
    Ok(settled)
}
