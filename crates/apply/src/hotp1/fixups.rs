//! Words of the patch that depend on where both images are.

use invivo_image::LiveAddr;

use super::{Look, at_status, status};
use crate::{ApplyError, Target};

/// What each word that is fixed up becomes.
pub(super) fn words(
    look: &Look<'_>,
    target: &dyn Target,
) -> Result<Vec<(LiveAddr, Vec<u8>)>, ApplyError> {
    let mut words = Vec::new();
    for region in &look.model.fixups {
        for fixup in &region.fixups {
            let at = (region.page << 12) | u32::from(fixup.offset);
            let at = look.patch.address(at)?;
            let mut word = vec![0; fixup.kind.width() as usize];
            if word.is_empty() {
                continue;
            }
            target.read(at, &mut word)?;
            let Some(value) = look.model.fixed_up(fixup.kind, &word, &look.places()) else {
                let text = format!("the word at {at} cannot hold how far the images are apart");
                return at_status(status::FAR, &text);
            };
            words.push((at, value));
        }
    }
    Ok(words)
}
