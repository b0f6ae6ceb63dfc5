//! The bytes of a set of object files as one file in memory: what is loaded, and the debug
//! sections with their headers, for whoever reads these from a file.

use std::sync::Arc;

use object::elf::{self, Ident, SectionHeader64};
use object::endian::{U16, U32, U64};
use object::{LittleEndian, pod};

use super::layout::Layout;
use crate::elf::{Elf, LE};
use crate::model::Image;

/// Moves the bytes of `layout` into the image.
pub(super) fn write(image: &mut Image, layout: &mut Layout) {
    let start = size_of::<Elf>();
    let mut bytes = vec![0; start];
    bytes.append(&mut layout.file);
    for section in &mut image.sections {
        if !section.bytes.is_empty() {
            section.bytes = section.bytes.start + start..section.bytes.end + start;
        }
    }
    let mut names = vec![0];
    let mut headers = vec![header(0, elf::SHT_NULL, 0, 0)];
    for (name, content) in std::mem::take(&mut layout.debug) {
        headers.push(header(
            names.len(),
            elf::SHT_PROGBITS,
            bytes.len(),
            content.len(),
        ));
        names.extend(name.as_bytes());
        names.push(0);
        bytes.extend(content);
    }
    let own = names.len();
    names.extend(b".shstrtab\0");
    headers.push(header(own, elf::SHT_STRTAB, bytes.len(), names.len()));
    bytes.extend(&names);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let table = bytes.len();
    bytes.extend(pod::bytes_of_slice(&headers));
    let file = Elf {
        e_ident: Ident {
            magic: elf::ELFMAG,
            class: elf::ELFCLASS64,
            data: elf::ELFDATA2LSB,
            version: elf::EV_CURRENT,
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, elf::ET_EXEC),
        e_machine: U16::new(LE, elf::EM_X86_64),
        e_version: U32::new(LE, u32::from(elf::EV_CURRENT.0)),
        e_entry: U64::new(LE, 0),
        e_phoff: U64::new(LE, 0),
        e_shoff: U64::new(LE, table as u64),
        e_flags: U32::new(LE, Default::default()),
        e_ehsize: U16::new(LE, short(start)),
        e_phentsize: U16::new(LE, 0),
        e_phnum: U16::new(LE, 0),
        e_shentsize: U16::new(LE, short(size_of::<SectionHeader64<LittleEndian>>())),
        e_shnum: U16::new(LE, short(headers.len())),
        e_shstrndx: U16::new(LE, elf::SymbolSection(short(headers.len() - 1))),
    };
    bytes[..start].copy_from_slice(pod::bytes_of(&file));
    image.file = Arc::from(bytes);
}

fn short(value: usize) -> u16 {
    u16::try_from(value).expect("there are ten kinds of debug sections")
}

fn header(
    name: usize,
    kind: elf::SectionType,
    offset: usize,
    size: usize,
) -> SectionHeader64<LittleEndian> {
    SectionHeader64 {
        sh_name: U32::new(LE, u32::try_from(name).expect("names are short")),
        sh_type: U32::new(LE, kind),
        sh_flags: U64::new(LE, Default::default()),
        sh_addr: U64::new(LE, 0),
        sh_offset: U64::new(LE, offset as u64),
        sh_size: U64::new(LE, size as u64),
        sh_link: U32::new(LE, 0),
        sh_info: U32::new(LE, 0),
        sh_addralign: U64::new(LE, 1),
        sh_entsize: U64::new(LE, 0),
    }
}
