//! Symbols: the full table where there is one, the dynamic one otherwise.

use std::collections::HashSet;
use std::sync::Arc;

use object::elf;
use object::read::SectionIndex;
use object::read::elf::{SectionHeader, SectionTable, Sym, SymbolTable};

use super::{Elf, LE, broken};
use crate::model::{Binding, Entity, EntityKind, Image, SectionKind, Symbol, SymbolKind};
use crate::{AddressIndex, ImageError, LinkAddr};

/// A file with its section headers.
type File<'d, 't> = (&'d [u8], &'t SectionTable<'d, Elf>);

/// Reads the symbols into entities: the exported ones from the image, all others from
/// the file that has the full table, which is the image itself or its debug file.
pub(super) fn read(
    image: &mut Image,
    (own, own_table): File<'_, '_>,
    (named, named_table): File<'_, '_>,
) -> Result<(), ImageError> {
    let full = named_table
        .symbols(LE, named, elf::SHT_SYMTAB)
        .map_err(broken("symbol table"))?;
    let dynamic = own_table
        .symbols(LE, own, elf::SHT_DYNSYM)
        .map_err(broken("dynamic symbols"))?;
    let mut symbols = Vec::new();
    collect(image, own_table, &dynamic, true, &mut symbols)?;
    collect(image, named_table, &full, false, &mut symbols)?;
    // An exported symbol stands in both tables; the first one, which says so, stays.
    let mut seen = HashSet::new();
    symbols.retain(|(symbol, section)| {
        seen.insert((Arc::clone(&symbol.name), symbol.addr, symbol.kind, *section))
    });
    image.has_symbols = !full.is_empty();
    image.names_locals = symbols.iter().any(|(symbol, _)| {
        symbol.kind == SymbolKind::Object && symbol.binding == Binding::Local && symbol.size > 0
    });
    image.thread_locals.clear();
    image.edges.clear();
    for (symbol, _) in symbols
        .iter()
        .filter(|(s, _)| s.kind == SymbolKind::ThreadLocal)
    {
        image.thread_locals.push(symbol.clone());
    }
    image
        .thread_locals
        .sort_by(|a, b| (a.addr, &a.name).cmp(&(b.addr, &b.name)));
    image
        .thread_locals
        .dedup_by(|a, b| a.addr == b.addr && a.name == b.name);
    gather(image, symbols.into_iter().map(|(symbol, _)| symbol));
    Ok(())
}

fn collect(
    image: &Image,
    sections: &SectionTable<'_, Elf>,
    table: &SymbolTable<'_, Elf>,
    exported: bool,
    into: &mut Vec<(Symbol, usize)>,
) -> Result<(), ImageError> {
    let mut file: Option<Arc<str>> = None;
    for (index, symbol) in table.enumerate() {
        let name = table
            .symbol_name(LE, symbol)
            .map_err(broken("symbol name"))?;
        let name = String::from_utf8_lossy(name);
        if symbol.st_type() == elf::STT_FILE {
            // An empty file name ends the symbols of a file: what follows is the linker's own.
            file = (!name.is_empty()).then(|| name.into());
            continue;
        }
        let section = table
            .symbol_section(LE, symbol, index)
            .map_err(broken("symbol section"))?;
        let Some(SectionIndex(section)) = section else {
            continue;
        };
        // What is not loaded has no address: link-time optimization leaves a mark for the debug
        // data of each file (`table.c.7317d117`), whose value is a place in `.debug_info`.
        // BOLT leaves symbols of sections that are gone.
        let header = sections.section(SectionIndex(section));
        if header.is_ok_and(|header| !header.sh_flags(LE).contains(elf::SHF_ALLOC)) {
            continue;
        }
        let addr = LinkAddr(symbol.st_value(LE));
        // The compiler's own labels (`.LC14` for a text) say nothing about what a constant
        // is or where it ends. Assemblers leave them out; where texts are merged, they
        // cannot, and mold keeps them.
        let label = name.starts_with(".L") && symbol.st_bind() == elf::STB_LOCAL;
        // Wild gives every machine the mark that only RISC-V's code counts from.
        let mark = name == "__global_pointer$";
        if symbol.is_undefined(LE) || name.is_empty() || label || mark {
            continue;
        }
        let holder = image.section_at(addr);
        let held = holder.map(|s| s.kind);
        // mold names what it makes: `puts$got`, `puts$plt`. What the loader writes there
        // says it for every linker.
        let of_linker = name.contains('$')
            && symbol.st_bind() == elf::STB_LOCAL
            && holder.is_some_and(|s| s.kind == SectionKind::Got || s.name.starts_with(".plt"));
        if of_linker {
            continue;
        }
        let kind = match symbol.st_type() {
            elf::STT_FUNC => SymbolKind::Function,
            elf::STT_GNU_IFUNC => SymbolKind::Resolver,
            elf::STT_TLS => SymbolKind::ThreadLocal,
            elf::STT_OBJECT => SymbolKind::Object,
            // Assembly often leaves its symbols untyped; the section says what they are.
            elf::STT_NOTYPE => match held {
                Some(SectionKind::Text) => SymbolKind::Function,
                Some(_) | None => SymbolKind::Object,
            },
            _ => continue,
        };
        let local = symbol.st_bind() == elf::STB_LOCAL;
        into.push((
            Symbol {
                name: name.split('@').next().unwrap_or(&name).into(),
                addr,
                size: symbol.st_size(LE),
                kind,
                binding: if local {
                    Binding::Local
                } else {
                    Binding::Global
                },
                file: file.clone().filter(|_| local),
                exported,
                weak: matches!(symbol.st_bind(), elf::STB_WEAK | elf::STB_GNU_UNIQUE),
            },
            section,
        ));
    }
    Ok(())
}

/// Puts all names of one address together.
pub(crate) fn gather(image: &mut Image, symbols: impl Iterator<Item = Symbol>) {
    let mut places: Vec<(LinkAddr, EntityKind, Symbol)> = Vec::new();
    for symbol in symbols {
        let kind = match symbol.kind {
            SymbolKind::Function => EntityKind::Function,
            SymbolKind::Resolver => EntityKind::Resolver,
            SymbolKind::Object => EntityKind::Object,
            SymbolKind::ThreadLocal => continue,
        };
        // The linker's edge marks (`_end`, `__bss_start`) are places, not objects,
        // but only code that asks for them by address can see them: they stay
        // entities of size zero.
        if image.section_at(symbol.addr).is_none() {
            image
                .edges
                .entry(symbol.addr)
                .or_default()
                .push(symbol.name);
        } else {
            places.push((symbol.addr, kind, symbol));
        }
    }
    places.sort_by_key(|(addr, kind, _)| (*addr, *kind));
    let mut places = places.into_iter().peekable();
    image.entities = Vec::new();
    while let Some((addr, kind, first)) = places.next() {
        // Most have one name, and there are hundreds of thousands: no room for more than that.
        let mut names = Vec::with_capacity(1);
        names.push(first);
        while let Some((_, _, symbol)) = places.next_if(|next| (next.0, next.1) == (addr, kind)) {
            names.push(symbol);
        }
        names.shrink_to_fit();
        names.sort_by(|a, b| {
            let sized = |s: &Symbol| s.size == 0;
            (sized(a), a.binding, a.name.len(), &a.name).cmp(&(
                sized(b),
                b.binding,
                b.name.len(),
                &b.name,
            ))
        });
        let size = names.iter().map(|s| s.size).max().unwrap_or(0);
        image.entities.push(Entity {
            addr,
            size,
            kind,
            names,
        });
    }
    image.entities.shrink_to_fit();
    image.starts = image.entities.iter().map(|entity| entity.addr).collect();
    image.starts_index = AddressIndex::new(&image.starts);
}
