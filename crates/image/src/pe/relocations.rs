//! Base relocations.

use std::ops::Range;

use object::pe;
use object::read::pe::RelocationBlockIterator;

use super::error::{broken, outside};
use super::headers::directory;
use super::{PeError, PeImage, PeMachine};
use crate::Rva;

/// How a place changes with the image's base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BaseRelocationKind {
    /// `HIGHLOW`: a 32-bit address.
    Address32,
    /// `DIR64`: a 64-bit address.
    Address64,
    /// Another kind, by its number; it changes up to 8 bytes.
    Other(u16),
}

impl BaseRelocationKind {
    /// How many bytes it changes at most.
    #[must_use]
    pub fn width(self) -> u64 {
        match self {
            BaseRelocationKind::Address32 => 4,
            BaseRelocationKind::Address64 | BaseRelocationKind::Other(_) => 8,
        }
    }
}

/// Bytes that any of them changes at most.
const WIDEST: u64 = 8;

/// A place that holds an address of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BaseRelocation {
    /// Where.
    pub at: Rva,
    /// How.
    pub kind: BaseRelocationKind,
}

impl PeImage {
    /// The base relocations that change a byte of `range`, in order of address. Large images have a million,
    /// and as many places that are asked about.
    pub fn relocations_over(&self, range: Range<Rva>) -> impl Iterator<Item = &BaseRelocation> {
        let before = |one: &BaseRelocation| one.at.0 + WIDEST <= range.start.0;
        let near = &self.relocations[self.relocations.partition_point(before)..];
        near.iter()
            .take_while(move |one| one.at < range.end)
            .filter(move |one| one.at.0 + one.kind.width() > range.start.0)
    }
}

pub(super) fn read(image: &PeImage) -> Result<Vec<BaseRelocation>, PeError> {
    let Some(found) = image.directory(directory::BASE_RELOCATION) else {
        return Ok(Vec::new());
    };
    let data = image
        .bytes(found.at, found.size.into())
        .ok_or_else(|| outside("the base relocations", found.at))?;
    let mut relocations = Vec::new();
    let mut blocks = RelocationBlockIterator::new(data);
    while let Some(block) = blocks.next().map_err(broken("base relocations"))? {
        for relocation in block {
            let at = Rva(relocation.virtual_address.into());
            let kind = match (relocation.typ, image.machine) {
                (pe::IMAGE_REL_BASED_ABSOLUTE, _) => continue,
                (pe::IMAGE_REL_BASED_HIGHLOW, PeMachine::I386) => BaseRelocationKind::Address32,
                (pe::IMAGE_REL_BASED_DIR64, PeMachine::Amd64 | PeMachine::Arm64) => {
                    BaseRelocationKind::Address64
                }
                (other, _) => BaseRelocationKind::Other(other.0),
            };
            let end = at.checked_add(kind.width());
            if end.is_none_or(|end| end.0 > u64::from(image.size)) {
                return Err(outside("the place of a base relocation", at));
            }
            relocations.push(BaseRelocation { at, kind });
        }
    }
    relocations.sort_unstable();
    Ok(relocations)
}
