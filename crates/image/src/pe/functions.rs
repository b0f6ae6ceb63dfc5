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

/// Where the routine stands that is asked about exceptions, behind the unwind data at `at`; `None` if
/// there is none. The layout is that of Microsoft's "ARM64 exception handling".
pub(super) fn arm64_handler(image: &PeImage, at: Rva) -> Result<Option<Rva>, PeError> {
    const HAS_HANDLER: u32 = 1 << 20;
    const ONE_EPILOG: u32 = 1 << 21;
    let word = |at: Rva| image.word(at).ok_or_else(|| outside("unwind data", at));
    let header = word(at)?;
    let version = header >> 18 & 3;
    if version != 0 {
        let text = format!("unwind data of version {version} at {at}");
        return Err(PeError::Unsupported(text));
    }
    if header & HAS_HANDLER == 0 {
        return Ok(None);
    }
    let (mut epilogs, mut codes, mut size) = (header >> 22 & 31, header >> 27, 4);
    if (epilogs, codes) == (0, 0) {
        let more = word(Rva(at.0 + 4))?;
        (epilogs, codes, size) = (more & 0xffff, more >> 16 & 0xff, 8);
    }
    // Where there is one, its place in the codes is told instead of how many there are.
    let scopes = if header & ONE_EPILOG == 0 { epilogs } else { 0 };
    let behind = size + 4 * (u64::from(scopes) + u64::from(codes));
    let place = at.checked_add(behind);
    place.map_or_else(|| Err(outside("a handler", at)), |place| Ok(Some(place)))
}
