//! Debug data (DWARF), read only where somebody asks.
//!
//! A program of a hundred megabytes has several times as much debug data, and a fix
//! concerns a handful of its source files. So every unit is looked at once from
//! outside (where its code lies, what compiled it), and a unit is read when a function
//! of it is asked for. Reading everything first is the tempting wrong way: it takes
//! longer than the comparison itself.

mod conventions;
mod digest;
mod enumerations;
mod functions;
mod layout;
mod lines;
mod parameters;
mod sections;
mod types;
mod unit;
mod variables;

use std::collections::HashMap;
use std::sync::OnceLock;

use gimli::{
    AttributeValue, DebugInfoOffset, Dwarf, DwarfPackage, DwoId, EndianSlice, LittleEndian,
    RangeIter, Unit, UnitHeader, UnitOffset, UnitType, constants as dw,
};
use rayon::prelude::*;

pub use enumerations::{Enumerator, Enumerators};
pub use functions::{Inlined, SourceFunction};
pub use layout::{Member, TypeLayout};
pub use lines::SourcePlace;
pub use parameters::Home;
pub use sections::{DebugError, DebugSections};
pub(crate) use sections::{is_needless, is_plausible};
pub use types::{UsedType, UsedTypes};
use unit::LoadedUnit;
pub use variables::{Declared, TraitTable, VariableType};

use crate::LinkAddr;

type Bytes<'s> = EndianSlice<'s, LittleEndian>;
type DebugEntry<'s> = gimli::DebuggingInformationEntry<Bytes<'s>>;

/// What compiled a unit, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitFacts {
    /// The source file.
    pub name: String,
    /// The folder in which the compiler ran.
    pub folder: String,
    /// The compiler with its version and, for gcc, its flags.
    pub producer: String,
}

/// One entry: its unit, and its offset in that unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Die {
    unit: usize,
    offset: UnitOffset,
}

struct UnitEntry<'s> {
    /// Index of the file that it is in.
    file: usize,
    header: UnitHeader<Bytes<'s>>,
    facts: UnitFacts,
    /// The unit that holds the addresses and lines, for one that is in a file of its own.
    skeleton: Option<usize>,
    loaded: OnceLock<Option<Box<LoadedUnit<'s>>>>,
}

/// Debug data of one image.
pub struct DebugData<'s> {
    /// The file itself, its supplementary one, and those with units that are outside.
    files: Vec<Dwarf<Bytes<'s>>>,
    /// Which of them is the supplementary one.
    supplementary: Option<usize>,
    /// In order of file and offset.
    units: Vec<UnitEntry<'s>>,
    /// Units of types that are kept once for the whole program (`-fdebug-types-section`).
    signatures: HashMap<u64, Die>,
    /// Where the code of each unit lies: start, end, unit; in order of the start.
    ranges: Vec<(u64, u64, usize)>,
}

impl std::fmt::Debug for DebugData<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DebugData({} units)", self.units.len())
    }
}

impl<'s> DebugData<'s> {
    fn new(
        main: Dwarf<Bytes<'s>>,
        supplementary: Option<Dwarf<Bytes<'s>>>,
        split: Vec<Dwarf<Bytes<'s>>>,
        packages: &[DwarfPackage<Bytes<'s>>],
    ) -> Result<Self, DebugError> {
        let mut data = DebugData {
            supplementary: supplementary.as_ref().map(|_| 1),
            files: vec![main],
            units: Vec::new(),
            signatures: HashMap::new(),
            ranges: Vec::new(),
        };
        data.files.extend(supplementary);
        let mut skeletons = HashMap::new();
        for file in 0..data.files.len() {
            data.add_units(file, &mut skeletons)?;
        }
        let ids: Vec<DwoId> = skeletons.keys().copied().collect();
        let packed = packages.iter().flat_map(|package| {
            let found = ids.iter().map(|id| package.find_cu(*id, &data.files[0]));
            found
                .filter_map(|found| found.ok().flatten())
                .collect::<Vec<_>>()
        });
        let packed: Vec<Dwarf<Bytes<'s>>> = packed.collect();
        for dwarf in split.into_iter().chain(packed) {
            data.files.push(dwarf);
            data.add_units(data.files.len() - 1, &mut skeletons)?;
        }
        data.ranges.sort_unstable();
        Ok(data)
    }

    /// Adds the units of a file. `skeletons` holds those whose data are in another file.
    fn add_units(
        &mut self,
        file: usize,
        skeletons: &mut HashMap<DwoId, usize>,
    ) -> Result<(), DebugError> {
        let dwarf = &self.files[file];
        let mut headers = Vec::new();
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            headers.push(header);
        }
        let mut types = dwarf.type_units();
        while let Some(header) = types.next()? {
            headers.push(header);
        }
        let outside: Vec<Outside> = headers
            .par_iter()
            .map(|header| from_outside(dwarf, header))
            .collect();
        for (header, mut outside) in headers.into_iter().zip(outside) {
            let unit = self.units.len();
            if let UnitType::Type {
                type_signature,
                type_offset: offset,
            } = header.type_()
            {
                self.signatures
                    .insert(type_signature.0, Die { unit, offset });
            }
            let skeleton = outside.id.and_then(|id| skeletons.get(&id).copied());
            match (skeleton, outside.id) {
                (Some(skeleton), _) => {
                    // The addresses are in the skeleton, all else is here.
                    let known = &self.units[skeleton].facts;
                    outside.facts.folder.clone_from(&known.folder);
                    for range in self.ranges.iter_mut().filter(|range| range.2 == skeleton) {
                        range.2 = unit;
                    }
                }
                (None, Some(id)) => {
                    skeletons.insert(id, unit);
                }
                (None, None) => {}
            }
            let ranges = outside
                .ranges
                .into_iter()
                .filter(|(start, end)| start < end);
            self.ranges
                .extend(ranges.map(|(start, end)| (start, end, unit)));
            self.units.push(UnitEntry {
                file,
                header,
                facts: outside.facts,
                skeleton,
                loaded: OnceLock::new(),
            });
        }
        Ok(())
    }

    /// What compiled each unit that has code.
    pub fn compiled(&self) -> impl Iterator<Item = &UnitFacts> {
        let mut units: Vec<usize> = self.ranges.iter().map(|(_, _, unit)| *unit).collect();
        units.sort_unstable();
        units.dedup();
        units.into_iter().map(|unit| &self.units[unit].facts)
    }

    /// The unit whose code holds `at`.
    fn unit_at(&self, at: LinkAddr) -> Option<usize> {
        let after = self.ranges.partition_point(|(start, _, _)| *start <= at.0);
        // Ranges of two units overlap where the linker dropped a copy of a function and
        // its range stayed: the nearest start that holds the address is taken.
        let before = self.ranges[..after].iter().rev().take(8);
        before
            .filter(|(_, end, _)| at.0 < *end)
            .map(|(_, _, unit)| *unit)
            .next()
    }

    /// What compiled the function at `at`.
    #[must_use]
    pub fn compiled_at(&self, at: LinkAddr) -> Option<&UnitFacts> {
        self.unit_at(at).map(|unit| &self.units[unit].facts)
    }

    /// The unit, read when it is first asked for; `None` if it is broken.
    fn unit(&self, unit: usize) -> Option<&LoadedUnit<'s>> {
        let entry = self.units.get(unit)?;
        let loaded = entry.loaded.get_or_init(|| {
            let dwarf = &self.files[entry.file];
            let mut unit = dwarf.unit(entry.header).ok()?;
            if let Some(skeleton) = entry.skeleton {
                unit.copy_relocated_attributes(&self.unit(skeleton)?.unit);
            }
            Some(Box::new(LoadedUnit::new(unit)))
        });
        loaded.as_deref()
    }

    fn dwarf(&self, unit: usize) -> &Dwarf<Bytes<'s>> {
        &self.files[self.units[unit].file]
    }

    fn entry(&self, die: Die) -> Option<DebugEntry<'s>> {
        self.unit(die.unit)?.unit.entry(die.offset).ok()
    }

    /// The entry that an attribute of an entry in `unit` refers to.
    fn referred(&self, unit: usize, value: AttributeValue<Bytes<'s>>) -> Option<Die> {
        let file = self.units[unit].file;
        match value {
            AttributeValue::UnitRef(offset) => Some(Die { unit, offset }),
            AttributeValue::DebugInfoRef(offset) => self.at_offset(file, offset),
            AttributeValue::DebugInfoRefSup(offset) => self.at_offset(self.supplementary?, offset),
            AttributeValue::DebugTypesRef(signature) => self.signatures.get(&signature.0).copied(),
            _ => None,
        }
    }

    fn at_offset(&self, file: usize, offset: DebugInfoOffset) -> Option<Die> {
        let before = |unit: &UnitEntry<'_>| {
            let start = unit.header.debug_info_offset();
            unit.file < file || (unit.file == file && start.is_some_and(|start| start <= offset))
        };
        let unit = self.units.partition_point(before).checked_sub(1)?;
        let offset = offset.to_unit_offset(&self.units[unit].header)?;
        (self.units[unit].file == file).then_some(Die { unit, offset })
    }

    fn reference(&self, unit: usize, entry: &DebugEntry<'s>, name: gimli::DwAt) -> Option<Die> {
        self.referred(unit, entry.attr_value(name)?)
    }

    fn text(&self, unit: usize, entry: &DebugEntry<'s>, name: gimli::DwAt) -> Option<String> {
        let value = entry.attr_value(name)?;
        let text = self
            .dwarf(unit)
            .attr_string(&self.unit(unit)?.unit, value)
            .ok()?;
        Some(String::from_utf8_lossy(text.slice()).into_owned())
    }

    /// `die`, and what it is a further description of: an inlined or concrete function
    /// refers to an abstract one, a definition to a declaration in a class, a declaration of a
    /// type to the unit that has it.
    fn origins(&self, die: Die) -> Vec<(Die, DebugEntry<'s>)> {
        const DEEPEST: usize = 8;
        let mut found = Vec::new();
        let mut next = Some(die);
        while let Some(die) = next.take() {
            let Some(entry) = self.entry(die) else { break };
            if found.len() < DEEPEST {
                next = self
                    .reference(die.unit, &entry, dw::DW_AT_abstract_origin)
                    .or_else(|| self.reference(die.unit, &entry, dw::DW_AT_specification))
                    .or_else(|| self.reference(die.unit, &entry, dw::DW_AT_signature));
            }
            found.push((die, entry));
        }
        found
    }

    /// The entries directly below `die`.
    fn children(&self, die: Die) -> Vec<DebugEntry<'s>> {
        let mut found = Vec::new();
        let Some(unit) = self.unit(die.unit) else {
            return found;
        };
        let Ok(mut cursor) = unit.unit.entries_at_offset(die.offset) else {
            return found;
        };
        let has_children = cursor
            .next_dfs()
            .ok()
            .flatten()
            .is_some_and(|entry| entry.has_children());
        if !has_children || !cursor.next_entry().unwrap_or(false) {
            return found;
        }
        let mut current = cursor.current().filter(|entry| !entry.is_null()).cloned();
        while let Some(entry) = current {
            found.push(entry);
            current = cursor.next_sibling().ok().flatten().cloned();
        }
        found
    }
}

/// A unit as its first entry describes it.
#[derive(Default)]
struct Outside {
    facts: UnitFacts,
    ranges: Vec<(u64, u64)>,
    /// What it and its other half are called, where one is in a file of its own.
    id: Option<DwoId>,
}

fn from_outside(dwarf: &Dwarf<Bytes<'_>>, header: &UnitHeader<Bytes<'_>>) -> Outside {
    let mut outside = Outside::default();
    let Ok(unit) = dwarf.unit(*header) else {
        return outside;
    };
    let text = |bytes: Bytes<'_>| String::from_utf8_lossy(bytes.slice()).into_owned();
    outside.id = unit.dwo_id;
    outside.facts.name = unit.name.map(text).unwrap_or_default();
    outside.facts.folder = unit.comp_dir.map(text).unwrap_or_default();
    let Ok(root) = &unit.entry(unit.header.root_offset()) else {
        return outside;
    };
    if let Some(value) = root.attr_value(dw::DW_AT_producer)
        && let Ok(producer) = dwarf.attr_string(&unit, value)
    {
        outside.facts.producer = text(producer);
    }
    if let Ok(mut ranges) = ranges_of(dwarf, &unit, root) {
        while let Ok(Some(range)) = ranges.next() {
            outside.ranges.push((range.begin, range.end));
        }
    }
    outside
}

/// The code that an entry describes. An end beyond the address space is an error: gimli adds
/// the size to the start without a look.
fn ranges_of<'s>(
    dwarf: &Dwarf<Bytes<'s>>,
    unit: &Unit<Bytes<'s>>,
    entry: &DebugEntry<'s>,
) -> Result<RangeIter<Bytes<'s>>, gimli::Error> {
    let start = entry.attr_value(dw::DW_AT_low_pc);
    let start = start.and_then(|value| dwarf.attr_address(unit, value).ok().flatten());
    if let Some(start) = start
        && let Some(AttributeValue::Udata(size)) = entry.attr_value(dw::DW_AT_high_pc)
    {
        start
            .checked_add(size)
            .ok_or(gimli::Error::AddressOverflow)?;
    }
    dwarf.die_ranges(unit, entry)
}
