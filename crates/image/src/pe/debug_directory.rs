//! The debug directory: which debug data belong to the image, and its marks.

use std::fmt;

use super::error::outside;
use super::headers::directory;
use super::{PeError, PeImage};
use crate::Rva;

/// What names the PDB file of an image (`RSDS`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeView {
    /// The identity of the build, as it stands in the file.
    pub guid: [u8; 16],
    /// How often the PDB file was written since.
    pub age: u32,
    /// Its path when it was linked.
    pub path: String,
}

impl fmt::Display for CodeView {
    /// The form in which symbol servers name it: the GUID's digits and the age.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let g = &self.guid;
        let first = u32::from_le_bytes([g[0], g[1], g[2], g[3]]);
        let (second, third) = (
            u16::from_le_bytes([g[4], g[5]]),
            u16::from_le_bytes([g[6], g[7]]),
        );
        write!(f, "{first:08X}{second:04X}{third:04X}")?;
        g[8..].iter().try_for_each(|byte| write!(f, "{byte:02X}"))?;
        write!(f, "{:X}", self.age)
    }
}

/// An entry of the debug directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugEntry {
    /// `IMAGE_DEBUG_TYPE_…`.
    pub kind: u32,
    /// `MajorVersion` and `MinorVersion`.
    pub version: (u16, u16),
    /// Where its data are mapped; 0 where they are not.
    pub at: Rva,
    /// Where its data stand in the file; 0 where they do not.
    pub file_offset: u32,
    /// Bytes of its data.
    pub size: u32,
    /// Type 2: which PDB file belongs to the image.
    pub code_view: Option<CodeView>,
    /// Type 20: `IMAGE_DLLCHARACTERISTICS_EX_…`.
    pub characteristics: Option<u32>,
}

const CODE_VIEW: u32 = 2;
const EX_DLL_CHARACTERISTICS: u32 = 20;
/// Linkers write a handful.
const MOST: usize = 64;

pub(super) fn read(image: &PeImage) -> Result<Vec<DebugEntry>, PeError> {
    let Some(found) = image.directory(directory::DEBUG) else {
        return Ok(Vec::new());
    };
    let data = image
        .bytes(found.at, found.size.into())
        .ok_or_else(|| outside("the debug directory", found.at))?;
    if data.len() / 28 > MOST {
        return Err(PeError::Inconsistent(format!(
            "a debug directory of {} entries",
            data.len() / 28
        )));
    }
    Ok(data
        .chunks_exact(28)
        .map(|bytes| entry(image, bytes))
        .collect())
}

fn entry(image: &PeImage, bytes: &[u8]) -> DebugEntry {
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
    let (kind, size) = (word(12), word(16));
    let (at, file_offset) = (Rva(word(20).into()), word(24));
    // Debuggers read it from the file, and it need not be mapped.
    let start = usize::try_from(file_offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
    let data = image.file.get(start..end).unwrap_or_default();
    DebugEntry {
        kind,
        version: (half(8), half(10)),
        at,
        file_offset,
        size,
        code_view: (kind == CODE_VIEW).then(|| code_view(data)).flatten(),
        characteristics: (kind == EX_DLL_CHARACTERISTICS)
            .then(|| data.first_chunk().map(|word| u32::from_le_bytes(*word)))
            .flatten(),
    }
}

fn code_view(data: &[u8]) -> Option<CodeView> {
    let rest = data.strip_prefix(b"RSDS")?;
    let (guid, rest) = rest.split_first_chunk::<16>()?;
    let (age, rest) = rest.split_first_chunk::<4>()?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(CodeView {
        guid: *guid,
        age: u32::from_le_bytes(*age),
        path: String::from_utf8_lossy(&rest[..end.min(super::memory::LONGEST_NAME)]).into_owned(),
    })
}
