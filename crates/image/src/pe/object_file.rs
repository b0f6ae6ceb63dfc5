//! Object files of compilers for Windows (`.obj`), as far as hot patching is concerned: the records
//! that LLVM's linker leaves out of PDB files, and the pointers that the compiler made.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ms_codeview::syms::{Proc, SymData, SymIter, SymKind};
use object::read::coff::{CoffBigFile, CoffFile, CoffHeader, Symbol as _};
use object::{
    FileKind, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolIndex,
    SymbolKind, pe,
};

use super::names::Budget;
use super::{PeError, referenced};
use crate::model::Machine;

/// A pointer to a variable that a hot-patch compiler made: the linker takes the default, unless
/// another object file has the pointer, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeakReference {
    /// `__ref_` (`___ref_` for x86) and the variable.
    pub name: String,
    /// The symbol that is taken by default.
    pub default: String,
}

/// What an object file tells about hot patching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotPatchObject {
    /// What it is compiled for.
    pub machine: Machine,
    /// Functions that were compiled for it (`S_HOTPATCHFUNC`), by linkage name.
    pub functions: Vec<String>,
    /// Pointers to variables.
    pub references: Vec<WeakReference>,
    /// What debug data call a function, and by what names compiler and linker know those that are
    /// called so: of functions of one file a PDB file has the first alone.
    pub linkage: BTreeMap<String, BTreeSet<String>>,
}

fn broken(error: impl std::fmt::Display) -> PeError {
    PeError::Inconsistent(format!("the object file: {error}"))
}

impl HotPatchObject {
    /// Reads an object file, one with more than 65,535 sections (`/bigobj`) too.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(file: &[u8]) -> Result<HotPatchObject, PeError> {
        if let Ok(FileKind::CoffBig) = FileKind::parse(file) {
            let coff: CoffBigFile<'_> = CoffBigFile::parse(file).map_err(broken)?;
            return HotPatchObject::read(file, &coff);
        }
        let coff: CoffFile<'_> = CoffFile::parse(file).map_err(broken)?;
        HotPatchObject::read(file, &coff)
    }

    fn read<'f, C: CoffHeader>(
        file: &'f [u8],
        coff: &CoffFile<'f, &'f [u8], C>,
    ) -> Result<HotPatchObject, PeError> {
        let machine = match coff.coff_header().machine() {
            pe::IMAGE_FILE_MACHINE_I386 => Machine::X86,
            pe::IMAGE_FILE_MACHINE_ARM64 => Machine::Aarch64,
            _ => Machine::X86_64,
        };
        let mut found = HotPatchObject {
            machine,
            functions: Vec::new(),
            references: Vec::new(),
            linkage: BTreeMap::new(),
        };
        // Sections may lie over each other, and symbols may share names, so a small file could ask for any
        // number of copies.
        let mut budget = Budget::of(file);
        for section in coff.sections() {
            if section.name_bytes() == Ok(b".debug$S") {
                // What records say of places is left to the linker.
                let mut places = HashMap::new();
                for (at, relocation) in section.relocations() {
                    budget.spend(size_of::<pe::ImageRelocation>())?;
                    if let (Ok(at), RelocationTarget::Symbol(index)) =
                        (usize::try_from(at), relocation.target())
                    {
                        places.insert(at, index);
                    }
                }
                let bytes = section.data().map_err(broken)?;
                budget.spend(bytes.len())?;
                let name = |index: SymbolIndex| {
                    let symbol = coff.symbol_by_index(index).ok()?;
                    if symbol.kind() == SymbolKind::Section {
                        return None;
                    }
                    symbol.name().ok()
                };
                let place = |at: usize| places.get(&at).and_then(|index| name(*index));
                found.symbols(bytes, &place, &mut budget)?;
            }
        }
        let table = coff.coff_symbol_table();
        for (index, symbol) in table.iter() {
            if symbol.storage_class() != pe::IMAGE_SYM_CLASS_WEAK_EXTERNAL {
                continue;
            }
            let name = symbol.name(table.strings()).map_err(broken)?;
            budget.spend(name.len())?;
            let name = String::from_utf8_lossy(name).into_owned();
            if referenced(machine, &name).is_none() {
                continue;
            }
            let default = table.aux_weak_external(index).map_err(broken)?;
            let default = default.default_symbol();
            let default = table
                .symbol(default)
                .and_then(|symbol| symbol.name(table.strings()))
                .map_err(broken)?;
            budget.spend(default.len())?;
            found.references.push(WeakReference {
                name,
                default: String::from_utf8_lossy(default).into_owned(),
            });
        }
        Ok(found)
    }

    /// Reads a section `.debug$S`: a signature, and then parts with a kind and a length each.
    /// `place` tells the symbol that a place of the section is bound to.
    fn symbols<'f>(
        &mut self,
        bytes: &[u8],
        place: &dyn Fn(usize) -> Option<&'f str>,
        budget: &mut Budget,
    ) -> Result<(), PeError> {
        /// Bytes of a record's length and kind, and where a function's has its place.
        const HEAD: usize = 4;
        const PLACE: usize = HEAD + 28;
        const SIGNATURE: u32 = 4;
        const SYMBOLS: u32 = 0xf1;
        let word = |at: usize| {
            let held = bytes.get(at..)?.first_chunk();
            held.map(|word| u32::from_le_bytes(*word))
        };
        if word(0) != Some(SIGNATURE) {
            return Ok(());
        }
        let mut at = 4;
        while let (Some(kind), Some(length)) = (word(at), word(at + 4)) {
            let start = at + 8;
            let Some(part) = bytes.get(start..start + length as usize) else {
                return Ok(());
            };
            if kind == SYMBOLS {
                // In object files the records begin at once.
                let mut record = start;
                for symbol in SymIter::new(part) {
                    // With numbers of items, not of types: the library knows these records by the
                    // name that linkers give them alone.
                    let is_function = matches!(
                        symbol.kind,
                        SymKind::S_GPROC32
                            | SymKind::S_LPROC32
                            | SymKind::S_GPROC32_ID
                            | SymKind::S_LPROC32_ID
                    );
                    if is_function {
                        let name = place(record + PLACE);
                        if let (Ok(function), Some(name)) = (symbol.parse_as::<Proc<'_>>(), name) {
                            budget.spend(name.len())?;
                            let called = self.linkage.entry(function.name.to_string());
                            called.or_default().insert(name.to_owned());
                        }
                    } else if let Ok(SymData::HotPatchFunc(function)) = symbol.parse() {
                        self.functions.push(function.name.to_string());
                    }
                    record += HEAD + symbol.data.len();
                }
            }
            at = (start + length as usize).next_multiple_of(4);
        }
        Ok(())
    }
}
