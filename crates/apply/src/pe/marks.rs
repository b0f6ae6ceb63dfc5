//! What an image in memory says of its file, whatever became of that.

use invivo_format::final_image::{WINDOWS_SECTION, WindowsBuild, read_loaded};
use invivo_format::hotp1::{MARK, MARK_SIZE, cold_mark_of};
use invivo_image::LiveAddr;
use invivo_image::pe::directory;

use super::bytes;
use crate::{ApplyError, Target, refused};

/// What tells whether a loaded image is the one that a patch is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// `CheckSum`.
    pub(crate) checksum: u32,
    /// The checksum that the file had before it was patched on disk, where its debug directory says so.
    pub(crate) before: Option<u64>,
    /// Of a file that was patched on disk: the build that its new code is of.
    pub(crate) code_of: Option<WindowsBuild>,
}

/// Where the signature's place stands.
const SIGNATURE: u32 = 0x3c;
/// Bytes of the headers from the signature to the data directories, without those that only an image of
/// 64 bits has.
const HEADERS: usize = 0x78;
/// Bytes that those are more.
const WIDER: u32 = 0x10;
/// Bytes of an entry of the debug directory, and how many are looked at.
const ENTRY: usize = 28;
const ENTRIES: usize = 64;
/// Bytes of a section header, and how many sections Windows loads.
const SECTION: usize = 40;
const SECTIONS: u16 = 96;
/// Bytes that an image says of itself, at most.
const TOLD: usize = 1 << 20;

impl Marks {
    /// Of the image that begins at `at`.
    ///
    /// # Errors
    /// When no image begins there, or its memory cannot be read.
    pub(crate) fn of(target: &dyn Target, at: LiveAddr) -> Result<Marks, ApplyError> {
        let no_image = || refused(format!("what is at {at} does not begin as an image does"));
        let mut seen = Seen {
            target,
            at,
            size: u32::MAX,
        };
        if &seen.bytes::<2>(0)? != b"MZ" {
            return no_image();
        }
        let signature = u32::from_le_bytes(seen.bytes(SIGNATURE)?);
        let headers = seen.bytes::<HEADERS>(signature)?;
        if !headers.starts_with(b"PE\0\0") {
            return no_image();
        }
        let directories = match half(&headers, 0x18) {
            0x20b => signature.checked_add(HEADERS as u32 + WIDER),
            _ => signature.checked_add(HEADERS as u32),
        };
        let table = u32::from(half(&headers, 0x14)) + 0x18;
        let (Some(directories), Some(table)) = (directories, signature.checked_add(table)) else {
            return no_image();
        };
        seen.size = word(&headers, 0x50);
        let checksum = word(&headers, 0x58);
        let before = seen.mark(directories)?;
        let code_of = match before {
            Some(_) => seen.code_of(table, half(&headers, 6))?,
            None => None,
        };
        Ok(Marks {
            checksum,
            before,
            code_of,
        })
    }
}

/// An image in memory.
struct Seen<'t> {
    target: &'t dyn Target,
    at: LiveAddr,
    /// Bytes that it takes.
    size: u32,
}

impl Seen<'_> {
    fn place(&self, at: u32) -> LiveAddr {
        LiveAddr(self.at.0.saturating_add(at.into()))
    }

    fn bytes<const N: usize>(&self, at: u32) -> Result<[u8; N], ApplyError> {
        bytes(self.target, self.place(at))
    }

    /// Nothing where they would not all be in the image.
    fn many(&self, at: u32, size: usize) -> Result<Vec<u8>, ApplyError> {
        if u64::from(at) + size as u64 > self.size.into() {
            return Ok(Vec::new());
        }
        let mut found = vec![0; size];
        self.target.read(self.place(at), &mut found)?;
        Ok(found)
    }

    /// The checksum before, where there is one mark of a cold patch, and no other.
    fn mark(&self, directories: u32) -> Result<Option<u64>, ApplyError> {
        let count = u32::from_le_bytes(self.bytes(directories.saturating_sub(4))?);
        let index = directory::DEBUG as u32;
        if count <= index {
            return Ok(None);
        }
        let place = self.bytes::<8>(directories.saturating_add(8 * index))?;
        let (at, size) = (word(&place, 0), word(&place, 4) as usize);
        let entries = (size / ENTRY).min(ENTRIES);
        if at == 0 || entries == 0 {
            return Ok(None);
        }
        let entries = self.many(at, entries * ENTRY)?;
        let mut marks = entries
            .chunks_exact(ENTRY)
            .filter(|entry| word(entry, 12) == MARK);
        let (Some(entry), None) = (marks.next(), marks.next()) else {
            return Ok(None);
        };
        let (size, at) = (word(entry, 16), word(entry, 20));
        if size != MARK_SIZE || at == 0 {
            return Ok(None);
        }
        let mark = self.many(at, MARK_SIZE as usize)?;
        Ok(mark.first_chunk().and_then(|mark| cold_mark_of(mark).ok()))
    }

    /// What the image says of the build that its new code is of.
    fn code_of(&self, table: u32, count: u16) -> Result<Option<WindowsBuild>, ApplyError> {
        let sections = self.many(table, usize::from(count.min(SECTIONS)) * SECTION)?;
        let mut name = [0; 8];
        name[..WINDOWS_SECTION.len()].copy_from_slice(WINDOWS_SECTION.as_bytes());
        let mut sections = sections.chunks_exact(SECTION);
        let Some(section) = sections.find(|section| section.starts_with(&name)) else {
            return Ok(None);
        };
        let (size, at) = (word(section, 8) as usize, word(section, 12));
        let told = self.many(at, size.min(TOLD))?;
        Ok(read_loaded(&told).ok().and_then(|told| told.code_of))
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..at + 2);
    found.map_or(0, |found| u16::from_le_bytes([found[0], found[1]]))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}
