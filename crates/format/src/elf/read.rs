//! File → model. The file is hostile: its digest is checked before anything in it
//! is believed, and the model's invariants after.

use std::collections::HashMap;
use std::ops::Range;

use invivo_patch::{
    Contents, Hex, Patch, Relocation, RelocationKind, Section, SectionKind, Symbol, SymbolPlace,
};
use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::SectionIndex;
use object::read::elf::{Crel, FileHeader, SectionHeader, SectionTable, Sym};

use super::manifest::{Form, Manifest, VERSION};
use super::{MANIFEST, PatchError};
use crate::digest;

type Elf = FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

fn broken(what: &'static str) -> impl Fn(object::read::Error) -> PatchError {
    move |error| PatchError::Broken(format!("{what}: {error}"))
}

/// Reads a patch and checks all that can be checked without its base.
///
/// # Errors
/// When the file is no patch, was changed since it was made, or breaks an
/// invariant of the model.
pub fn read(file: &[u8]) -> Result<Patch, PatchError> {
    let table = sections(file)?;
    let place = digest_range(file)?;
    let expected = digest::of(file, &place).expect("the place is in the file");
    let found = Hex(file[place].to_vec());
    if expected != found {
        let (expected, found) = (expected.to_string(), found.to_string());
        return Err(PatchError::Damaged { expected, found });
    }
    let manifest = read_manifest(&table, file)?;
    let (sections, numbers) = read_sections(&table, file)?;
    let (symbols, first) = read_symbols(&table, file, &numbers, &manifest)?;
    let mut contents = Contents { sections, symbols };
    read_relocations(&table, file, &numbers, first, &mut contents)?;
    let patch = Patch {
        identity: manifest.identity,
        target: manifest.target,
        order: manifest.order,
        judgements: manifest.judgements,
        redirects: manifest.redirects,
        checks: manifest.checks,
        callouts: manifest.callouts,
        contents,
    };
    patch
        .validate()
        .map_err(|error| PatchError::Broken(error.to_string()))?;
    Ok(patch)
}

fn sections(file: &[u8]) -> Result<SectionTable<'_, Elf>, PatchError> {
    let header = Elf::parse(file).map_err(|error| PatchError::NotAPatch(error.to_string()))?;
    if header.e_type(LE) != elf::ET_REL {
        return Err(PatchError::NotAPatch(
            "it is an ELF file, but not a relocatable one".to_owned(),
        ));
    }
    if header.e_machine(LE) != elf::EM_X86_64 {
        return Err(PatchError::Machine(header.e_machine(LE).0));
    }
    header.sections(LE, file).map_err(broken("section headers"))
}

/// Where the digest stands in the file.
pub(super) fn digest_range(file: &[u8]) -> Result<Range<usize>, PatchError> {
    let table = sections(file)?;
    let section = table.section_by_name(LE, digest::NAME.as_bytes());
    section
        .and_then(|(_, header)| digest::place(file, header.file_range(LE)?))
        .ok_or_else(|| PatchError::NotAPatch(format!("it has no section {}", digest::NAME)))
}

fn read_manifest(table: &SectionTable<'_, Elf>, file: &[u8]) -> Result<Manifest, PatchError> {
    let missing = || PatchError::NotAPatch(format!("it has no section {MANIFEST}"));
    let (_, header) = table
        .section_by_name(LE, MANIFEST.as_bytes())
        .ok_or_else(missing)?;
    let bytes = header.data(LE, file).map_err(broken("manifest"))?;
    let json = |error: serde_json::Error| PatchError::Broken(format!("manifest: {error}"));
    let form: Form = serde_json::from_slice(bytes).map_err(json)?;
    if form.version != VERSION {
        return Err(PatchError::Version(form.version));
    }
    serde_json::from_slice(bytes).map_err(json)
}

type Numbers = HashMap<SectionIndex, u32>;

fn read_sections(
    table: &SectionTable<'_, Elf>,
    file: &[u8],
) -> Result<(Vec<Section>, Numbers), PatchError> {
    let mut sections = Vec::new();
    let mut numbers = Numbers::new();
    for (index, header) in table.enumerate() {
        let flags = header.sh_flags(LE);
        if index == SectionIndex(0) || !flags.contains(elf::SHF_ALLOC) {
            continue;
        }
        let name = table
            .section_name(LE, header)
            .map_err(broken("section name"))?;
        let name = String::from_utf8(name.to_vec())
            .map_err(|_| PatchError::Broken(format!("the name of section {}", index.0)))?;
        let kind = if flags.contains(elf::SHF_EXECINSTR) {
            SectionKind::Text
        } else if flags.contains(elf::SHF_WRITE) {
            SectionKind::Data
        } else if name == ".eh_frame" {
            SectionKind::Unwind
        } else {
            SectionKind::ReadOnly
        };
        if header.sh_type(LE) != elf::SHT_PROGBITS {
            return Err(PatchError::Broken(format!(
                "section {name} has an unexpected type"
            )));
        }
        let bytes = header
            .data(LE, file)
            .map_err(broken("section data"))?
            .to_vec();
        numbers.insert(index, number(sections.len())?);
        let align = header.sh_addralign(LE).max(1);
        sections.push(Section {
            name,
            kind,
            align,
            bytes,
            relocations: Vec::new(),
        });
    }
    Ok((sections, numbers))
}

fn number(value: usize) -> Result<u32, PatchError> {
    u32::try_from(value).map_err(|_| PatchError::Broken("too many parts".to_owned()))
}

/// The symbols, and the number of the first one in the file's own table.
fn read_symbols(
    table: &SectionTable<'_, Elf>,
    file: &[u8],
    numbers: &Numbers,
    manifest: &Manifest,
) -> Result<(Vec<Symbol>, usize), PatchError> {
    let symbols = table
        .symbols(LE, file, elf::SHT_SYMTAB)
        .map_err(broken("symbol table"))?;
    let mut bindings = manifest.bindings.iter();
    let mut imports = manifest.imports.iter();
    let mut read = Vec::new();
    const FIRST: usize = 1;
    for (index, symbol) in symbols.enumerate().skip(FIRST) {
        let name = symbols
            .symbol_name(LE, symbol)
            .map_err(broken("symbol name"))?;
        let name = String::from_utf8(name.to_vec())
            .map_err(|_| PatchError::Broken(format!("the name of symbol {}", index.0)))?;
        let place = if symbol.is_undefined(LE) {
            let base = bindings.next().map(|at| SymbolPlace::Base(*at));
            let place = base.or_else(|| Some(SymbolPlace::Import(imports.next()?.clone())));
            place.ok_or_else(|| {
                PatchError::Broken(format!("symbol {name} has no place outside the patch"))
            })?
        } else {
            let section = symbols
                .symbol_section(LE, symbol, index)
                .map_err(broken("symbol"))?;
            let section = section.and_then(|section| numbers.get(&section)).copied();
            SymbolPlace::Patch {
                section: section.ok_or_else(|| {
                    PatchError::Broken(format!("symbol {name} is in no section of the patch"))
                })?,
                offset: symbol.st_value(LE),
                size: symbol.st_size(LE),
            }
        };
        read.push(Symbol { name, place });
    }
    if bindings.next().is_some() || imports.next().is_some() {
        return Err(PatchError::Broken(
            "more bindings or imports than undefined symbols".to_owned(),
        ));
    }
    Ok((read, FIRST))
}

fn read_relocations(
    table: &SectionTable<'_, Elf>,
    file: &[u8],
    numbers: &Numbers,
    first: usize,
    contents: &mut Contents,
) -> Result<(), PatchError> {
    for header in table.iter() {
        let Some((relocations, _)) = header.rela(LE, file).map_err(broken("relocations"))? else {
            continue;
        };
        let section = numbers.get(&header.info_link(LE)).copied();
        let section = section
            .and_then(|section| contents.sections.get_mut(section as usize))
            .ok_or_else(|| PatchError::Broken("relocations of no section".to_owned()))?;
        for relocation in relocations {
            let relocation = Crel::from_rela(relocation, LE, false);
            let kind = match relocation.r_type {
                elf::R_X86_64_PC32 => RelocationKind::Relative32,
                elf::R_X86_64_64 => RelocationKind::Absolute64,
                elf::R_X86_64_32 => RelocationKind::Absolute32,
                elf::R_X86_64_32S => RelocationKind::Absolute32Signed,
                other => {
                    let text = format!("section {}: relocation type {}", section.name, other.0);
                    return Err(PatchError::Broken(text));
                }
            };
            let symbol = relocation
                .symbol()
                .and_then(|symbol| symbol.0.checked_sub(first));
            let symbol = symbol.ok_or_else(|| {
                PatchError::Broken(format!(
                    "section {}: relocation without a symbol",
                    section.name
                ))
            })?;
            section.relocations.push(Relocation {
                offset: relocation.r_offset,
                kind,
                symbol: number(symbol)?,
                addend: relocation.r_addend,
            });
        }
    }
    Ok(())
}
