//! Symbols, and the relocations that lead to them.

use super::super::file::{
    RawRelocation, RawSymbol, SHF_MERGE, SHN_ABS, SHN_COMMON, SHN_LORESERVE, SHN_UNDEF, SHT_REL,
    SHT_RELA, shown,
};
use super::super::model::{Payload, Reference, Relocation, RelocationKind, Symbol, SymbolPlace};
use super::super::{LivepatchError, Rule};
use super::{Reader, count, text, whole_entries};

impl Reader<'_> {
    pub(super) fn read_symbols(&mut self) -> Result<Vec<Symbol>, LivepatchError> {
        let mut symbols = Vec::new();
        self.symbols.push(None);
        for symbol in self.file.symbols.iter().skip(1) {
            let place = self.symbol_place(symbol)?;
            self.symbols.push(match place {
                Some(_) => Some(count(symbols.len())?),
                None => None,
            });
            if let Some(place) = place {
                let header = self.file.sections.get(usize::from(symbol.section));
                let is_merged = header.is_some_and(|header| header.flags & SHF_MERGE != 0);
                let name = match symbol.name {
                    // Xen does not know these by name, and the model has no such sections.
                    [b'.', b'L', ..] if is_merged => String::new(),
                    name => text(name)?,
                };
                symbols.push(Symbol { name, place });
            }
        }
        Ok(symbols)
    }

    /// Where a symbol is, if the model has it.
    fn symbol_place(&self, symbol: &RawSymbol<'_>) -> Result<Option<SymbolPlace>, LivepatchError> {
        let (number, name) = (symbol.section, || shown(symbol.name));
        let refuse = |rule, text: String| Err(LivepatchError::new(rule, text));
        match number {
            SHN_UNDEF => Ok(Some(SymbolPlace::Xen)),
            // A file's name, or a number, which has no address that could move.
            SHN_ABS => Ok(None),
            SHN_COMMON => refuse(Rule::X17, format!("{} is a common symbol", name())),
            SHN_LORESERVE.. => refuse(Rule::X19, format!("{} is in section {number:#x}", name())),
            _ if usize::from(number) >= self.file.sections.len() => {
                refuse(Rule::X20, format!("{} is in section {number}", name()))
            }
            _ => {
                let section = self.sections.get(&number.into());
                Ok(section.map(|section| SymbolPlace::Section {
                    section: *section,
                    offset: symbol.value,
                    size: symbol.size,
                }))
            }
        }
    }

    pub(super) fn read_relocations(&self, payload: &mut Payload) -> Result<(), LivepatchError> {
        for (number, target) in &self.sections {
            let name = payload.sections[*target as usize].name.clone();
            let mut found = Vec::new();
            for raw in self.relocations_of(*number)? {
                found.push(self.relocation(&raw, &name)?);
            }
            payload.sections[*target as usize].relocations = found.into_iter().flatten().collect();
        }
        Ok(())
    }

    /// All entries for one section, as they stand in the file.
    pub(super) fn relocations_of(
        &self,
        number: usize,
    ) -> Result<Vec<RawRelocation>, LivepatchError> {
        let sections = self.file.sections.iter();
        let for_it = sections.filter(|s| s.info as usize == number);
        let mut found = Vec::new();
        for section in for_it {
            match section.kind {
                SHT_REL if section.size > 0 => {
                    let text = format!("{} has no addends", section.shown());
                    return Err(LivepatchError::new(Rule::X22, text));
                }
                SHT_RELA if section.size > 0 => {
                    whole_entries(self.file, section)?;
                    found.extend(self.file.relocations(section));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn relocation(
        &self,
        raw: &RawRelocation,
        name: &str,
    ) -> Result<Option<Relocation>, LivepatchError> {
        let kind = match raw.kind {
            0 => return Ok(None),
            1 => RelocationKind::Absolute64,
            2 => RelocationKind::Relative32,
            4 => RelocationKind::Call32,
            other => {
                let text = format!(
                    "the relocation at {:#x} of {name} has the type {other}",
                    raw.offset
                );
                return Err(LivepatchError::new(Rule::X22, text));
            }
        };
        Ok(Some(Relocation {
            offset: raw.offset,
            kind,
            to: self.reference(raw, name)?,
        }))
    }

    /// What a relocation leads to, in the numbers of the model.
    pub(super) fn reference(
        &self,
        raw: &RawRelocation,
        name: &str,
    ) -> Result<Reference, LivepatchError> {
        let symbol = self.symbols.get(raw.symbol as usize).copied().flatten();
        let symbol = symbol.ok_or_else(|| {
            let text = format!(
                "the relocation at {:#x} of {name} leads to symbol {}, which is not loaded, or only the loader reads it",
                raw.offset, raw.symbol
            );
            LivepatchError::new(Rule::X23, text)
        })?;
        Ok(Reference {
            symbol,
            addend: raw.addend,
        })
    }
}
