//! Dynamic relocations: what the loader writes where; and the linker's own
//! relocations, where it kept them.

use std::sync::Arc;

use object::elf;
use object::read::elf::{Crel, Dyn, SectionHeader, SectionTable, Sym, SymbolTable};

use super::{Elf, LE, broken};
use crate::model::{Image, SectionKind, Slot};
use crate::{ImageError, LinkAddr};

pub(super) fn read(
    image: &mut Image,
    data: &[u8],
    table: &SectionTable<'_, Elf>,
) -> Result<(), ImageError> {
    let mut tables: Vec<(LinkAddr, Vec<LinkAddr>)> = Vec::new();
    let mut lazy_table = None;
    for header in table.iter() {
        let allocated = header.sh_flags(LE).contains(elf::SHF_ALLOC);
        if let Some((relocations, link)) = header.rela(LE, data).map_err(broken("relocations"))? {
            // Static programs have IRELATIVE relocations and no symbol table for them.
            let symbols = table
                .symbol_table_by_index(LE, data, link)
                .unwrap_or_default();
            if allocated {
                let places = relocations.iter().map(|r| LinkAddr(r.r_offset.get(LE)));
                tables.push((LinkAddr(header.sh_addr(LE)), places.collect()));
            }
            for relocation in relocations {
                let relocation = Crel::from_rela(relocation, LE, false);
                if allocated {
                    if relocation.r_type == elf::R_X86_64_NONE {
                        continue;
                    }
                    let place = LinkAddr(relocation.r_offset);
                    // A copied variable has its own size, all else is a word.
                    let copy = relocation.r_type == elf::R_X86_64_COPY;
                    if !is_writable(image, place, if copy { 1 } else { 8 }) {
                        return Err(outside(place));
                    }
                    image.slots.insert(place, slot(&relocation, &symbols)?);
                } else {
                    keep_code_relocation(image, &relocation, &symbols);
                }
            }
        }
        if let Some(relocations) = header
            .relr(LE, data)
            .map_err(broken("packed relocations"))?
        {
            for place in relocations {
                let place = LinkAddr(place);
                let value = image
                    .bytes(place, 8)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(u64::from_le_bytes)
                    .ok_or_else(|| outside(place))?;
                image.slots.insert(place, Slot::Pointer(LinkAddr(value)));
            }
        }
        if let Ok(Some((entries, link))) = header.dynamic(LE, data) {
            let strings = table.strings(LE, data, link).unwrap_or_default();
            let marks = entries.iter().filter(|e| e.d_tag(LE) == elf::DT_FLAGS_1);
            let program = elf::DF_1_PIE.0;
            image.is_library &= marks.fold(0, |all, e| all | e.d_val(LE)) & program == 0;
            for entry in entries {
                let value = entry.d_val(LE);
                match entry.d_tag(LE) {
                    elf::DT_PLTGOT => image.lazy.table = Some(LinkAddr(value)),
                    elf::DT_JMPREL => lazy_table = Some(LinkAddr(value)),
                    elf::DT_BIND_NOW => image.lazy.never = true,
                    elf::DT_FLAGS => {
                        image.lazy.never |= value & elf::DF_BIND_NOW.0 != 0;
                    }
                    elf::DT_FLAGS_1 => image.lazy.never |= value & elf::DF_1_NOW.0 != 0,
                    _ => {}
                }
                let tag = entry.d_tag(LE);
                if ![elf::DT_NEEDED, elf::DT_SONAME].contains(&tag) {
                    continue;
                }
                let name = u32::try_from(value)
                    .ok()
                    .and_then(|at| strings.get(at).ok())
                    .ok_or_else(|| ImageError::Inconsistent("a library has no name".to_owned()))?;
                let name = String::from_utf8_lossy(name).into_owned();
                if tag == elf::DT_NEEDED {
                    image.needed.push(name);
                } else {
                    image.soname = Some(name);
                }
            }
        }
    }
    let order = tables.into_iter().find(|(at, _)| Some(*at) == lazy_table);
    image.lazy.order = order.map(|(_, places)| places).unwrap_or_default();
    Ok(())
}

/// True if the loader can write `size` bytes at `place`.
fn is_writable(image: &Image, place: LinkAddr, size: u64) -> bool {
    let end = place.checked_add(size);
    image.segments.iter().any(|segment| {
        let inside =
            segment.range.contains(&place) && end.is_some_and(|end| end <= segment.range.end);
        segment.writable && inside
    })
}

fn outside(place: LinkAddr) -> ImageError {
    ImageError::Inconsistent(format!(
        "a relocation at {place} lies outside the data of the image"
    ))
}

fn slot(relocation: &Crel, symbols: &SymbolTable<'_, Elf>) -> Result<Slot, ImageError> {
    let addend = relocation.r_addend;
    let symbol = match relocation.symbol() {
        None => None,
        Some(index) => {
            let symbol = symbols
                .symbol(index)
                .map_err(broken("relocation's symbol"))?;
            let name = symbols
                .symbol_name(LE, symbol)
                .map_err(broken("symbol name"))?;
            let name: Arc<str> = String::from_utf8_lossy(name).into();
            let defined = (!symbol.is_undefined(LE)).then(|| symbol.st_value(LE));
            Some((name, defined))
        }
    };
    let name = || {
        symbol
            .as_ref()
            .map_or_else(|| "".into(), |(name, _)| Arc::clone(name))
    };
    let to_place = |value: u64| LinkAddr(value.wrapping_add_signed(addend));
    let kind = relocation.r_type;
    Ok(match kind {
        elf::R_X86_64_RELATIVE => Slot::Pointer(to_place(0)),
        elf::R_X86_64_IRELATIVE => Slot::Resolved(to_place(0)),
        elf::R_X86_64_64 | elf::R_X86_64_GLOB_DAT => match &symbol {
            // Another image may take the place of a symbol that is defined here,
            // so the name stays part of the meaning when it is exported.
            Some((name, _)) => Slot::Import(Arc::clone(name), addend),
            // By the letter a plain number, by the deed of some loaders an address.
            None => Slot::Unknown(kind.0),
        },
        elf::R_X86_64_JUMP_SLOT if addend == 0 => Slot::LazyImport(name()),
        elf::R_X86_64_DTPMOD64 => Slot::TlsModule(name()),
        elf::R_X86_64_DTPOFF64 => Slot::TlsOffset(name(), addend),
        elf::R_X86_64_TPOFF64 => Slot::TlsFromThreadPointer(name(), addend),
        elf::R_X86_64_COPY => Slot::Copy(name()),
        other => Slot::Unknown(other.0),
    })
}

/// `--emit-relocs`: absolute operands in code, which cannot be told from plain
/// numbers otherwise. Everything relative to the instruction is read from the
/// instruction itself.
fn keep_code_relocation(image: &mut Image, relocation: &Crel, symbols: &SymbolTable<'_, Elf>) {
    let place = LinkAddr(relocation.r_offset);
    if image
        .section_at(place)
        .is_none_or(|s| s.kind != SectionKind::Text)
    {
        return;
    }
    image.relocations_kept = true;
    let kind = relocation.r_type;
    if !matches!(
        kind,
        elf::R_X86_64_32 | elf::R_X86_64_32S | elf::R_X86_64_64
    ) {
        return;
    }
    let value = relocation
        .symbol()
        .and_then(|index| symbols.symbol(index).ok())
        .map_or(0, |symbol| symbol.st_value(LE));
    let target = value.wrapping_add_signed(relocation.r_addend);
    image.code_relocations.insert(place, target.cast_signed());
}
