//! `.pdata`: functions with unwind data.

use std::ops::Range;

use super::error::outside;
use super::headers::directory;
use super::{PeError, PeImage, PeMachine};
use crate::Rva;

/// A function, or a part of one, with unwind data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnwindFunction {
    /// Its code; on ARM64 the end is not always in the table, and then it is the start.
    pub code: Range<Rva>,
    /// Its unwind data; on ARM64 they may be packed into the table, and then it is `None`.
    pub unwind: Option<Rva>,
    /// True if it goes on with another entry's unwind data (`UNW_FLAG_CHAININFO`): it is part of
    /// a function, not its start.
    pub chained: bool,
}

pub(super) fn read(image: &PeImage) -> Result<Vec<UnwindFunction>, PeError> {
    let Some(found) = image.directory(directory::EXCEPTION) else {
        return Ok(Vec::new());
    };
    let data = image
        .bytes(found.at, found.size.into())
        .ok_or_else(|| outside("the exception directory", found.at))?;
    match image.machine {
        // 32-bit x86 has no such table.
        PeMachine::I386 => Ok(Vec::new()),
        PeMachine::Amd64 => data
            .chunks_exact(12)
            .map(|entry| amd64(image, entry))
            .collect(),
        PeMachine::Arm64 => data
            .chunks_exact(8)
            .map(|entry| arm64(image, entry))
            .collect(),
    }
}

fn field(entry: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&entry[at..at + 4]);
    u32::from_le_bytes(word)
}

fn checked(image: &PeImage, code: Range<Rva>) -> Result<Range<Rva>, PeError> {
    let inside = code.start <= code.end && code.end.0 <= u64::from(image.size);
    if inside {
        Ok(code)
    } else {
        Err(outside("a function of the exception directory", code.start))
    }
}

fn amd64(image: &PeImage, entry: &[u8]) -> Result<UnwindFunction, PeError> {
    const CHAINED: u8 = 4;
    let [start, end, unwind] = [0, 4, 8].map(|at| Rva(field(entry, at).into()));
    // An odd number is the place of another entry of this table, which holds the data.
    let indirect = unwind.0 & 1 != 0;
    let header: [u8; 1] = image
        .array(Rva(unwind.0 & !1))
        .ok_or_else(|| outside("unwind data", unwind))?;
    Ok(UnwindFunction {
        code: checked(image, start..end)?,
        unwind: Some(unwind),
        chained: indirect || (header[0] >> 3) & CHAINED != 0,
    })
}

fn arm64(image: &PeImage, entry: &[u8]) -> Result<UnwindFunction, PeError> {
    let (start, data) = (Rva(field(entry, 0).into()), field(entry, 4));
    let (length, unwind) = match data & 3 {
        0 => {
            let at = Rva(data.into());
            let header = image.word(at).ok_or_else(|| outside("unwind data", at))?;
            (u64::from(header & 0x3_ffff) * 4, Some(at))
        }
        // Packed: eleven bits of length, in instructions.
        1 | 2 => (u64::from((data >> 2) & 0x7ff) * 4, None),
        _ => (0, None),
    };
    let end = start
        .checked_add(length)
        .ok_or_else(|| outside("a function of the exception directory", start))?;
    Ok(UnwindFunction {
        code: checked(image, start..end)?,
        unwind,
        chained: data & 3 == 2,
    })
}
