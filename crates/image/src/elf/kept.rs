//! What is kept of a debug file: the data that are asked for, unpacked.
//!
//! The file as it is holds them packed, beside tables of symbols that were read already and
//! places of variables that nobody asks for; to unpack them later would keep both.

use std::sync::Arc;

use object::elf::{self, SectionFlags, SectionHeader64};
use object::endian::{U16, U32, U64};
use object::read::SectionIndex;
use object::read::elf::{ElfFile64, FileHeader, SectionHeader};
use object::{CompressedData, CompressionFormat, LittleEndian, Object, ObjectSection, pod};

use super::{Elf, LE};
use crate::debug::{is_needless, is_plausible};

/// Data begin at multiples of this many bytes.
const ALIGNMENT: usize = 16;

/// Debug data are packed to a third or so. What says that it is so much larger than its file
/// stays as it is: room is made before the first byte is unpacked.
const LARGEST_RATIO: usize = 32;

/// A section as it will be, where its data begin, and what they are now.
type Kept<'f> = (
    SectionHeader64<LittleEndian>,
    Option<(usize, CompressedData<'f>)>,
);

/// A file with the same sections, in which debug data are not packed and those that nobody
/// reads have no bytes; `None` if it is not understood, or if nothing is packed in it.
pub(super) fn kept(file: &[u8]) -> Option<Arc<[u8]>> {
    let elf = ElfFile64::<LittleEndian>::parse(file).ok()?;
    let names = usize::try_from(elf.elf_header().shstrndx(LE, file).ok()?).ok()?;
    let mut sections: Vec<Kept<'_>> = Vec::new();
    let mut end = size_of::<Elf>();
    let mut is_packed = false;
    for (index, header) in elf.elf_section_table().enumerate() {
        let mut header = *header;
        if index == SectionIndex(0) || header.sh_type(LE) == elf::SHT_NOBITS {
            sections.push((header, None));
            continue;
        }
        let section = elf.section_by_index(index).ok()?;
        let name = section.name().ok()?;
        // Names of symbols were read; some files have those of sections in the same table.
        let is_read = header.sh_type(LE) == elf::SHT_SYMTAB
            || name == ".strtab" && index != SectionIndex(names);
        if is_read || is_needless(name) {
            header.sh_type = U32::new(LE, elf::SHT_NOBITS);
            sections.push((header, None));
            continue;
        }
        let data = section.compressed_data().ok()?;
        if data.format != CompressionFormat::None {
            is_packed = true;
            let flags = header.sh_flags(LE).0 & !elf::SHF_COMPRESSED.0;
            header.sh_flags = U64::new(LE, SectionFlags(flags));
        }
        if !is_plausible(&data) {
            return None;
        }
        let start = end.checked_next_multiple_of(ALIGNMENT)?;
        header.sh_offset = U64::new(LE, start as u64);
        header.sh_size = U64::new(LE, data.uncompressed_size);
        end = start.checked_add(usize::try_from(data.uncompressed_size).ok()?)?;
        sections.push((header, Some((start, data))));
    }
    if !is_packed || end / LARGEST_RATIO > file.len() {
        return None;
    }
    let start = end.checked_next_multiple_of(ALIGNMENT)?;
    let mut own = *elf.elf_header();
    own.e_shoff = U64::new(LE, start as u64);
    // Its segments are those of the image, and their bytes are not here.
    (own.e_phoff, own.e_phnum) = (U64::new(LE, 0), U16::new(LE, 0));
    let headers: Vec<_> = sections.iter().map(|(header, _)| *header).collect();
    let headers = pod::bytes_of_slice(&headers);
    let size = start.checked_add(headers.len())?;
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, size).collect();
    let room = Arc::get_mut(&mut bytes).expect("nobody else has it yet");
    room.get_mut(..size_of::<Elf>())?
        .copy_from_slice(pod::bytes_of(&own));
    room.get_mut(start..)?.copy_from_slice(headers);
    for (start, data) in sections.into_iter().filter_map(|(_, data)| data) {
        let plain = data.decompress().ok()?;
        let end = start.checked_add(plain.len())?;
        room.get_mut(start..end)?.copy_from_slice(&plain);
    }
    Some(bytes)
}
