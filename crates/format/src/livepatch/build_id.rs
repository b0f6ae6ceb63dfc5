//! Notes with build ids.

use invivo_image::BuildId;
use object::Object as _;
use object::read::pe::PeFile64;

use super::file::word;

/// `NT_GNU_BUILD_ID`.
pub(super) const TYPE: u32 = 3;
/// Bytes of a payload's own build id, as of one that `ld` makes.
pub(super) const SIZE: usize = 20;
/// Bytes of a note's header.
pub(super) const HEADER: usize = 12;

/// The note that has this build id.
pub(super) fn note(id: &BuildId) -> Vec<u8> {
    let size = u32::try_from(id.0.len()).unwrap_or(u32::MAX);
    let mut note = Vec::new();
    for word in [4, size, TYPE] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    note.extend_from_slice(b"GNU\0");
    note.extend_from_slice(&id.0);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// The build id by which a hypervisor that was booted as `xen.efi` knows itself: the 16 bytes of
/// the signature in its debug directory, and not those of the `.gz` of the same release. `None`
/// if the file is no such thing.
#[must_use]
pub fn efi_build_id(file: &[u8]) -> Option<BuildId> {
    let image = PeFile64::parse(file).ok()?;
    let view = image.pdb_info().ok().flatten()?;
    Some(BuildId(view.guid().to_vec()))
}

/// What is wrong with a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Its sizes.
    Sizes,
    /// Its type or its name.
    Other,
}

/// The build id of a note, as Xen reads it.
pub(super) fn parse(note: &[u8]) -> Result<BuildId, Problem> {
    if note.len() <= HEADER {
        return Err(Problem::Sizes);
    }
    let (name_size, size, kind) = (word(note, 0), word(note, 4), word(note, 8));
    if kind != TYPE {
        return Err(Problem::Other);
    }
    let end = name_size.checked_add(size);
    let room = note.len() - HEADER;
    if name_size < 4 || end.is_none_or(|end| end as usize > room) {
        return Err(Problem::Sizes);
    }
    let name_size = name_size as usize;
    if !note[HEADER..].starts_with(b"GNU\0") {
        return Err(Problem::Other);
    }
    let start = HEADER + name_size.next_multiple_of(4);
    match note.get(start..start + size as usize) {
        Some([]) | None => Err(Problem::Sizes),
        Some(id) => Ok(BuildId(id.to_vec())),
    }
}
