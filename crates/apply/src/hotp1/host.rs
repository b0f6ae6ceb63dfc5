//! Patches of older Windows that outlast the tool: applied to a process of Windows by one run of it,
//! listed and removed by others.

use invivo_format::hotp1::{LegacyPatch, read, validate};
use invivo_image::LiveAddr;
use invivo_image::pe::PeImage;

use super::lasting::Lasting;
use super::leaving::current;
use super::opening::open_block;
use super::{LegacyRecord, Outcome, at_status, checks, status};
use crate::hpat::{Host, HostImage};
use crate::pe::{Ledger, Marks, file_of, parse};
use crate::{ApplyError, TargetError, refused};

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
    let patch = parse(path, host.file(path)?)?;
    let model = model(&patch, path)?;
    if patch.entry_point.0 != 0
        || patch
            .tls
            .as_ref()
            .is_some_and(|tls| !tls.callbacks.is_empty())
    {
        return refused(format!(
            "{path} has an entry point, or functions that are called when threads start, which the \
             loader would run; link it with /noentry"
        ));
    }
    let (mut found, other) = targets(host, &model)?;
    if let Some(other) = other.filter(|_| found.is_empty()) {
        return Err(other);
    }
    let (target, None) = (found.pop(), found.pop()) else {
        return refused(format!("{} is loaded more than once", model.target_name));
    };
    let Some((target, image, _)) = target else {
        return Err(TargetError::Unsupported(format!(
            "{} has no module {} that the patch is for",
            host.describe(),
            model.target_name
        ))
        .into());
    };
    let (known, _) = current(host)?;
    let mut known = known.into_iter();
    let known = known.find(|(.., one)| one.at == target.range.start.0);
    let mut lasting = Lasting::open(host, &target, image, known, applied_by)?;
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

/// True for a module with the name that a patch wants.
pub(super) fn has_name(module: &HostImage, model: &LegacyPatch) -> bool {
    let last = module.path.rsplit(['\\', '/']).next();
    last.is_some_and(|last| last.eq_ignore_ascii_case(&model.target_name))
}

/// What a patch module says, if it keeps the rules of its format.
pub(super) fn model(patch: &PeImage, path: &str) -> Result<LegacyPatch, ApplyError> {
    let model = match read(patch) {
        Ok(Some(model)) => model,
        Ok(None) => return at_status(status::BROKEN, &format!("{path} has no section .hotp1")),
        Err(error) => return at_status(status::BROKEN, &format!("{path}: {error}")),
    };
    match validate(patch, &model, None).first() {
        Some(first) => at_status(status::BROKEN, &format!("{path}: {first}")),
        None => Ok(model),
    }
}

/// A loaded module, what it was loaded from, and the flags that a patch for it gets.
type Target = (HostImage, PeImage, u32);

/// Loaded modules with the name and the identity that a patch wants. Where the name is there and the
/// build is another, that is told, too.
fn targets(
    host: &dyn Host,
    model: &LegacyPatch,
) -> Result<(Vec<Target>, Option<ApplyError>), ApplyError> {
    let (mut found, mut other) = (Vec::new(), None);
    let images = host.images()?.into_iter();
    for module in images.filter(|image| has_name(image, model)) {
        // Its file may be another one by now; what runs tells what it is.
        let marks = Marks::of(host, module.range.start)?;
        match checks::fits(checks::told(&marks, model)?, model) {
            Ok(flags) => {
                let image = file_of(host, &module)?;
                found.push((module, image, flags));
            }
            Err(error) => other = Some(error),
        }
    }
    Ok((found, other))
}
