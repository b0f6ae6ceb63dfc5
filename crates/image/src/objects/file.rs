//! One object file, as the compiler left it: sections, symbols, relocations.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use object::elf::{self, SectionFlags};
use object::read::SectionIndex;
use object::read::elf::{Crel, FileHeader, SectionHeader, SectionTable, Sym, SymbolTable};
use object::{CompressedData, CompressionFormat};

use super::ObjectFile;
use crate::ImageError;
use crate::debug::is_plausible;
use crate::elf::{Elf, LE};

/// The debug data that somebody reads.
const DEBUG: [&str; 10] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
    ".debug_types",
];

/// A relocatable file.
pub(super) struct Object<'d> {
    /// What messages and local symbols call it.
    pub(super) label: &'d str,
    /// By the number that the file gives them; `None` for those that no program holds.
    pub(super) sections: Vec<Option<InSection<'d>>>,
    /// By the number that the file gives them.
    pub(super) symbols: Vec<InSymbol>,
    /// COMDAT groups: what each is called, and its sections.
    pub(super) groups: Vec<(Arc<str>, Vec<usize>)>,
}

/// A section of one file.
pub(super) struct InSection<'d> {
    pub(super) name: String,
    pub(super) flags: SectionFlags,
    pub(super) align: u64,
    pub(super) size: u64,
    /// Its bytes; `None` where there are only zeros.
    pub(super) bytes: Option<Cow<'d, [u8]>>,
    pub(super) relocations: Vec<Relocation>,
}

impl InSection<'_> {
    /// True if a program that runs has it in its memory.
    pub(super) fn is_loaded(&self) -> bool {
        self.flags.contains(elf::SHF_ALLOC)
    }
}

/// A value that the linker fills in.
#[derive(Clone, Copy)]
pub(super) struct Relocation {
    pub(super) offset: u64,
    pub(super) kind: elf::RelocationType,
    pub(super) symbol: usize,
    pub(super) addend: i64,
}

/// Where a symbol of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InPlace {
    Undefined,
    Absolute(u64),
    Common { size: u64, align: u64 },
    In { section: usize, offset: u64 },
}

/// A symbol of one file.
pub(super) struct InSymbol {
    pub(super) name: Arc<str>,
    pub(super) kind: elf::SymbolType,
    pub(super) local: bool,
    pub(super) weak: bool,
    pub(super) place: InPlace,
    pub(super) size: u64,
    /// `STT_FILE` before it.
    pub(super) file: Option<Arc<str>>,
}

impl<'d> Object<'d> {
    pub(super) fn parse(file: &'d ObjectFile) -> Result<Self, ImageError> {
        let fail = |what: String| ImageError::InObject {
            file: file.label.clone(),
            what,
        };
        let broken = |what: &'static str| {
            move |source: object::read::Error| fail(format!("broken: {what}: {source}"))
        };
        let data = &file.bytes[..];
        if !data.starts_with(&elf::ELFMAG) {
            let bitcode = data.starts_with(b"BC\xc0\xde");
            return Err(fail(if bitcode {
                "LLVM bitcode; compile it without -flto".to_owned()
            } else {
                "not an ELF file".to_owned()
            }));
        }
        let header = Elf::parse(data).map_err(broken("file header"))?;
        if header.e_machine(LE) != elf::EM_X86_64 {
            return Err(fail(format!(
                "machine {} (x86-64 is 62)",
                header.e_machine(LE).0
            )));
        }
        if header.e_type(LE) != elf::ET_REL {
            return Err(fail("a linked file among object files".to_owned()));
        }
        let table = header
            .sections(LE, data)
            .map_err(broken("section headers"))?;
        let mut object = Object {
            label: &file.label,
            sections: Vec::new(),
            symbols: Vec::new(),
            groups: Vec::new(),
        };
        for (index, header) in table.enumerate() {
            let name = table
                .section_name(LE, header)
                .map_err(broken("section name"))?;
            let name = String::from_utf8_lossy(name).into_owned();
            if name.starts_with(".gnu.lto_") {
                let text = "compiled with -flto: its code is made when it is linked";
                return Err(fail(text.to_owned()));
            }
            let kept = index != SectionIndex(0) && is_kept(&name, header);
            object.sections.push(if kept {
                Some(section(name, header, data).map_err(&fail)?)
            } else {
                None
            });
        }
        let symbols = table
            .symbols(LE, data, elf::SHT_SYMTAB)
            .map_err(broken("symbol table"))?;
        object.symbols = read_symbols(&symbols).map_err(&fail)?;
        for (index, header) in table.enumerate() {
            if let Some((flags, members)) =
                header.group(LE, data).map_err(broken("section group"))?
            {
                let name = object.symbols.get(header.sh_info(LE) as usize);
                let members = members.iter().map(|member| member.get(LE) as usize);
                if let (elf::GRP_COMDAT, Some(symbol)) = (flags, name) {
                    // The signature may be the symbol of the section itself.
                    let name = if symbol.name.is_empty() {
                        section_label(&table, index)
                    } else {
                        Arc::clone(&symbol.name)
                    };
                    object.groups.push((name, members.collect()));
                }
            }
            read_relocations(&mut object, header, data).map_err(&fail)?;
        }
        Ok(object)
    }

    /// True if it was put together from several source files' objects.
    pub(super) fn is_joined(&self) -> bool {
        let files = self.symbols.iter().filter(|s| s.kind == elf::STT_FILE);
        files.map(|s| &s.name).collect::<BTreeSet<_>>().len() > 1
    }

    /// The global names that it defines for good.
    pub(super) fn definitions(&self) -> impl Iterator<Item = &Arc<str>> {
        let strong = |s: &&InSymbol| {
            !s.local && !s.weak && matches!(s.place, InPlace::In { .. } | InPlace::Absolute(_))
        };
        self.symbols.iter().filter(strong).map(|s| &s.name)
    }

    pub(super) fn fail(&self, what: impl Into<String>) -> ImageError {
        ImageError::InObject {
            file: self.label.to_owned(),
            what: what.into(),
        }
    }
}

/// True for what a program holds, and for its debug data. What a linker script throws away
/// and notes about the file itself are no part of it.
fn is_kept(name: &str, header: &elf::SectionHeader64<object::LittleEndian>) -> bool {
    let flags = header.sh_flags(LE);
    let kind = header.sh_type(LE);
    if kind == elf::SHT_GROUP || flags.contains(elf::SHF_EXCLUDE) {
        return false;
    }
    if flags.contains(elf::SHF_ALLOC) {
        return !name.starts_with(".discard") && !name.starts_with(".note");
    }
    DEBUG.contains(&name)
}

fn section<'d>(
    name: String,
    header: &elf::SectionHeader64<object::LittleEndian>,
    data: &'d [u8],
) -> Result<InSection<'d>, String> {
    let mut size = header.sh_size(LE);
    let bytes = if header.sh_type(LE) == elf::SHT_NOBITS {
        None
    } else {
        let error = |error| format!("broken: section {name}: {error}");
        let plain = header.data(LE, data).map_err(error)?;
        let packed = header.compression(LE, data).map_err(error)?;
        let bytes = match packed {
            Some((packed, offset, length)) => {
                let format = match packed.ch_type.get(LE) {
                    elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
                    elf::ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
                    _ => CompressionFormat::Unknown,
                };
                let start = usize::try_from(offset).map_err(|e| e.to_string())?;
                let length = usize::try_from(length).map_err(|e| e.to_string())?;
                let end = start.checked_add(length);
                let data = end.and_then(|end| data.get(start..end));
                let packed = CompressedData {
                    format,
                    data: data.ok_or_else(|| format!("broken: section {name}"))?,
                    uncompressed_size: packed.ch_size.get(LE),
                };
                if !is_plausible(&packed) {
                    return Err(format!("section {name} unpacks to too much"));
                }
                packed.decompress().map_err(error)?
            }
            None => Cow::Borrowed(plain),
        };
        size = bytes.len() as u64;
        Some(bytes)
    };
    let align = header.sh_addralign(LE).max(1);
    if !align.is_power_of_two() {
        return Err(format!("section {name} is aligned to {align}"));
    }
    Ok(InSection {
        flags: header.sh_flags(LE),
        name,
        align,
        size,
        bytes,
        relocations: Vec::new(),
    })
}

fn section_label(table: &SectionTable<'_, Elf>, group: SectionIndex) -> Arc<str> {
    let header = table.section(group).ok();
    let name = header.and_then(|header| table.section_name(LE, header).ok());
    String::from_utf8_lossy(name.unwrap_or_default()).into()
}

fn read_symbols(table: &SymbolTable<'_, Elf>) -> Result<Vec<InSymbol>, String> {
    let mut file: Option<Arc<str>> = None;
    let mut symbols = Vec::new();
    for (index, symbol) in table.enumerate() {
        let name = table
            .symbol_name(LE, symbol)
            .map_err(|error| format!("broken: symbol name: {error}"))?;
        let name: Arc<str> = String::from_utf8_lossy(name).into();
        let kind = symbol.st_type();
        if kind == elf::STT_FILE {
            file = (!name.is_empty()).then(|| Arc::clone(&name));
        }
        let section = table
            .symbol_section(LE, symbol, index)
            .map_err(|error| format!("broken: symbol section: {error}"))?;
        let value = symbol.st_value(LE);
        let place = match (symbol.st_shndx(LE), section) {
            (_, Some(SectionIndex(section))) => InPlace::In {
                section,
                offset: value,
            },
            // The first entry is empty, and relocations without a symbol name it.
            (elf::SHN_UNDEF, _) if index.0 == 0 => InPlace::Absolute(0),
            (elf::SHN_UNDEF, _) => InPlace::Undefined,
            (elf::SHN_ABS, _) => InPlace::Absolute(value),
            (elf::SHN_COMMON, _) => InPlace::Common {
                size: symbol.st_size(LE),
                align: value.max(1),
            },
            (other, _) => return Err(format!("symbol {name} is in section {:#x}", other.0)),
        };
        let local = symbol.st_bind() == elf::STB_LOCAL;
        symbols.push(InSymbol {
            name: name.split('@').next().unwrap_or(&name).into(),
            kind,
            local,
            weak: matches!(symbol.st_bind(), elf::STB_WEAK | elf::STB_GNU_UNIQUE),
            place,
            size: symbol.st_size(LE),
            file: file.clone().filter(|_| local),
        });
    }
    Ok(symbols)
}

fn read_relocations(
    object: &mut Object<'_>,
    header: &elf::SectionHeader64<object::LittleEndian>,
    data: &[u8],
) -> Result<(), String> {
    let target = header.sh_info(LE) as usize;
    let wrong = header.sh_type(LE) == elf::SHT_REL;
    let Some(Some(section)) = object.sections.get_mut(target) else {
        return Ok(());
    };
    if wrong {
        return Err(format!(
            "section {} has relocations without addends",
            section.name
        ));
    }
    let Some((relocations, _)) = header
        .rela(LE, data)
        .map_err(|error| format!("broken: relocations: {error}"))?
    else {
        return Ok(());
    };
    for relocation in relocations {
        let relocation = Crel::from_rela(relocation, LE, false);
        let symbol = relocation.symbol().map_or(0, |symbol| symbol.0);
        if symbol >= object.symbols.len() {
            let name = &section.name;
            return Err(format!(
                "broken: a relocation of {name} names symbol {symbol}"
            ));
        }
        section.relocations.push(Relocation {
            offset: relocation.r_offset,
            kind: relocation.r_type,
            symbol,
            addend: relocation.r_addend,
        });
    }
    Ok(())
}
