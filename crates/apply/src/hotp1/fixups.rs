//! Words of the patch that depend on where both images are.

use invivo_format::hotp1::FixupKind;
use invivo_image::LiveAddr;
use invivo_image::pe::PeMachine;

use super::{Look, at_status, status};
use crate::pe::bytes;
use crate::{ApplyError, Target};

/// What each word that is fixed up becomes. The formulas are those of the fields' meaning; no
/// code of Windows is at hand that shows them.
pub(super) fn words(
    look: &Look<'_>,
    target: &dyn Target,
) -> Result<Vec<(LiveAddr, Vec<u8>)>, ApplyError> {
    let moved = look.module.target.at.0.wrapping_sub(look.model.target_base);
    let own = look.patch.at.0.wrapping_sub(look.model.hotp_base);
    let narrow = look.patch.image.machine == PeMachine::I386;
    let mut words = Vec::new();
    for region in &look.model.fixups {
        for fixup in &region.fixups {
            let at = (region.page << 12) | u32::from(fixup.offset);
            let at = look.patch.address(at)?;
            let far = || {
                let text = format!("the word at {at} cannot hold how far the images are apart");
                at_status(status::FAR, &text)
            };
            let value = match fixup.kind {
                FixupKind::None => continue,
                FixupKind::Va32 => {
                    let value = u32::from_le_bytes(bytes(target, at)?);
                    let sum = u64::from(value).wrapping_add(moved);
                    // On x86 addresses wrap around; elsewhere this one would be cut.
                    match u32::try_from(sum) {
                        Ok(sum) => sum.to_le_bytes().to_vec(),
                        Err(_) if narrow => (sum as u32).to_le_bytes().to_vec(),
                        Err(_) => return far(),
                    }
                }
                FixupKind::Pc32 => {
                    let value = i32::from_le_bytes(bytes(target, at)?);
                    let sum = i64::from(value).wrapping_add(moved.wrapping_sub(own).cast_signed());
                    match i32::try_from(sum) {
                        Ok(sum) => sum.to_le_bytes().to_vec(),
                        Err(_) if narrow => (sum as u32).to_le_bytes().to_vec(),
                        Err(_) => return far(),
                    }
                }
                FixupKind::Va64 => {
                    let value = u64::from_le_bytes(bytes(target, at)?);
                    value.wrapping_add(moved).to_le_bytes().to_vec()
                }
                FixupKind::Pc64 => {
                    let value = u64::from_le_bytes(bytes(target, at)?);
                    let sum = value.wrapping_add(moved).wrapping_sub(own);
                    sum.to_le_bytes().to_vec()
                }
            };
            words.push((at, value));
        }
    }
    Ok(words)
}
