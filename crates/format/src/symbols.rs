//! A file with which debuggers name code that is in no file: symbols and unwind data at the
//! addresses that they have in one process.
//!
//! It is what a separate debug file is: an ELF program whose `.text` has an address and no
//! bytes. `gdb -ex 'add-symbol-file FILE'` takes it as it is.

use std::ops::Range;

use invivo_image::LiveAddr;
use object::elf;
use object::write::elf::{FileHeader, SectionHeader, Sym, Writer};
use object::{Endianness, write::Error};

/// What the file tells.
#[derive(Clone, Debug)]
pub struct SymbolFile<'s> {
    /// The code that it is about.
    pub code: Range<LiveAddr>,
    /// Functions: name as in symbol tables, place, bytes.
    pub functions: Vec<(&'s str, LiveAddr, u64)>,
    /// `.eh_frame` and where it is.
    pub unwind: Option<(LiveAddr, &'s [u8])>,
}

/// Writes the file.
///
/// # Errors
/// When it would be larger than the format allows.
pub fn write(symbols: &SymbolFile<'_>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);
    writer.reserve_file_header();
    let unwind = symbols.unwind.map(|(at, data)| {
        // Alignment in the file is of no use, but readers may expect it.
        let offset = writer.reserve(data.len() as u64, 8);
        (at, data, offset)
    });
    writer.reserve_null_section_index();
    let text_name = writer.add_section_name(b".text");
    let text = writer.reserve_section_index();
    let unwind_name = writer.add_section_name(b".eh_frame");
    if unwind.is_some() {
        writer.reserve_section_index();
    }
    writer.reserve_null_symbol_index();
    let named: Vec<_> = symbols
        .functions
        .iter()
        .map(|(name, at, size)| {
            writer.reserve_symbol_index(Some(text));
            (writer.add_string(name.as_bytes()), at, size)
        })
        .collect();
    writer.reserve_symtab_section_index();
    writer.reserve_symtab();
    writer.reserve_strtab_section_index();
    writer.reserve_strtab()?;
    writer.reserve_shstrtab_section_index();
    writer.reserve_shstrtab()?;
    writer.reserve_section_headers();
    writer.write_file_header(&FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_EXEC,
        e_machine: elf::EM_X86_64,
        e_entry: 0,
        e_flags: elf::FileFlags(0),
    })?;
    if let Some((_, data, _)) = unwind {
        writer.write_align(8);
        writer.write(data);
    }
    writer.write_null_symbol();
    for (name, at, size) in named {
        let st_name = writer.string_offset(Some(name));
        writer.write_symbol(&Sym {
            st_name,
            section: Some(text.0),
            st_info: elf::SymbolInfo::new(elf::STB_LOCAL, elf::STT_FUNC),
            st_other: elf::SymbolOther(0),
            st_shndx: elf::SymbolSection(0),
            st_value: at.0,
            st_size: *size,
        });
    }
    writer.write_strtab();
    writer.write_shstrtab();
    writer.write_null_section_header();
    let (text_name, unwind_name) = (
        writer.section_name_offset(Some(text_name)),
        writer.section_name_offset(Some(unwind_name)),
    );
    let section = |name, kind, flags, at: LiveAddr, offset, size| SectionHeader {
        sh_name: name,
        sh_type: kind,
        sh_flags: flags,
        sh_addr: at.0,
        sh_offset: offset,
        sh_size: size,
        sh_link: 0,
        sh_info: 0,
        sh_addralign: 1,
        sh_entsize: 0,
    };
    let code = &symbols.code;
    let size = code.end.0.saturating_sub(code.start.0);
    writer.write_section_header(&section(
        text_name,
        elf::SHT_NOBITS,
        elf::SHF_ALLOC | elf::SHF_EXECINSTR,
        code.start,
        0,
        size,
    ));
    if let Some((at, data, offset)) = unwind {
        writer.write_section_header(&section(
            unwind_name,
            elf::SHT_PROGBITS,
            elf::SHF_ALLOC,
            at,
            offset,
            data.len() as u64,
        ));
    }
    let locals = writer.symbol_count();
    writer.write_symtab_section_header(locals);
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
    Ok(bytes)
}
