//! A function as the source has it: its place, how it is called, what is inlined in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use gimli::{UnitOffset, constants as dw};

use super::lines::SourcePlace;
use super::parameters::Home;
use super::{DebugData, DebugEntry, Die, ranges_of};
use crate::LinkAddr;

/// A function of the image, as its debug data describe it.
#[derive(Clone, Debug)]
pub struct SourceFunction {
    /// Its name in the source, with the scopes that it is in.
    pub name: String,
    /// Where it is declared.
    pub declared: Option<SourcePlace>,
    /// How it is called, equal for two functions that are called in the same way.
    pub prototype: String,
    /// The same for a person: `long (char *, int)`.
    pub prototype_text: String,
    /// In how many general registers its parameters come at most on x86-64, where each takes one
    /// or two; unknown where there may be any number of them.
    pub registers: Option<u32>,
    /// Where its parameters are when it is entered, by their names; nothing for one of which
    /// nothing is told.
    pub homes: BTreeMap<String, Vec<Home>>,
    /// True if what it returns may need a place that the caller tells.
    pub returns_far: bool,
    /// True if the compiler says that its callers do not call it as others would (`DW_CC_nocall`).
    pub unusual: bool,
    /// False if its source file was compiled without types (`-g1`, `-gline-tables-only`): then
    /// its prototype and its variables are not known, whatever stands here.
    pub typed: bool,
    /// Functions that were inlined, an outer one before those inside it.
    pub inlined: Vec<Inlined>,
    pub(super) dies: Vec<Die>,
}

impl SourceFunction {
    /// A function of which a PDB file tells no more than this.
    pub(crate) fn of_pdb(name: &str, prototype: &str) -> SourceFunction {
        SourceFunction {
            name: name.to_owned(),
            declared: None,
            prototype: prototype.to_owned(),
            prototype_text: prototype.to_owned(),
            registers: None,
            homes: BTreeMap::new(),
            returns_far: false,
            unusual: false,
            typed: true,
            inlined: Vec::new(),
            dies: Vec::new(),
        }
    }
}

/// A function that was inlined into another one.
#[derive(Clone, Debug)]
pub struct Inlined {
    /// Its name in the source, with the scopes that it is in.
    pub name: String,
    /// Where it is declared.
    pub declared: Option<SourcePlace>,
    /// Where it is called.
    pub called: Option<SourcePlace>,
    /// The code that came from it.
    pub ranges: Vec<Range<LinkAddr>>,
    /// The inlined function that called it, by its place in the list.
    pub parent: Option<usize>,
}

impl SourceFunction {
    /// The chain of inlined functions that the instruction at `at` comes from, the
    /// outermost first; empty for the function's own code.
    #[must_use]
    pub fn chain(&self, at: LinkAddr) -> Vec<&Inlined> {
        let holds = |inlined: &Inlined| inlined.ranges.iter().any(|range| range.contains(&at));
        self.inlined
            .iter()
            .filter(|inlined| holds(inlined))
            .collect()
    }
}

impl<'s> DebugData<'s> {
    /// The function whose code begins at `at`.
    #[must_use]
    pub fn function(&self, at: LinkAddr) -> Option<SourceFunction> {
        let unit = self.unit_at(at)?;
        let index = self.index(unit)?;
        let found = index.functions.binary_search_by_key(&at.0, |(at, _)| *at);
        let offset = index.functions[found.ok()?].1;
        let die = Die { unit, offset };
        let (prototype, prototype_text) = self.prototype(die);
        let mut dies = vec![die];
        let inlined = self.inlined(die, &mut dies);
        let declared = self.origins(die);
        let declared = declared
            .iter()
            .find_map(|(die, entry)| self.declared(die.unit, entry));
        Some(SourceFunction {
            name: self.qualified_origin(die)?,
            declared,
            prototype,
            prototype_text,
            registers: self.registers(die),
            homes: self.homes(die, at),
            returns_far: self.returns_far(die),
            unusual: self.is_unusual(die),
            typed: self.has_types(self.origins(die).iter().map(|(die, _)| die.unit)),
            inlined,
            dies,
        })
    }

    /// True if the code at `at` is of a source file that was compiled with types.
    #[must_use]
    pub fn is_typed_at(&self, at: LinkAddr) -> bool {
        self.unit_at(at).is_some_and(|unit| self.has_types([unit]))
    }

    /// True if one of the units, or one that they import, describes any type.
    fn has_types(&self, units: impl IntoIterator<Item = usize>) -> bool {
        // A link with optimization across files has the types in a unit of its own, and `dwz`
        // moves them into one that many import.
        const MOST: usize = 256;
        self.with_imported(units)
            .take(MOST)
            .any(|unit| self.index(unit).is_some_and(|index| index.has_types))
    }

    /// These units and all that count as if they were in one of them, each once.
    pub(super) fn with_imported(
        &self,
        units: impl IntoIterator<Item = usize>,
    ) -> impl Iterator<Item = usize> {
        let mut seen: BTreeSet<usize> = units.into_iter().collect();
        let mut waiting: Vec<usize> = seen.iter().copied().collect();
        let mut last = None;
        std::iter::from_fn(move || {
            // Not before they are asked for: mostly the first unit is all that is.
            if let Some(unit) = last {
                let new = self.imported_by(unit).into_iter();
                waiting.extend(new.filter(|unit| seen.insert(*unit)));
            }
            last = waiting.pop();
            last
        })
    }

    /// Units whose contents count as if they were in this one.
    fn imported_by(&self, unit: usize) -> Vec<usize> {
        let imports = self.index(unit).map_or(&[][..], |index| &index.imports);
        let imported = imports.iter().filter_map(|at| {
            let entry = self.entry(Die { unit, offset: *at })?;
            let import = self.reference(unit, &entry, dw::DW_AT_import)?;
            Some(import.unit)
        });
        imported.collect()
    }

    /// The name of a function, with the scopes of its declaration: a definition of a
    /// method stands outside its class.
    fn qualified_origin(&self, die: Die) -> Option<String> {
        let (last, _) = self.origins(die).pop()?;
        self.qualified_name(last)
    }

    /// All that is inlined in the function at `function`; the abstract entries go to `dies`.
    fn inlined(&self, function: Die, dies: &mut Vec<Die>) -> Vec<Inlined> {
        let mut found: Vec<Inlined> = Vec::new();
        let Some(loaded) = self.unit(function.unit) else {
            return found;
        };
        let Ok(mut cursor) = loaded.unit.entries_at_offset(function.offset) else {
            return found;
        };
        let mut open: Vec<(isize, usize)> = Vec::new();
        let mut first = true;
        while let Ok(Some(entry)) = cursor.next_dfs() {
            let depth = entry.depth();
            if !std::mem::take(&mut first) && depth <= 0 {
                break;
            }
            while open.pop_if(|(of, _)| *of >= depth).is_some() {}
            if entry.tag() != dw::DW_TAG_inlined_subroutine {
                continue;
            }
            let parent = open.last().map(|(_, inlined)| *inlined);
            let origin = self.reference(function.unit, entry, dw::DW_AT_abstract_origin);
            let Some(origin) = origin else { continue };
            dies.push(origin);
            open.push((depth, found.len()));
            let origins = self.origins(origin);
            found.push(Inlined {
                name: self
                    .qualified_origin(origin)
                    .unwrap_or_else(|| "an unnamed function".to_owned()),
                declared: origins
                    .iter()
                    .find_map(|(die, entry)| self.declared(die.unit, entry)),
                called: self.place(
                    function.unit,
                    entry,
                    dw::DW_AT_call_file,
                    dw::DW_AT_call_line,
                ),
                ranges: self.code_of(function.unit, entry),
                parent,
            });
        }
        found
    }

    fn code_of(&self, unit: usize, entry: &DebugEntry<'s>) -> Vec<Range<LinkAddr>> {
        let mut found = Vec::new();
        let Some(loaded) = self.unit(unit) else {
            return found;
        };
        if let Ok(mut ranges) = ranges_of(self.dwarf(unit), &loaded.unit, entry) {
            while let Ok(Some(range)) = ranges.next() {
                found.push(LinkAddr(range.begin)..LinkAddr(range.end));
            }
        }
        found
    }

    /// Offsets of the functions whose code begins in this unit.
    pub(super) fn variables_of(&self, unit: usize) -> &[UnitOffset] {
        self.index(unit).map_or(&[], |index| &index.variables)
    }
}
