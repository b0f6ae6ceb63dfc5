//! Entries of tables beside the code (`.altinstructions`, `.bug_frames.N`, `.ex_table`,
//! `.alt_call_sites`) that go with the functions that are copied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use invivo_compare::{Parts, Rule};
use invivo_image::{Annex, EntityId};

use crate::model::{Relocation, RelocationKind, Section, SectionKind, SymbolPlace};
use crate::planner::{Placed, Planner};

/// Where the replacements of `.altinstructions` are: whoever reads them looks only there.
const REPLACEMENTS: &str = ".altinstr_replacement";

/// The name of a section of the patch with a part of a function that was in `section`.
pub(crate) fn section_name(section: &str, part: &str) -> String {
    if section == REPLACEMENTS {
        return REPLACEMENTS.to_owned();
    }
    format!(".text.{part}")
}

impl Planner<'_, '_> {
    /// One section for each table, with the entries of all functions that are copied.
    pub(crate) fn copy_annexes(&mut self) {
        let mut tables: BTreeMap<Arc<str>, Section> = BTreeMap::new();
        let mut done: BTreeSet<EntityId> = BTreeSet::new();
        // What an entry leads to may be new, and then has entries of its own.
        loop {
            let functions = self
                .hot
                .values()
                .filter(|parts| !done.contains(&parts.main));
            let mut functions: Vec<Parts> = functions.cloned().collect();
            if functions.is_empty() {
                break;
            }
            functions.sort_by_key(|parts| parts.main);
            for parts in functions {
                done.insert(parts.main);
                for part in parts.ids() {
                    self.copy_entries(part, &mut tables);
                }
            }
            self.copy_functions();
        }
        self.contents.sections.extend(tables.into_values());
    }

    fn copy_entries(&mut self, part: EntityId, tables: &mut BTreeMap<Arc<str>, Section>) {
        let image = self.c.fixed;
        let entity = image.entity(part);
        for entry in image.annexes_of(entity.addr..entity.end()) {
            let name = &entry.section;
            let table = tables.entry(Arc::clone(name)).or_insert_with(|| Section {
                name: name.to_string(),
                kind: SectionKind::ReadOnly,
                align: 4,
                bytes: Vec::new(),
                relocations: Vec::new(),
            });
            let start = table.bytes.len() as u64;
            table.bytes.extend_from_slice(&entry.bytes);
            match self.bind_entry(entry, start) {
                Ok(relocations) => table.relocations.extend(relocations),
                Err(text) => {
                    let text = format!("its entry in {name}: {text}");
                    self.refuse(Rule::Binding, part, text);
                }
            }
        }
    }

    /// A place among the replacements: even an entry without one has to lead there.
    fn any_replacement(&mut self) -> u32 {
        const NOP: u8 = 0x90;
        let key = Placed::Replacements;
        if let Some(symbol) = self.placed.get(&key) {
            return *symbol;
        }
        let section = self.add_section(Section {
            name: REPLACEMENTS.to_owned(),
            kind: SectionKind::Text,
            align: 1,
            bytes: vec![NOP],
            relocations: Vec::new(),
        });
        let place = SymbolPlace::Patch {
            section,
            offset: 0,
            size: 1,
        };
        let symbol = self.add_symbol("", place);
        self.placed.insert(key, symbol);
        symbol
    }

    /// The fields of an entry that is put at `start` of its table.
    fn bind_entry(&mut self, entry: &Annex, start: u64) -> Result<Vec<Relocation>, String> {
        const BITS: u32 = 24;
        let from_entry = entry.section.starts_with(".bug_frames.");
        let by_nothing = entry.replaces_by_nothing();
        let bind = |field: &invivo_image::AnnexField| {
            let (symbol, addend) = if by_nothing && field.offset > 0 {
                (self.any_replacement(), 0)
            } else {
                self.bind_table_entry(field.target)?
            };
            // A relocation counts from the field.
            let before = if from_entry { field.offset } else { 0 };
            let before = i64::try_from(before).map_err(|e| e.to_string())?;
            Ok(Relocation {
                offset: start + field.offset,
                kind: RelocationKind::Relative32,
                symbol,
                addend: addend + before + (i64::from(field.above) << BITS),
            })
        };
        entry.fields.iter().map(bind).collect()
    }
}
