//! One unit that has been read: where its functions are, and what is inside what.

use std::sync::OnceLock;

use gimli::{Unit, UnitOffset, constants as dw};

use super::lines::Rows;
use super::{Bytes, DebugData, Die, ranges_of};

/// A unit with what was found out about it.
pub(super) struct LoadedUnit<'s> {
    pub(super) unit: Unit<Bytes<'s>>,
    index: OnceLock<Index>,
    pub(super) rows: OnceLock<Rows>,
}

/// Where things are in a unit.
#[derive(Default)]
pub(super) struct Index {
    /// Start of each range of code of each function, in order.
    pub(super) functions: Vec<(u64, UnitOffset)>,
    /// Variables that belong to no function.
    pub(super) variables: Vec<UnitOffset>,
    /// It describes types: it was compiled with more than a table of lines and functions.
    pub(super) has_types: bool,
    /// Where it imports other units.
    pub(super) imports: Vec<UnitOffset>,
    /// Enumerations without a name, and whether a function has them.
    pub(super) enumerations: Vec<(UnitOffset, bool)>,
    /// Namespaces, modules, classes and functions, in order of their beginning.
    scopes: Vec<Scope>,
}

#[derive(Clone, Copy)]
struct Scope {
    from: UnitOffset,
    to: UnitOffset,
    parent: Option<usize>,
}

impl<'s> LoadedUnit<'s> {
    pub(super) fn new(unit: Unit<Bytes<'s>>) -> Self {
        LoadedUnit {
            unit,
            index: OnceLock::new(),
            rows: OnceLock::new(),
        }
    }
}

impl<'s> DebugData<'s> {
    /// The index of a unit, made when it is first asked for.
    pub(super) fn index(&self, unit: usize) -> Option<&Index> {
        let loaded = self.unit(unit)?;
        Some(loaded.index.get_or_init(|| {
            // What was read before a broken place is as good as what lies before it.
            let mut index = Index::default();
            let _broken = self.fill_index(unit, loaded, &mut index);
            index.functions.sort_unstable_by_key(|(at, _)| *at);
            index
        }))
    }

    fn fill_index(
        &self,
        unit: usize,
        loaded: &LoadedUnit<'s>,
        index: &mut Index,
    ) -> Result<(), gimli::Error> {
        let dwarf = self.dwarf(unit);
        let mut open: Vec<(isize, usize)> = Vec::new();
        let mut in_function: Option<isize> = None;
        // Most entries are of no use here, and their attributes are passed over unread.
        let mut entries = loaded.unit.entries_raw(None)?;
        while !entries.is_empty() {
            let (depth, at) = (entries.next_depth(), entries.next_offset());
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            entries.skip_attributes(abbreviation.attributes())?;
            let tag = abbreviation.tag();
            while let Some((_, scope)) = open.pop_if(|(of, _)| *of >= depth) {
                index.scopes[scope].to = at;
            }
            in_function = in_function.filter(|of| *of < depth);
            index.has_types |= is_type(tag);
            if tag == dw::DW_TAG_enumeration_type && !has_name(abbreviation) {
                index.enumerations.push((at, in_function.is_some()));
            }
            match tag {
                dw::DW_TAG_imported_unit => index.imports.push(at),
                dw::DW_TAG_subprogram => {
                    let entry = loaded.unit.entry(at)?;
                    let mut ranges = ranges_of(dwarf, &loaded.unit, &entry)?;
                    while let Some(range) = ranges.next()? {
                        if range.begin < range.end {
                            index.functions.push((range.begin, at));
                        }
                    }
                    in_function = in_function.or(Some(depth));
                }
                dw::DW_TAG_variable if in_function.is_none() => index.variables.push(at),
                dw::DW_TAG_namespace
                | dw::DW_TAG_module
                | dw::DW_TAG_structure_type
                | dw::DW_TAG_class_type
                | dw::DW_TAG_union_type
                | dw::DW_TAG_enumeration_type => {}
                _ => continue,
            }
            let scope = abbreviation.has_children() && tag != dw::DW_TAG_variable;
            if scope {
                let parent = open.last().map(|(_, scope)| *scope);
                open.push((depth, index.scopes.len()));
                index.scopes.push(Scope {
                    from: at,
                    to: UnitOffset(usize::MAX),
                    parent,
                });
            }
        }
        Ok(())
    }

    /// The entry with the names of what it is in: `server::Config`.
    pub(super) fn qualified_name(&self, die: Die) -> Option<String> {
        let own = self.origin_text(die, dw::DW_AT_name)?;
        let index = self.index(die.unit)?;
        let before = index.scopes.partition_point(|s| s.from < die.offset);
        let mut at = before.checked_sub(1);
        let mut names = vec![own];
        while let Some(scope) = at {
            let Scope { from, to, parent } = index.scopes[scope];
            if to > die.offset {
                let unit = die.unit;
                names.extend(self.origin_text(Die { unit, offset: from }, dw::DW_AT_name));
            }
            at = parent;
        }
        names.reverse();
        Some(names.join("::"))
    }

    /// An attribute of the entry or of what it is a further description of.
    pub(super) fn origin_text(&self, die: Die, name: gimli::DwAt) -> Option<String> {
        let origins = self.origins(die);
        let mut texts = origins.iter();
        texts.find_map(|(die, entry)| self.text(die.unit, entry, name))
    }
}

fn is_type(tag: gimli::DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_base_type
            | dw::DW_TAG_pointer_type
            | dw::DW_TAG_structure_type
            | dw::DW_TAG_class_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_enumeration_type
            | dw::DW_TAG_array_type
            | dw::DW_TAG_typedef
    )
}

fn has_name(abbreviation: &gimli::Abbreviation) -> bool {
    let mut attributes = abbreviation.attributes().iter();
    attributes.any(|spec| spec.name() == dw::DW_AT_name)
}
