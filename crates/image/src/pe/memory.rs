//! Sections, and what is at an address once the image is mapped.

use std::ops::Range;

use object::LittleEndian as LE;
use object::read::coff::SectionTable;

use super::{PeError, PeImage};
use crate::Rva;

/// Names longer than this are not taken for names.
pub(super) const LONGEST_NAME: usize = 1 << 16;

/// `IMAGE_SCN_…`: what a section may be used for.
pub mod section_flags {
    /// It holds machine code.
    pub const CODE: u32 = 0x0000_0020;
    /// It holds data that the file has.
    pub const INITIALIZED_DATA: u32 = 0x0000_0040;
    /// It holds data that the file has not.
    pub const UNINITIALIZED_DATA: u32 = 0x0000_0080;
    /// It may be dropped when the image was started (drivers).
    pub const DISCARDABLE: u32 = 0x0200_0000;
    /// All processes see one copy of it.
    pub const SHARED: u32 = 0x1000_0000;
    /// It may be executed.
    pub const EXECUTE: u32 = 0x2000_0000;
    /// It may be read.
    pub const READ: u32 = 0x4000_0000;
    /// It may be written.
    pub const WRITE: u32 = 0x8000_0000;
}

/// A section of a Windows image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeSection {
    /// Its name, without the zeros behind it; eight bytes at most.
    pub name: String,
    /// Where it is in memory, without the rest of its last page.
    pub range: Range<Rva>,
    /// Where the rest of its last page ends.
    pub(crate) mapped_end: Rva,
    /// The bytes of the file that are mapped.
    pub(crate) file: Range<usize>,
    /// Where its bytes end in the file, those that are not mapped too.
    pub(crate) raw_end: usize,
    /// `Characteristics`; see [`section_flags`].
    pub flags: u32,
}

impl PeSection {
    /// True if the program may read it.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.flags & section_flags::READ != 0
    }

    /// True if its code may be executed.
    #[must_use]
    pub fn is_executable(&self) -> bool {
        self.flags & section_flags::EXECUTE != 0
    }

    /// True if the program may write to it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.flags & section_flags::WRITE != 0
    }

    /// Bytes of it that the file has and the loader maps.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.file.len() as u64
    }

    /// Where it begins in the file, if the file has any of it.
    #[must_use]
    pub fn file_start(&self) -> Option<usize> {
        (!self.file.is_empty()).then_some(self.file.start)
    }

    /// Where it ends in the file, with what is not mapped; 0 if the file has none of it.
    #[must_use]
    pub fn file_end(&self) -> usize {
        self.raw_end
    }
}

pub(super) fn read_sections(
    image: &PeImage,
    table: &SectionTable<'_>,
) -> Result<Vec<PeSection>, PeError> {
    let wrong = |text: String| PeError::Inconsistent(text);
    let mut sections: Vec<PeSection> = Vec::new();
    let round = |value: u64, to: u32| value.next_multiple_of(u64::from(to));
    if usize::try_from(image.headers_size).map_or(true, |size| size > image.file.len()) {
        return Err(wrong("the headers end behind the file".to_owned()));
    }
    let mut previous = u64::from(image.headers_size);
    for header in table.iter() {
        let name = header.raw_name();
        let name = String::from_utf8_lossy(name).into_owned();
        let start = u64::from(header.virtual_address.get(LE));
        let (virtual_size, raw_size) =
            (header.virtual_size.get(LE), header.size_of_raw_data.get(LE));
        let size = u64::from(if virtual_size == 0 {
            raw_size
        } else {
            virtual_size
        });
        let end = start + size;
        let mapped_end = round(end, image.section_alignment);
        if start < previous || !start.is_multiple_of(image.section_alignment.into()) {
            return Err(wrong(format!(
                "section {name} at {start:#x} is out of order or not aligned"
            )));
        }
        if mapped_end > round(image.size.into(), image.section_alignment) {
            return Err(wrong(format!("section {name} ends behind the image")));
        }
        previous = mapped_end;
        let place = u64::from(header.pointer_to_raw_data.get(LE));
        let mapped = if place == 0 {
            0
        } else {
            u64::from(raw_size).min(round(end, 0x1000) - start)
        };
        if mapped != 0 && !place.is_multiple_of(0x200) {
            return Err(wrong(format!(
                "section {name} does not begin at a sector of the file"
            )));
        }
        let file_end = place + u64::from(raw_size);
        if mapped != 0 && usize::try_from(file_end).map_or(true, |end| end > image.file.len()) {
            return Err(wrong(format!("section {name} ends behind the file")));
        }
        let at = |value: u64| usize::try_from(value).map_err(|_| wrong(format!("section {name}")));
        let (file, raw_end) = if mapped == 0 {
            (0..0, 0)
        } else {
            (at(place)?..at(place + mapped)?, at(file_end)?)
        };
        sections.push(PeSection {
            name,
            range: Rva(start)..Rva(end),
            mapped_end: Rva(mapped_end),
            file,
            raw_end,
            flags: header.characteristics.get(LE).0,
        });
    }
    Ok(sections)
}

impl PeImage {
    /// The section whose pages hold `at`.
    #[must_use]
    pub fn section_at(&self, at: Rva) -> Option<&PeSection> {
        let after = self.sections.partition_point(|s| s.range.start <= at);
        let section = self.sections.get(after.checked_sub(1)?)?;
        (at < section.mapped_end).then_some(section)
    }

    /// Where the byte that is mapped at `at` stands in the file, and how many
    /// of those behind it are in the file too; `None` where the file has none.
    #[must_use]
    pub fn file_place(&self, at: Rva) -> Option<Range<usize>> {
        if at.0 < u64::from(self.headers_size) {
            let at = usize::try_from(at.0).ok()?;
            return Some(at..usize::try_from(self.headers_size).ok()?);
        }
        let section = self.section_at(at)?;
        let skip = usize::try_from(at.checked_sub(section.range.start)?).ok()?;
        let start = section.file.start.checked_add(skip)?;
        (start < section.file.end).then_some(start..section.file.end)
    }

    /// `size` bytes that are mapped from the file at `at`; `None` where not all of them are.
    #[must_use]
    pub fn bytes(&self, at: Rva, size: u64) -> Option<&[u8]> {
        if size == 0 {
            return Some(&[]);
        }
        let place = self.file_place(at)?;
        let size = usize::try_from(size).ok()?;
        let held = self.file.get(place)?;
        held.get(..size)
    }

    /// `N` bytes of the mapped image at `at`, zeros where the file has none; `None` where
    /// nothing is mapped.
    #[must_use]
    pub fn array<const N: usize>(&self, at: Rva) -> Option<[u8; N]> {
        let mut out = [0; N];
        if let Some(bytes) = self.bytes(at, N as u64) {
            out.copy_from_slice(bytes);
            return Some(out);
        }
        let section = self.section_at(at)?;
        if at.checked_add(N as u64)? > section.mapped_end {
            return None;
        }
        if let Some(place) = self.file_place(at) {
            let held = self.file.get(place)?;
            out.get_mut(..held.len())?.copy_from_slice(held);
        }
        Some(out)
    }

    /// The 32-bit number at `at`.
    #[must_use]
    pub fn word(&self, at: Rva) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    /// The pointer-sized number at `at`.
    #[must_use]
    pub fn pointer(&self, at: Rva) -> Option<u64> {
        match self.machine.pointer_size() {
            4 => self.word(at).map(u64::from),
            _ => self.array(at).map(u64::from_le_bytes),
        }
    }

    /// The text at `at` up to a zero, which must be in the file and within 64 KiB.
    pub(super) fn text(&self, at: Rva) -> Option<&[u8]> {
        let held = self.file.get(self.file_place(at)?)?;
        let held = &held[..held.len().min(LONGEST_NAME)];
        let end = held.iter().position(|byte| *byte == 0)?;
        Some(&held[..end])
    }

    /// The place that has this address when the image is at its own base.
    #[must_use]
    pub fn rva_of(&self, address: u64) -> Option<Rva> {
        let rva = address.checked_sub(self.image_base)?;
        (rva < u64::from(self.size)).then_some(Rva(rva))
    }

    /// The name of the section at `at`, for messages.
    #[must_use]
    pub fn section_name(&self, at: Rva) -> &str {
        let section = self.section_at(at);
        section.map_or("no section", |section| &section.name)
    }
}
