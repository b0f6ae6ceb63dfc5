//! What an image in memory says of its file, whatever became of that.

use invivo_format::final_image::{WINDOWS_SECTION, WindowsBuild, read_loaded};
use invivo_format::hotp1::{MARK, MARK_SIZE, cold_mark_of};
use invivo_image::LiveAddr;
use invivo_image::pe::directory;

use super::bytes;
use crate::{ApplyError, Loaded, Target, refused};

/// Bytes of an entry of the debug directory, and how many are looked at.
const ENTRY: usize = 28;
const ENTRIES: usize = 64;
/// Bytes of a section header, and how many sections Windows loads.
const SECTION: usize = 40;
const SECTIONS: u16 = 96;
/// Bytes that an image says of itself, at most.
const TOLD: usize = 1 << 20;

/// What tells whether a loaded image is the one that a patch is for. What is behind its headers is read
/// when it is asked for: most images are told by those alone.
pub(crate) struct Marks<'t> {
    target: &'t dyn Target,
    seen: Loaded,
}

impl<'t> Marks<'t> {
    /// Of the image that begins at `at`.
    ///
    /// # Errors
    /// When no image begins there, or its memory cannot be read.
    pub(crate) fn of(target: &'t dyn Target, at: LiveAddr) -> Result<Marks<'t>, ApplyError> {
        match Loaded::look(target, at)? {
            Some(seen) => Ok(Marks { target, seen }),
            None => refused(format!("what is at {at} does not begin as an image does")),
        }
    }

    /// `CheckSum`.
    pub(crate) fn checksum(&self) -> u32 {
        self.seen.image.checksum
    }

    /// The checksum that the file had before it was patched on disk, where the debug directory has one mark
    /// of a cold patch, and no other.
    ///
    /// # Errors
    /// When the memory of the image cannot be read.
    pub(crate) fn before(&self) -> Result<Option<u64>, ApplyError> {
        let directories = place(self.seen.image.header_places().directories);
        let count = u32::from_le_bytes(self.bytes(directories.saturating_sub(4))?);
        let index = directory::DEBUG as u32;
        if count <= index {
            return Ok(None);
        }
        let debug = self.bytes::<8>(directories.saturating_add(8 * index))?;
        let (at, size) = (word(&debug, 0), word(&debug, 4) as usize);
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

    /// Of a file that was patched on disk: the build that its new code is of.
    ///
    /// # Errors
    /// When the memory of the image cannot be read.
    pub(crate) fn code_of(&self) -> Result<Option<WindowsBuild>, ApplyError> {
        let places = self.seen.image.header_places();
        let count = u16::from_le_bytes(self.bytes(place(places.section_count))?);
        let table = usize::from(count.min(SECTIONS)) * SECTION;
        let sections = self.many(place(places.section_table), table)?;
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

    fn at(&self, place: u32) -> LiveAddr {
        LiveAddr(self.seen.at.0.saturating_add(place.into()))
    }

    fn bytes<const N: usize>(&self, at: u32) -> Result<[u8; N], ApplyError> {
        bytes(self.target, self.at(at))
    }

    /// Nothing where they would not all be in the image.
    fn many(&self, at: u32, size: usize) -> Result<Vec<u8>, ApplyError> {
        if u64::from(at) + size as u64 > self.seen.image.size.into() {
            return Ok(Vec::new());
        }
        let mut found = vec![0; size];
        self.target.read(self.at(at), &mut found)?;
        Ok(found)
    }
}

/// A place in the headers.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    found.map_or(0, u32::from_le_bytes)
}
