//! What an image wants of others: undefined dynamic symbols, and variables that the
//! loader copies into the image, with their versions.

use std::sync::Arc;

use object::elf;
use object::read::elf::{Crel, SectionHeader, SectionTable, Sym};
use object::read::{SectionIndex, SymbolIndex};

use super::{Elf, LE, broken};
use crate::ImageError;
use crate::model::{Image, Import};

pub(super) fn read(
    image: &mut Image,
    data: &[u8],
    table: &SectionTable<'_, Elf>,
) -> Result<(), ImageError> {
    let symbols = table
        .symbols(LE, data, elf::SHT_DYNSYM)
        .map_err(broken("dynamic symbols"))?;
    let undefined = symbols.enumerate().filter(|(_, symbol)| {
        let is_mark = symbol.st_type() == elf::STT_FILE || symbol.st_type() == elf::STT_SECTION;
        symbol.is_undefined(LE) && !is_mark && symbol.st_name(LE) != 0
    });
    let mut wanted: Vec<(SymbolIndex, bool)> = undefined.map(|(index, _)| (index, false)).collect();
    for header in table.iter() {
        if let Some((relocations, link)) = header.rela(LE, data).map_err(broken("relocations"))?
            && link == symbols.section()
            && link != SectionIndex(0)
        {
            let copies = relocations
                .iter()
                .map(|relocation| Crel::from_rela(relocation, LE, false))
                .filter(|relocation| relocation.r_type == elf::R_X86_64_COPY);
            wanted.extend(copies.filter_map(|copy| Some((copy.symbol()?, true))));
        }
    }
    let versions = table
        .versions(LE, data)
        .map_err(broken("symbol versions"))?
        .unwrap_or_default();
    let text = |bytes: &[u8]| -> Arc<str> { String::from_utf8_lossy(bytes).into() };
    for (index, copied) in wanted {
        let symbol = symbols.symbol(index).map_err(broken("imported symbol"))?;
        let name = symbols
            .symbol_name(LE, symbol)
            .map_err(broken("symbol name"))?;
        let version = versions
            .version(versions.version_index(LE, index).index())
            .map_err(broken("symbol version"))?;
        image.imports.insert(Import {
            name: text(name),
            version: version.and_then(|v| Some((text(v.name()), text(v.file()?)))),
            copied,
        });
    }
    Ok(())
}
