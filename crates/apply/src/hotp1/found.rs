//! The module of a process that a patch of older Windows is for.

use invivo_format::hotp1::{LegacyPatch, read, validate};
use invivo_image::pe::PeImage;

use super::{at_status, checks, status};
use crate::hpat::{Host, HostImage};
use crate::pe::{Marks, file_of, parse};
use crate::{ApplyError, TargetError, refused};

/// A patch module, and what it is for.
pub(super) struct Found {
    pub(super) patch: PeImage,
    /// The module, as it is loaded.
    pub(super) module: HostImage,
    /// Its file.
    pub(super) image: PeImage,
}

/// Reads the patch module in `path`, and finds the module that it is for.
///
/// # Errors
/// When it breaks a rule, or when no module or more than one is its target.
pub(super) fn find(host: &dyn Host, path: &str) -> Result<Found, ApplyError> {
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
    let Some((module, image, _)) = target else {
        return Err(TargetError::Unsupported(format!(
            "{} has no module {} that the patch is for",
            host.describe(),
            model.target_name
        ))
        .into());
    };
    Ok(Found {
        patch,
        module,
        image,
    })
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
