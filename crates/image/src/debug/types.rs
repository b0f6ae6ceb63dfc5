//! Which types a function uses.
//!
//! One name may have several layouts, in several files, so a name has a set of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Mutex;

use gimli::constants as dw;
use rayon::prelude::*;

use super::digest::{Described, Digests};
use super::functions::SourceFunction;
use super::layout::{DEEPEST, TypeLayout, is_composite};
use super::lines::SourcePlace;
use super::variables::VariableType;
use super::{DebugData, DebugEntry, Die};

/// A type that functions use.
#[derive(Clone, Debug, Default)]
pub struct UsedType {
    /// Its layouts; more than one where several files have types of one name.
    pub layouts: BTreeSet<TypeLayout>,
    /// Where the first of them is declared.
    pub declared: Option<SourcePlace>,
    /// The first function that uses it, by its place in the list that was asked for.
    pub by: usize,
}

/// Types that functions use, by their qualified names.
pub type UsedTypes = BTreeMap<String, UsedType>;

impl<'s> DebugData<'s> {
    /// All types that `functions` can get at: those of their parameters and variables, of
    /// everything inlined in them, of the unit's variables that `names` lists for each, of
    /// `variables`, each with the first function that refers to it, and whatever can be reached
    /// from these by members and pointers.
    #[must_use]
    pub fn types_used<'v>(
        &self,
        functions: &[(&SourceFunction, BTreeSet<&str>)],
        variables: impl IntoIterator<Item = &'v VariableType>,
    ) -> UsedTypes {
        let mut found = UsedTypes::new();
        let mut seen = HashSet::new();
        // What is inlined in many functions is looked through once.
        let mut read = HashSet::new();
        for (by, (function, names)) in functions.iter().enumerate() {
            let mut waiting: Vec<Die> = Vec::new();
            for die in function.dies.iter().filter(|die| read.insert(**die)) {
                self.variables_in(*die, &mut waiting);
            }
            if let Some(Die { unit, .. }) = function.dies.first().copied() {
                for offset in self.variables_of(unit) {
                    let die = Die {
                        unit,
                        offset: *offset,
                    };
                    let name = self.origin_text(die, dw::DW_AT_linkage_name);
                    let name = name.or_else(|| self.origin_text(die, dw::DW_AT_name));
                    if name.is_some_and(|name| names.contains(name.as_str())) {
                        waiting.extend(self.type_of(die));
                    }
                }
            }
            self.reach_all(waiting, by, &mut seen, &mut found);
        }
        let others = variables.into_iter().map(|variable| variable.of).collect();
        self.reach_all(others, functions.len(), &mut seen, &mut found);
        found
    }

    fn reach_all(
        &self,
        mut waiting: Vec<Die>,
        by: usize,
        seen: &mut HashSet<Die>,
        found: &mut UsedTypes,
    ) {
        while let Some(die) = waiting.pop() {
            if seen.insert(die) {
                self.reach(die, by, found, &mut waiting);
            }
        }
    }

    /// All types that the source files of `functions` know: a cast gets at data without a
    /// variable that has their type.
    #[must_use]
    pub fn types_beside(&self, functions: &[&SourceFunction]) -> UsedTypes {
        let mut units: Vec<(usize, usize)> = Vec::new();
        let mut seen = HashSet::new();
        for (by, function) in functions.iter().enumerate() {
            let unit = function.dies.first().map(|die| die.unit);
            units.extend(
                unit.filter(|unit| seen.insert(*unit))
                    .map(|unit| (by, unit)),
            );
        }
        self.laid_out(&units, None)
    }

    /// The layouts that types of these names have anywhere in the image.
    #[must_use]
    pub fn types_named(&self, names: &BTreeSet<&str>) -> UsedTypes {
        let last = names.iter().filter_map(|name| name.rsplit("::").next());
        let wanted: HashSet<&[u8]> = last.map(str::as_bytes).collect();
        let units: Vec<(usize, usize)> = (0..self.units.len()).map(|unit| (0, unit)).collect();
        let mut found = self.laid_out(&units, Some(&wanted));
        found.retain(|name, _| names.contains(name.as_str()));
        found
    }

    /// The layouts in units, each with the function that it is read for: of all types, or of
    /// those whose own names are among `wanted`.
    fn laid_out(&self, units: &[(usize, usize)], wanted: Option<&HashSet<&[u8]>>) -> UsedTypes {
        let digests = Digests::default();
        let unknown = Mutex::new(Vec::new());
        let known: Mutex<HashMap<u128, (usize, Die)>> = Mutex::default();
        let lock = "nobody panics who has it";
        let mut units = units.to_vec();
        let mut seen: HashSet<usize> = units.iter().map(|(_, unit)| *unit).collect();
        let mut done = 0;
        // What `dwz` moved out of a unit is in units that this one imports.
        while done < units.len() {
            let imported: Mutex<Vec<(usize, usize)>> = Mutex::default();
            (done..units.len()).into_par_iter().for_each(|order| {
                let (by, unit) = units[order];
                let found = self.described(unit, wanted, &digests);
                let others = found.imported.into_iter().map(|unit| (by, unit));
                imported.lock().expect(lock).extend(others);
                let mut first = known.lock().expect(lock);
                for Described { offset, digest } in found.types {
                    let place = (order, Die { unit, offset });
                    match digest {
                        // What is not known to be the same is laid out.
                        None => unknown.lock().expect(lock).push(place),
                        // Of many that are the same, the first one.
                        Some(digest) => {
                            let known = first.entry(digest).or_insert(place);
                            *known = place.min(*known);
                        }
                    }
                }
            });
            done = units.len();
            let mut imported = imported.into_inner().expect(lock);
            imported.sort_unstable();
            units.extend(imported.into_iter().filter(|(_, unit)| seen.insert(*unit)));
        }
        let mut places = unknown.into_inner().expect(lock);
        places.extend(known.into_inner().expect(lock).into_values());
        places.sort_unstable();
        let mut found = UsedTypes::new();
        for (order, die) in places {
            self.reach(die, units[order].0, &mut found, &mut Vec::new());
        }
        found
    }

    /// Types of the parameters and variables below `die`, and of the same in what it is a
    /// further description of: a variable without a place is only in the abstract one.
    fn variables_in(&self, die: Die, into: &mut Vec<Die>) {
        for (die, entry) in self.origins(die) {
            into.extend(self.reference(die.unit, &entry, dw::DW_AT_type));
            let Some(loaded) = self.unit(die.unit) else {
                continue;
            };
            let Ok(mut cursor) = loaded.unit.entries_at_offset(die.offset) else {
                continue;
            };
            let mut first = true;
            while let Ok(Some(entry)) = cursor.next_dfs() {
                if !std::mem::take(&mut first) && entry.depth() <= 0 {
                    break;
                }
                let value = [dw::DW_TAG_formal_parameter, dw::DW_TAG_variable];
                if value.contains(&entry.tag()) {
                    into.extend(self.reference(die.unit, entry, dw::DW_AT_type));
                }
            }
        }
    }

    pub(super) fn type_of(&self, die: Die) -> Option<Die> {
        let origins = self.origins(die);
        let mut types = origins.iter();
        types.find_map(|(die, entry)| self.reference(die.unit, entry, dw::DW_AT_type))
    }

    /// Notes the layout at `die`, if it is one, and what can be reached from there.
    fn reach(&self, die: Die, by: usize, found: &mut UsedTypes, waiting: &mut Vec<Die>) {
        let Some(entry) = self.entry(die) else { return };
        let target = || self.reference(die.unit, &entry, dw::DW_AT_type);
        if is_composite(&entry) {
            let declaration =
                entry.has_attr(dw::DW_AT_declaration) || entry.has_attr(dw::DW_AT_signature);
            if !declaration && let Some(name) = self.qualified_name(die) {
                self.note(name, die, &entry, by, found);
            }
            self.members_of(die, waiting);
            waiting.extend(self.reference(die.unit, &entry, dw::DW_AT_signature));
            return;
        }
        if entry.tag() == dw::DW_TAG_typedef
            && let Some((of, inner, _)) = self.unnamed_behind(die)
            && let Some(name) = self.qualified_name(die)
        {
            // An unnamed structure is known by the name that is given to it, or to its pointers.
            self.note(name, of, &inner, by, found);
        }
        waiting.extend(target());
        if entry.tag() == dw::DW_TAG_subroutine_type {
            let parameters = self.children(die);
            waiting.extend(
                parameters
                    .iter()
                    .filter_map(|p| self.reference(die.unit, p, dw::DW_AT_type)),
            );
        }
    }

    fn note(
        &self,
        name: String,
        die: Die,
        entry: &DebugEntry<'s>,
        by: usize,
        found: &mut UsedTypes,
    ) {
        let used = found.entry(name).or_insert_with(|| UsedType {
            layouts: BTreeSet::new(),
            declared: self.declared(die.unit, entry),
            by,
        });
        used.layouts.insert(self.layout(die, entry, 0));
    }

    /// Types of the members below a composite.
    fn members_of(&self, die: Die, into: &mut Vec<Die>) {
        let mut waiting = vec![(die, 0)];
        while let Some((die, depth)) = waiting.pop() {
            for child in self.children(die) {
                let at = Die {
                    unit: die.unit,
                    offset: child.offset(),
                };
                match child.tag() {
                    dw::DW_TAG_member | dw::DW_TAG_inheritance => {
                        into.extend(self.reference(die.unit, &child, dw::DW_AT_type));
                    }
                    dw::DW_TAG_variant_part | dw::DW_TAG_variant if depth < DEEPEST => {
                        waiting.push((at, depth + 1));
                    }
                    _ => {}
                }
            }
        }
    }
}
