//! Names for places in the process's code, from the symbol tables of its files.

use invivo_image::{LiveAddr, demangle};
use object::elf::{self, FileHeader64, Sym64};
use object::read::elf::{FileHeader, Sym};
use object::{LittleEndian, read::elf::SymbolTable};

use crate::Process;
use crate::modules::Loaded;

type Elf = FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

impl Process {
    /// What lies at each of `frames`; all but the first are return addresses, which
    /// may stand behind the last byte of their function.
    pub(crate) fn names_of(&self, frames: &[LiveAddr]) -> Vec<Option<String>> {
        let mut names = vec![None; frames.len()];
        let (Ok(loaded), Ok(maps)) = (self.loaded(), self.maps()) else {
            return names;
        };
        for image in &loaded {
            let start = image.start();
            let inside: Vec<(usize, u64)> = (0..)
                .zip(frames)
                .filter(|(_, at)| (start..image.end.0).contains(&at.0))
                .map(|(n, at)| (n, at.0.wrapping_sub(u64::from(n > 0))))
                .collect();
            if inside.is_empty() {
                continue;
            }
            // What cannot be read has no names; the image's own is still known.
            let bytes = self.file_of(&maps, image).unwrap_or_default();
            for (n, at) in inside {
                names[n] = Some(place(&bytes, image, at, frames[n].0));
            }
        }
        names
    }
}

/// `read+0x1a in libc.so.6`, or `libc.so.6+0x1234` where no symbol covers it.
fn place(bytes: &[u8], image: &Loaded, at: u64, shown: u64) -> String {
    let file = image.path.trim_end_matches(" (deleted)");
    let file = file.rsplit('/').next().unwrap_or(file);
    let link = |live: u64| live.wrapping_sub(image.bias);
    match symbol(bytes, link(at)) {
        Some((name, start)) => {
            let offset = link(shown).wrapping_sub(start);
            format!("{}+{offset:#x} in {file}", demangle(&name))
        }
        None => format!("{file}+{:#x}", link(shown)),
    }
}

/// The function that covers a link address, and where it starts.
fn symbol(bytes: &[u8], at: u64) -> Option<(String, u64)> {
    let header = Elf::parse(bytes).ok()?;
    let sections = header.sections(LE, bytes).ok()?;
    [elf::SHT_SYMTAB, elf::SHT_DYNSYM]
        .into_iter()
        .find_map(|kind| {
            let table: SymbolTable<'_, Elf> = sections.symbols(LE, bytes, kind).ok()?;
            let covers = |symbol: &&Sym64<LittleEndian>| {
                let (start, size) = (symbol.st_value(LE), symbol.st_size(LE));
                symbol.st_type() == elf::STT_FUNC && at.checked_sub(start).is_some_and(|n| n < size)
            };
            let symbol = table.iter().find(covers)?;
            let name = table.symbol_name(LE, symbol).ok()?;
            Some((
                String::from_utf8_lossy(name).into_owned(),
                symbol.st_value(LE),
            ))
        })
}
