//! Where variables with a fixed place are declared, and where texts of Rust are in them.

use std::collections::{BTreeMap, BTreeSet};

use gimli::{AttributeValue, Dwarf, Operation, Unit, UnitOffset, constants as dw};
use rayon::prelude::*;

use super::functions::SourceFunction;
use super::layout::TypeLayout;
use super::lines::SourcePlace;
use super::{Bytes, DebugData, Die};
use crate::LinkAddr;

/// A variable with a fixed place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Where it is declared.
    pub place: SourcePlace,
    /// Where it may have a `&str`, in bytes from its start.
    pub texts: BTreeSet<u64>,
    /// Where it may have a `&[&str]`.
    pub lists: BTreeSet<u64>,
}

/// What a variable with a fixed place holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableType {
    /// A layout of one member without a name, which is of its type; where that has no name either,
    /// the layout of the type itself.
    pub layout: TypeLayout,
    /// Where it is declared.
    pub declared: Option<SourcePlace>,
    pub(super) of: Die,
}

/// A table of the methods of a trait, which has no symbol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraitTable {
    /// Whose methods of which trait: `<a::Plain as a::Filter>`.
    pub name: String,
    /// Where it is.
    pub at: LinkAddr,
    /// In bytes.
    pub size: u64,
}

impl<'s> DebugData<'s> {
    /// Tables of traits at these places, as far as the source files of `functions` have them.
    #[must_use]
    pub fn trait_tables(
        &self,
        functions: &[&SourceFunction],
        places: &BTreeSet<LinkAddr>,
    ) -> Vec<TraitTable> {
        if places.is_empty() {
            return Vec::new();
        }
        let dies = functions.iter().flat_map(|function| &function.dies);
        let near: BTreeSet<usize> = dies.map(|die| die.unit).collect();
        let found = near
            .into_iter()
            .flat_map(|unit| self.variables_in_unit(unit, places));
        let tables = found.filter_map(|(at, die)| {
            let name = self.origin_text(die, dw::DW_AT_name)?;
            let name = name.strip_suffix("::{vtable}")?.to_owned();
            let of = self.entry(self.type_of(die)?)?;
            let size = of.attr_value(dw::DW_AT_byte_size)?.udata_value()?;
            Some(TraitTable { name, at, size })
        });
        let mut tables: Vec<TraitTable> = tables.collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// The types of the variables at these addresses. Those that the source files of `functions`
    /// define are looked for there alone; an `extern` one may be defined in any other.
    #[must_use]
    pub fn variables_typed(
        &self,
        functions: &[&SourceFunction],
        places: &BTreeSet<LinkAddr>,
    ) -> BTreeMap<LinkAddr, VariableType> {
        let dies = functions.iter().flat_map(|function| &function.dies);
        let near: BTreeSet<usize> = dies.map(|die| die.unit).collect();
        let in_units = |units: Vec<usize>, places: &BTreeSet<LinkAddr>| -> Vec<(LinkAddr, Die)> {
            let found = units.into_par_iter();
            found
                .flat_map_iter(|unit| self.variables_in_unit(unit, places))
                .collect()
        };
        let mut found = in_units(near.iter().copied().collect(), places);
        let known: BTreeSet<LinkAddr> = found.iter().map(|(at, _)| *at).collect();
        let rest: BTreeSet<LinkAddr> = places.difference(&known).copied().collect();
        if !rest.is_empty() {
            let others = (0..self.units.len()).filter(|unit| !near.contains(unit));
            found.extend(in_units(others.collect(), &rest));
        }
        // Of several descriptions the first one.
        found.sort_unstable();
        found.dedup_by_key(|(at, _)| *at);
        let typed = found.into_iter().filter_map(|(at, die)| {
            let of = self.type_of(die)?;
            let origins = self.origins(die);
            let declared = origins
                .iter()
                .find_map(|(die, entry)| self.declared(die.unit, entry));
            let layout = self.layout_of_variable(of);
            Some((
                at,
                VariableType {
                    layout,
                    declared,
                    of,
                },
            ))
        });
        typed.collect()
    }

    /// The variables at these addresses. No index says which unit has a variable, so all of
    /// them are looked through.
    #[must_use]
    pub fn variables_declared(&self, places: &BTreeSet<LinkAddr>) -> BTreeMap<LinkAddr, Declared> {
        if places.is_empty() {
            return BTreeMap::new();
        }
        let found: Vec<(LinkAddr, Die)> = (0..self.units.len())
            .into_par_iter()
            .flat_map_iter(|unit| self.variables_in_unit(unit, places))
            .collect();
        found
            .into_iter()
            .filter_map(|(at, die)| {
                let origins = self.origins(die);
                let mut entries = origins.iter();
                let place = entries.find_map(|(die, entry)| self.declared(die.unit, entry))?;
                let mut declared = Declared {
                    place,
                    texts: BTreeSet::new(),
                    lists: BTreeSet::new(),
                };
                let of = origins
                    .iter()
                    .find_map(|(die, entry)| self.reference(die.unit, entry, dw::DW_AT_type));
                if let Some(of) = of {
                    self.add_texts(of, 0, 0, &mut declared);
                }
                Some((at, declared))
            })
            .collect()
    }

    /// Adds where a type has texts, if it begins at `offset`.
    fn add_texts(&self, of: Die, offset: u64, depth: usize, into: &mut Declared) {
        // Types that hold themselves, and hostile ones, have no end.
        const DEEPEST: usize = 10;
        const MOST: usize = 256;
        if depth > DEEPEST || into.texts.len() + into.lists.len() > MOST {
            return;
        }
        let known = match self.origin_text(of, dw::DW_AT_name).as_deref() {
            Some("&str") => Some(&mut into.texts),
            Some("&[&str]") => Some(&mut into.lists),
            _ => None,
        };
        if let Some(known) = known {
            known.insert(offset);
            return;
        }
        for entry in self.children(of).into_iter().take(MOST) {
            let part = Die {
                unit: of.unit,
                offset: entry.offset(),
            };
            match entry.tag() {
                dw::DW_TAG_member => {
                    let at = entry.attr_value(dw::DW_AT_data_member_location);
                    let at = at.map_or(Some(0), |at| at.udata_value());
                    let at = at.and_then(|at| offset.checked_add(at));
                    let of = self.reference(of.unit, &entry, dw::DW_AT_type);
                    if let (Some(at), Some(of)) = (at, of) {
                        self.add_texts(of, at, depth + 1, into);
                    }
                }
                dw::DW_TAG_variant_part | dw::DW_TAG_variant => {
                    self.add_texts(part, offset, depth + 1, into);
                }
                _ => {}
            }
        }
    }

    fn variables_in_unit(&self, unit: usize, places: &BTreeSet<LinkAddr>) -> Vec<(LinkAddr, Die)> {
        let mut found = Vec::new();
        // Not kept: a look through all units would keep the whole of the debug data.
        let Ok(mut read) = self.dwarf(unit).unit(self.units[unit].header) else {
            return found;
        };
        if let Some(skeleton) = self.units[unit].skeleton {
            let Some(skeleton) = self.unit(skeleton) else {
                return found;
            };
            read.copy_relocated_attributes(&skeleton.unit);
        }
        // What was read before a broken place is as good as what lies before it.
        let _broken = find_variables(self.dwarf(unit), &read, places, |at, offset| {
            found.push((at, Die { unit, offset }));
        });
        found
    }
}

/// Tells the variables of a unit that are at these places. Most entries are something else,
/// and their attributes are passed over unread.
fn find_variables<'s>(
    dwarf: &Dwarf<Bytes<'s>>,
    read: &Unit<Bytes<'s>>,
    places: &BTreeSet<LinkAddr>,
    mut found: impl FnMut(LinkAddr, UnitOffset),
) -> Result<(), gimli::Error> {
    let mut entries = read.entries_raw(None)?;
    while !entries.is_empty() {
        let offset = entries.next_offset();
        let Some(abbreviation) = entries.read_abbreviation()? else {
            continue;
        };
        let specs = abbreviation.attributes();
        if abbreviation.tag() != dw::DW_TAG_variable {
            entries.skip_attributes(specs)?;
            continue;
        }
        for spec in specs {
            let attribute = entries.read_attribute(*spec)?;
            if attribute.name() == dw::DW_AT_location
                && let Some(at) = fixed_place(dwarf, read, attribute.value())
                && places.contains(&at)
            {
                found(at, offset);
            }
        }
    }
    Ok(())
}

/// The address of a variable whose place is just that.
fn fixed_place<'s>(
    dwarf: &Dwarf<Bytes<'s>>,
    read: &Unit<Bytes<'s>>,
    place: AttributeValue<Bytes<'s>>,
) -> Option<LinkAddr> {
    let AttributeValue::Exprloc(expression) = place else {
        return None;
    };
    let mut operations = expression.operations(read.encoding());
    match (operations.next(), operations.next()) {
        (Ok(Some(Operation::Address { address })), Ok(None)) => Some(LinkAddr(address)),
        // clang keeps the addresses of a unit in a table.
        (Ok(Some(Operation::AddressIndex { index })), Ok(None)) => {
            dwarf.address(read, index).ok().map(LinkAddr)
        }
        _ => None,
    }
}
