//! A file's own digest: SHA-256 of the whole file, with the place of the digest as zeros.

use std::ops::Range;

use invivo_patch::Hex;
use sha2::{Digest as _, Sha256};

/// The section that holds it.
pub(crate) const NAME: &str = ".invivo.digest";
/// Its size, in bytes.
pub(crate) const SIZE: usize = 32;

/// The digest that `file` should have at `place`; `None` where that is not in it.
pub(crate) fn of(file: &[u8], place: &Range<usize>) -> Option<Hex> {
    let mut whole = Sha256::new();
    whole.update(file.get(..place.start)?);
    whole.update([0; SIZE]);
    whole.update(file.get(place.end..)?);
    Some(Hex(whole.finalize().to_vec()))
}

/// Where the digest stands, from the place and the size of its section.
pub(crate) fn place(file: &[u8], (start, size): (u64, u64)) -> Option<Range<usize>> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(SIZE)?;
    (size == SIZE as u64 && end <= file.len()).then_some(start..end)
}
