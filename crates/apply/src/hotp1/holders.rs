//! Who holds a module: seen in memory, whatever its file is called and wherever it was loaded.

use crate::{ApplyError, Loaded, Target};

/// Each place of `target` at which the image of `like` is loaded; `like` says nothing of where.
///
/// A patch is for every process that holds its target: whoever asks each of them this, and applies
/// the patch where the answer is not empty, has reached all.
///
/// # Errors
/// When the memory of the target cannot be looked at.
pub fn holders(target: &dyn Target, like: &Loaded) -> Result<Vec<Loaded>, ApplyError> {
    let mut found: Vec<Loaded> = Vec::new();
    for region in target.regions()? {
        let at = region.range.start;
        // The pages of one image have several kinds of access.
        if found.last().is_some_and(|last| at < last.end()) {
            continue;
        }
        let candidate = Loaded { at, ..like.clone() };
        if target.holds(at, b"MZ").unwrap_or(false) && candidate.check_identity(target).is_ok() {
            found.push(candidate);
        }
    }
    Ok(found)
}
