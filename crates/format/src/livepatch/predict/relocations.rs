//! Symbols get addresses (X17–X20), and words get what depends on them (X21–X24, X50).

use super::super::Rule;
use super::super::file::{
    Header, RawRelocation, SHN_ABS, SHN_COMMON, SHN_LORESERVE, SHN_UNDEF, SHT_REL, SHT_RELA, shown,
};
use super::super::read::whole_entries;
use super::{Loader, Value};

impl Loader<'_> {
    pub(super) fn resolve(&mut self) {
        self.values.push(Value::Ignored);
        let file = self.file;
        for symbol in file.symbols.iter().skip(1) {
            let value = match symbol.section {
                SHN_COMMON => {
                    let text = format!("{} is a common symbol", shown(symbol.name));
                    self.found.add(Rule::X17, text);
                    Value::Ignored
                }
                SHN_UNDEF => self.find(symbol.name, Rule::X18, "the undefined symbol"),
                SHN_ABS => Value::Known(symbol.value),
                SHN_LORESERVE.. => {
                    let text =
                        format!("{} is in section {:#x}", shown(symbol.name), symbol.section);
                    self.found.add(Rule::X19, text);
                    Value::Ignored
                }
                number if usize::from(number) >= file.sections.len() => {
                    let text = format!("{} is in section {number}", shown(symbol.name));
                    self.found.add(Rule::X20, text);
                    Value::Ignored
                }
                number => match self.memory.place(number.into()) {
                    Some(place) => Value::Known(place.wrapping_add(symbol.value)),
                    None => Value::Ignored,
                },
            };
            self.values.push(value);
        }
    }

    pub(super) fn relocate(&mut self) {
        let file = self.file;
        for section in file.sections.iter().skip(1) {
            let is_relocations = section.kind == SHT_RELA || section.kind == SHT_REL;
            let Some(base) = file
                .sections
                .get(section.info as usize)
                .filter(|_| is_relocations)
            else {
                continue;
            };
            if section.info == 0 {
                self.found
                    .add(Rule::X50, format!("{} is for section 0", section.shown()));
                continue;
            }
            if !base.is_loaded() {
                continue;
            }
            let is_linked = section.link as usize == file.symbol_table;
            if is_linked && section.size == 0 {
                continue;
            }
            if let Err(finding) = whole_entries(file, section) {
                self.found.add(finding.rule, finding.text);
            } else if section.kind == SHT_REL {
                self.found
                    .add(Rule::X22, format!("{} has no addends", section.shown()));
            } else {
                for relocation in file.relocations(section) {
                    // A hostile file has tens of millions of entries.
                    if self.found.more {
                        return;
                    }
                    self.relocate_word(section.info as usize, base, &relocation);
                }
            }
        }
    }

    fn relocate_word(&mut self, number: usize, base: &Header<'_>, relocation: &RawRelocation) {
        let place = || {
            format!(
                "the relocation at {:#x} of {}",
                relocation.offset,
                base.shown()
            )
        };
        let value = match self.values.get(relocation.symbol as usize) {
            _ if relocation.symbol == 0 => {
                return self
                    .found
                    .add(Rule::X22, format!("{} has no symbol", place()));
            }
            None => {
                let text = format!("{} names symbol {}", place(), relocation.symbol);
                return self.found.add(Rule::X23, text);
            }
            Some(Value::Ignored) => {
                let text = format!(
                    "{} leads to symbol {}, which is not loaded",
                    place(),
                    relocation.symbol
                );
                return self.found.add(Rule::X23, text);
            }
            Some(Value::Known(value)) => Some(value.wrapping_add_signed(relocation.addend)),
            Some(Value::Unknown) => None,
        };
        let width = match relocation.kind {
            0 => return,
            1 => 8,
            2 | 4 => 4,
            kind => {
                return self
                    .found
                    .add(Rule::X22, format!("{} has the type {kind}", place()));
            }
        };
        let end = relocation.offset.checked_add(width);
        if end.is_none_or(|end| end > base.size) {
            let text = format!("{} is not inside its {:#x} bytes", place(), base.size);
            return self.found.add(Rule::X23, text);
        }
        if width == 8 {
            return self.memory.write(number, relocation.offset, 8, value);
        }
        let own = self
            .memory
            .place(number)
            .unwrap_or(0)
            .wrapping_add(relocation.offset);
        let distance = value.map(|value| value.wrapping_sub(own));
        if distance.is_some_and(|distance| i32::try_from(distance.cast_signed()).is_err()) {
            let text = format!("{} leads {:#x} bytes away", place(), distance.unwrap_or(0));
            self.found.add(Rule::X24, text);
        }
        self.memory.write(number, relocation.offset, 4, distance);
    }
}
