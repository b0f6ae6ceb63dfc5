//! Enumerations without a name: their values live in variables of plain numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::functions::SourceFunction;
use super::lines::SourcePlace;
use super::{DebugData, Die};

/// An enumerator of an enumeration without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enumerator {
    /// Its values; more than one where several files have one of its name.
    pub values: BTreeSet<i64>,
    /// No other enumerator of its enumeration has a higher value: it may be no more than a count.
    pub is_last: bool,
    /// A function has the enumeration.
    pub is_local: bool,
    /// Its enumeration, by the first enumerator of it.
    pub first: String,
    /// Where its enumeration is declared.
    pub declared: Option<SourcePlace>,
}

/// Enumerators by their names, with the scopes that they are in.
pub type Enumerators = BTreeMap<String, Enumerator>;

impl DebugData<'_> {
    /// The enumerators of all enumerations without a name in the source files of `functions`.
    #[must_use]
    pub fn enumerators(&self, functions: &[&SourceFunction]) -> Enumerators {
        let dies = functions.iter().flat_map(|function| &function.dies);
        let mut found = Enumerators::new();
        for unit in self.with_imported(dies.map(|die| die.unit)) {
            let all = self
                .index(unit)
                .map_or(&[][..], |index| &index.enumerations);
            for (offset, is_local) in all {
                let die = Die {
                    unit,
                    offset: *offset,
                };
                self.add_enumerators(die, *is_local, &mut found);
            }
        }
        found
    }

    fn add_enumerators(&self, die: Die, is_local: bool, found: &mut Enumerators) {
        let Some(entry) = self.entry(die) else { return };
        let layout = self.layout(die, &entry, 0);
        let Some(one) = layout.members.first() else {
            return;
        };
        let child = self.children(die).first().map(|child| child.offset());
        let name = child.and_then(|offset| {
            let unit = die.unit;
            self.qualified_name(Die { unit, offset })
        });
        let Some(first) = name else { return };
        let scope = first.strip_suffix(one.name.as_str()).unwrap_or_default();
        let highest = layout.members.iter().map(|member| member.at).max();
        let declared = self.declared(die.unit, &entry);
        for member in &layout.members {
            let name = format!("{scope}{}", member.name);
            let is_last = Some(member.at) == highest;
            let known = found.entry(name).or_insert_with(|| Enumerator {
                values: BTreeSet::new(),
                is_last,
                is_local,
                first: first.clone(),
                declared: declared.clone(),
            });
            known.values.insert(member.at);
            known.is_last &= is_last;
        }
    }
}
