//! Whether the target is the build that the patch is for, and has the bytes that it expects.

use invivo_format::hotp1::{LegacyPatch, cold_mark, validation_flags};
use invivo_image::pe::PeImage;

use super::{COLD_PATCH_VALID, Look, at_status, status};
use crate::pe::Marks;
use crate::{ApplyError, Target};

/// The checksum of the file that the patch is for; 0 where it has none.
pub(super) fn wanted(model: &LegacyPatch) -> u32 {
    let mut wanted = [0; 4];
    wanted.copy_from_slice(&model.id.value[..4]);
    u32::from_le_bytes(wanted)
}

/// What [`fits`] wants to know of a target that is loaded, whatever became of its file. What it says beyond
/// its headers is not looked at where its checksum fits.
///
/// # Errors
/// When its memory cannot be read.
pub(super) fn told(
    marks: &Marks<'_>,
    model: &LegacyPatch,
) -> Result<(u32, Option<u64>), ApplyError> {
    let checksum = marks.checksum();
    let before = match checksum == wanted(model) {
        true => None,
        false => marks.before()?,
    };
    Ok((checksum, before))
}

/// Flags of a target that the patch fits: either its checksum is the one that the patch names, or
/// its debug directory says that its file was made from that one by a cold patch.
pub(super) fn identity(target: &PeImage, model: &LegacyPatch) -> Result<u32, ApplyError> {
    fits((target.checksum, cold_mark(target).ok()), model)
}

/// The same of a target by its checksum, and by the one that it had before it was patched on disk.
pub(super) fn fits(
    (checksum, before): (u32, Option<u64>),
    model: &LegacyPatch,
) -> Result<u32, ApplyError> {
    let wanted = wanted(model);
    if wanted == 0 {
        let text = "the patch is for a file without a checksum, as there are many";
        return at_status(status::REVISION, text);
    }
    if checksum == wanted {
        return Ok(0);
    }
    if before == Some(wanted.into()) {
        return Ok(COLD_PATCH_VALID);
    }
    let text = format!("the target has the checksum {checksum:#x}, the patch is for {wanted:#x}");
    at_status(status::REVISION, &text)
}

/// The validations that belong to no hook: the target has their bytes, byte for byte.
pub(super) fn validations(look: &Look<'_>, target: &dyn Target) -> Result<(), ApplyError> {
    let general = |flags: u16| flags & validation_flags::HOOK_TARGET == 0;
    let mut all = look.model.validations.iter();
    let module = &look.module.target;
    all.try_for_each(|validation| {
        let end = u64::from(validation.target) + validation.bytes.len() as u64;
        if end > u64::from(module.image.size) {
            let text = format!("{:#x} is not in the target", validation.target);
            return at_status(status::BROKEN, &text);
        }
        let at = module.address(validation.target)?;
        if general(validation.flags) && !target.holds(at, &validation.bytes)? {
            let text = format!("the target has other bytes at {at} than the patch expects");
            return at_status(status::DATA, &text);
        }
        Ok(())
    })
}
