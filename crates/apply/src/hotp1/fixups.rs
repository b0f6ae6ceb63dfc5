//! Words of the patch that depend on where both images are.

use invivo_image::LiveAddr;

use super::hooks::as_loaded;
use super::{Look, at_status, status};
use crate::{ApplyError, Target, refused};

/// What each word that is fixed up becomes. It is made of what the loader made of the file, so that
/// a word which was fixed up already, by a tool that died then, is not changed twice.
pub(super) fn words(
    look: &Look<'_>,
    target: &dyn Target,
) -> Result<Vec<(LiveAddr, Vec<u8>)>, ApplyError> {
    let mut words = Vec::new();
    for region in &look.model.fixups {
        for fixup in &region.fixups {
            let place = (region.page << 12) | u32::from(fixup.offset);
            let at = look.patch.address(place)?;
            let width = fixup.kind.width() as usize;
            if width == 0 {
                continue;
            }
            let Some(word) = as_loaded(look.patch, place, width) else {
                let text = format!("the word at {at} is not in the patch's file");
                return at_status(status::BROKEN, &text);
            };
            let Some(value) = look.model.fixed_up(fixup.kind, &word, &look.places()) else {
                let text = format!("the word at {at} cannot hold how far the images are apart");
                return at_status(status::FAR, &text);
            };
            if !target.holds(at, &word)? && !target.holds(at, &value)? {
                return refused(format!("somebody changed the word at {at} of the patch"));
            }
            words.push((at, value));
        }
    }
    Ok(words)
}
