//! `.livepatch.funcs`.

use super::super::file::{name as text_at, shown};
use super::super::function::{Expectation, Function, New, Old, StructureVersion};
use super::super::{FUNCTIONS, LivepatchError, Rule};
use super::{RawRelocation, Reader, number_at, text};

impl Reader<'_> {
    pub(super) fn functions(
        &self,
        version: StructureVersion,
    ) -> Result<Vec<Function>, LivepatchError> {
        let Some((number, section)) = self.file.section(FUNCTIONS) else {
            return Ok(Vec::new());
        };
        let bytes = self.file.contents(section);
        let size = version.size();
        if !bytes.len().is_multiple_of(size) {
            let text = format!("{FUNCTIONS} has {} bytes", bytes.len());
            return Err(LivepatchError::new(Rule::X27, text));
        }
        let mut fields = std::collections::BTreeMap::new();
        for entry in self.relocations_of(number)? {
            let is_field = entry.offset < bytes.len() as u64
                && entry.offset % size as u64 <= 16
                && entry.offset.is_multiple_of(8);
            match entry.kind {
                0 => continue,
                1 if is_field => {}
                _ => {
                    let text = format!("the relocation at {:#x} of {FUNCTIONS}", entry.offset);
                    return Err(LivepatchError::new(Rule::X22, text));
                }
            }
            if fields.insert(entry.offset, entry).is_some() {
                let text = format!("two relocations at {:#x} of {FUNCTIONS}", entry.offset);
                return Err(LivepatchError::new(Rule::X23, text));
            }
        }
        let structures = bytes.chunks_exact(size);
        let places = (0_u64..).step_by(size);
        structures
            .zip(places)
            .map(|(bytes, at)| {
                let field = |offset: u64| fields.get(&(at + offset));
                self.function(bytes, version, [field(0), field(8), field(16)])
            })
            .collect()
    }

    fn function(
        &self,
        bytes: &[u8],
        version: StructureVersion,
        [name, new, old]: [Option<&RawRelocation>; 3],
    ) -> Result<Function, LivepatchError> {
        let found = bytes[32];
        if found != version.number() {
            let text = format!(
                "a structure of version {found}, {} is wanted",
                version.number()
            );
            return Err(LivepatchError::new(Rule::X28, text));
        }
        let name = name.and_then(|entry| self.string(entry));
        let name = name.ok_or_else(|| LivepatchError::new(Rule::X52, "a function has no name"))?;
        let name = text(name)?;
        let number = |at| number_at(bytes, at, 8);
        let new = match new {
            Some(entry) => New::Code {
                code: self.reference(entry, FUNCTIONS)?,
                size: number_at(bytes, 24, 4) as u32,
            },
            None if number(8) == 0 => New::Nop {
                size: number_at(bytes, 24, 4) as u32,
            },
            None => {
                let text = format!(
                    "new code of {} is at the address {:#x}",
                    shown(name.as_bytes()),
                    number(8)
                );
                return Err(LivepatchError::new(Rule::X57, text));
            }
        };
        let old = match (old, number(16)) {
            (Some(entry), _) => Old::Symbol(self.reference(entry, FUNCTIONS)?),
            (None, 0) => Old::Name,
            (None, address) => Old::Address(address),
        };
        Ok(Function {
            new,
            old,
            old_size: number_at(bytes, 28, 4) as u32,
            expectation: match version {
                StructureVersion::V1 => None,
                StructureVersion::V2 => expectation(bytes, &name)?,
            },
            name,
        })
    }

    /// The text that a pointer leads to.
    fn string(&self, entry: &RawRelocation) -> Option<&[u8]> {
        let symbol = self.file.symbols.get(entry.symbol as usize)?;
        let section = self.file.sections.get(usize::from(symbol.section))?;
        let at = symbol.value.checked_add_signed(entry.addend)?;
        text_at(self.file.contents(section), u32::try_from(at).ok()?)
    }
}

fn expectation(bytes: &[u8], name: &str) -> Result<Option<Expectation>, LivepatchError> {
    let header = bytes[72];
    if header & 1 == 0 {
        return Ok(None);
    }
    if header >> 6 != 0 {
        return Err(LivepatchError::new(
            Rule::X45,
            format!("the expectation of {name}: {header:#x}"),
        ));
    }
    let length = usize::from(header >> 1 & 31);
    Ok(Expectation::new(bytes[73..73 + length].to_vec()))
}
