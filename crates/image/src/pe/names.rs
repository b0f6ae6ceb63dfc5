//! Imports and exports.

use object::read::pe::ExportTable;

use super::error::{broken, outside};
use super::headers::directory;
use super::{PeError, PeImage};
use crate::Rva;

/// A symbol of another library.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImportedSymbol {
    /// By name.
    Name(String),
    /// By number.
    Ordinal(u16),
}

/// One slot that the loader fills with a symbol's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thunk {
    /// The slot in the import address table.
    pub slot: Rva,
    /// What it is filled with.
    pub symbol: ImportedSymbol,
}

/// What is wanted of one library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedLibrary {
    /// Its file name.
    pub name: String,
    /// True if it is loaded at the first call only.
    pub delayed: bool,
    /// What is wanted of it.
    pub thunks: Vec<Thunk>,
}

/// What is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeExport {
    /// Its number.
    pub ordinal: u16,
    /// Its names; one that is exported by number alone has none.
    pub names: Vec<String>,
    /// Where it is; `None` if it is forwarded.
    pub at: Option<Rva>,
    /// `LIBRARY.symbol`, if it is forwarded.
    pub forward: Option<String>,
}

/// How many bytes of names may still be read: descriptors and thunks may
/// share names, so a small file could ask for any number of copies.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn of(file: &[u8]) -> Budget {
        Budget(file.len().saturating_mul(4))
    }

    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), PeError> {
        // What holds the name costs memory too.
        let cost = bytes.saturating_add(32);
        self.0 = self.0.checked_sub(cost).ok_or_else(|| {
            PeError::Inconsistent("more names than a file of this size can hold".to_owned())
        })?;
        Ok(())
    }
}

fn name_at(image: &PeImage, at: Rva, budget: &mut Budget) -> Result<String, PeError> {
    let bytes = image.text(at).ok_or_else(|| outside("a name", at))?;
    budget.spend(bytes.len())?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

pub(super) fn read_imports(image: &PeImage) -> Result<Vec<ImportedLibrary>, PeError> {
    let mut libraries = Vec::new();
    let mut budget = Budget::of(&image.file);
    if let Some(found) = image.directory(directory::IMPORT) {
        // The loader ignores the directory's size: an entry of zeros is the end.
        let mut at = found.at;
        loop {
            let [names, _, _, name, slots] = descriptor::<5>(image, at)?;
            if name == 0 || slots == 0 {
                break;
            }
            let names = if names == 0 { slots } else { names };
            libraries.push(library(image, &mut budget, [name, names, slots], false)?);
            at = next(at, 20)?;
        }
    }
    if let Some(found) = image.directory(directory::DELAY_IMPORT) {
        let mut at = found.at;
        loop {
            let [attributes, name, _, slots, names, ..] = descriptor::<8>(image, at)?;
            if name == 0 {
                break;
            }
            // Before Visual C++ 7 these were addresses, not relative to the image.
            if attributes & 1 == 0 {
                return Err(PeError::Unsupported(
                    "a delay-load table with absolute addresses".to_owned(),
                ));
            }
            libraries.push(library(image, &mut budget, [name, names, slots], true)?);
            at = next(at, 32)?;
        }
    }
    Ok(libraries)
}

fn next(at: Rva, bytes: u64) -> Result<Rva, PeError> {
    at.checked_add(bytes).ok_or_else(|| outside("imports", at))
}

fn descriptor<const N: usize>(image: &PeImage, at: Rva) -> Result<[u32; N], PeError> {
    let mut words = [0; N];
    for (index, word) in (0u64..).zip(&mut words) {
        let place = next(at, index * 4)?;
        *word = image
            .word(place)
            .ok_or_else(|| outside("an import descriptor", at))?;
    }
    Ok(words)
}

fn library(
    image: &PeImage,
    budget: &mut Budget,
    [name, names, slots]: [u32; 3],
    delayed: bool,
) -> Result<ImportedLibrary, PeError> {
    let name = name_at(image, Rva(name.into()), budget)?;
    let width = u64::from(image.machine.pointer_size());
    let by_number = 1u64 << (width * 8 - 1);
    let mut thunks = Vec::new();
    for index in 0u64.. {
        let at = next(Rva(names.into()), index * width)?;
        let slot = next(Rva(slots.into()), index * width)?;
        let value = image
            .pointer(at)
            .ok_or_else(|| outside("an import name table", at))?;
        if value == 0 {
            break;
        }
        let symbol = if value & by_number != 0 {
            budget.spend(0)?;
            let number = u16::try_from(value & !by_number)
                .map_err(|_| PeError::Inconsistent(format!("import number {value:#x}")))?;
            ImportedSymbol::Ordinal(number)
        } else {
            // Two bytes before a name are a hint where the library has it.
            ImportedSymbol::Name(name_at(image, next(Rva(value), 2)?, budget)?)
        };
        if image.pointer(slot).is_none() {
            return Err(outside("an import slot", slot));
        }
        thunks.push(Thunk { slot, symbol });
    }
    Ok(ImportedLibrary {
        name,
        delayed,
        thunks,
    })
}

pub(super) fn read_exports(image: &PeImage) -> Result<Vec<PeExport>, PeError> {
    let Some(found) = image.directory(directory::EXPORT) else {
        return Ok(Vec::new());
    };
    let data = image
        .bytes(found.at, found.size.into())
        .ok_or_else(|| outside("the export directory", found.at))?;
    let base = u32::try_from(found.at.0).map_err(|_| outside("the export directory", found.at))?;
    let table = ExportTable::parse(data, base).map_err(broken("export directory"))?;
    let mut budget = Budget::of(&image.file);
    let mut exports = Vec::new();
    for (_, ordinal, address) in table.address_iter() {
        budget.spend(0)?;
        let forward = if table.is_forward(address) {
            Some(name_at(image, Rva(address.into()), &mut budget)?)
        } else {
            None
        };
        exports.push(PeExport {
            ordinal: ordinal.0,
            names: Vec::new(),
            at: (forward.is_none() && address != 0).then_some(Rva(address.into())),
            forward,
        });
    }
    for (pointer, index) in table.name_iter() {
        let name = name_at(image, Rva(pointer.into()), &mut budget)?;
        let export = exports.get_mut(usize::from(index.0)).ok_or_else(|| {
            PeError::Inconsistent(format!("export {name} has no entry in the address table"))
        })?;
        export.names.push(name);
    }
    // Numbers that are not in use have neither a place nor a name.
    exports.retain(|export| export.at.is_some() || export.forward.is_some());
    Ok(exports)
}
