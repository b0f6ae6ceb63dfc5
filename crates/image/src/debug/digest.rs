//! Types that are described again and again.
//!
//! Each source file describes all types of all headers that it includes, and a large program
//! has a thousand files: four million descriptions of forty thousand types. To lay each of
//! them out, only to find that this layout is known, takes longer than all else. So a unit is
//! read once, and each of its types becomes a number that stands for its name and all that its
//! layout is made of. Who has the number has the layout; names alone prove nothing, since two
//! files may well have different types of one name.

mod told;

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::RandomState;
use gimli::{AttributeValue, DwTag, Unit, UnitOffset, constants as dw};

use super::{Bytes, DebugData};

/// Deeper than this nothing is followed.
const DEEPEST: usize = 48;

/// Draws the numbers; the same for all units that are compared.
#[derive(Clone, Debug, Default)]
pub(super) struct Digests {
    // Two keys that no file can know: a collision would hide a layout.
    one: RandomState,
    other: RandomState,
}

impl Digests {
    fn of(&self, what: impl Hash) -> u128 {
        let (mut one, mut other) = (self.one.build_hasher(), self.other.build_hasher());
        what.hash(&mut one);
        what.hash(&mut other);
        u128::from(one.finish()) << 64 | u128::from(other.finish())
    }
}

/// A type that has a layout and a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Described {
    pub(super) offset: UnitOffset,
    /// Equal for two types only if their names and layouts are; `None` if that is not known.
    pub(super) digest: Option<u128>,
}

/// What is in a unit.
#[derive(Debug, Default)]
pub(super) struct InUnit {
    pub(super) types: Vec<Described>,
    /// Units whose contents count as if they were here.
    pub(super) imported: Vec<usize>,
}

/// What an attribute refers to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Nothing,
    /// An entry of the same unit.
    Here(usize),
    Elsewhere,
}

/// An entry that takes part in types or their names.
struct Node {
    offset: usize,
    tag: DwTag,
    /// The entry that it is in; of those that are kept.
    parent: Option<u32>,
    /// The number of the first entry that is not in it.
    end: u32,
    /// Its name, as a number.
    name: Option<u128>,
    /// All else of it but what it refers to.
    own: u128,
    of: Target,
    origin: Target,
    /// It is declared here and described elsewhere.
    declares: bool,
    /// It has no place in what it is a member of.
    apart: bool,
    /// Somebody asks for a type of its name.
    wanted: bool,
}

/// What is known of an entry so far.
#[derive(Clone, Copy)]
enum Found {
    Unknown,
    /// It is being looked at: it leads to itself.
    Open,
    Known(Option<u128>),
}

/// One unit.
struct Reading<'d> {
    digests: &'d Digests,
    nodes: Vec<Node>,
    imported: Vec<usize>,
    /// Of each entry: the names of all that it is in and its own; not yet its own before
    /// that is looked up.
    scopes: Vec<Option<u128>>,
    shapes: Vec<Found>,
}

impl<'s> DebugData<'s> {
    /// The types of a unit that have a layout and a name, all or those whose own names are
    /// among `names`.
    pub(super) fn described(
        &self,
        unit: usize,
        names: Option<&HashSet<&[u8]>>,
        digests: &Digests,
    ) -> InUnit {
        let dwarf = self.dwarf(unit);
        // Not kept: a look through all units would keep the whole of the debug data.
        let Ok(read) = dwarf.unit(self.units[unit].header) else {
            return InUnit::default();
        };
        let mut reading = Reading {
            digests,
            nodes: Vec::new(),
            imported: Vec::new(),
            scopes: Vec::new(),
            shapes: Vec::new(),
        };
        // A name that is no text is called otherwise by those who ask.
        let is_wanted = |value: AttributeValue<Bytes<'s>>| {
            let is_asked = |names: &HashSet<&[u8]>| {
                let text = dwarf.attr_string(&read, value).ok()?;
                let text = text.slice();
                Some(names.contains(text) || std::str::from_utf8(text).is_err())
            };
            names.is_none_or(|names| is_asked(names) == Some(true))
        };
        if names.is_some() && !has_wanted(&read, &is_wanted).unwrap_or(true) {
            return InUnit::default();
        }
        // What was read before a broken place is as good as what lies before it.
        let _broken = self.read_nodes(unit, &read, &is_wanted, &mut reading);
        reading.close();
        InUnit {
            types: reading.types(),
            imported: reading.imported,
        }
    }

    fn read_nodes(
        &self,
        unit: usize,
        read: &Unit<Bytes<'s>>,
        is_wanted: &dyn Fn(AttributeValue<Bytes<'s>>) -> bool,
        into: &mut Reading<'_>,
    ) -> Result<(), gimli::Error> {
        let file = self.units[unit].file;
        let digests = into.digests;
        let text = |value: AttributeValue<Bytes<'s>>| match value {
            AttributeValue::DebugStrRef(at) => Some(digests.of((1, file, at.0))),
            AttributeValue::DebugLineStrRef(at) => Some(digests.of((2, file, at.0))),
            value => {
                let text = self.dwarf(unit).attr_string(read, value).ok()?;
                Some(digests.of((3, text.slice())))
            }
        };
        let mut open: Vec<(isize, u32)> = Vec::new();
        let mut entries = read.entries_raw(None)?;
        while !entries.is_empty() {
            let (offset, depth) = (entries.next_offset(), entries.next_depth());
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            let number =
                u32::try_from(into.nodes.len()).map_err(|_| gimli::Error::OffsetOutOfBounds(0))?;
            while open.pop_if(|(of, _)| *of >= depth).is_some() {}
            let parent = open.last().map(|(_, parent)| *parent);
            let tag = abbreviation.tag();
            let in_type = || {
                let parent = parent.map(|parent| into.nodes[parent as usize].tag);
                parent == Some(dw::DW_TAG_subroutine_type)
            };
            if !takes_part(tag) && (tag != dw::DW_TAG_formal_parameter || !in_type()) {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let mut node = Node {
                offset: offset.0,
                tag,
                parent,
                end: number + 1,
                name: None,
                own: 0,
                of: Target::Nothing,
                origin: Target::Nothing,
                declares: false,
                apart: false,
                wanted: false,
            };
            let mut own = (digests.one.build_hasher(), digests.other.build_hasher());
            let mut origin = None;
            tag.0.hash(&mut own.0);
            tag.0.hash(&mut own.1);
            for spec in abbreviation.attributes() {
                let attribute = entries.read_attribute(*spec)?;
                let (name, value) = (attribute.name(), attribute.value());
                match name {
                    dw::DW_AT_name => {
                        node.name = text(value);
                        node.wanted = is_named_type(tag) && is_wanted(value);
                    }
                    dw::DW_AT_import if tag == dw::DW_TAG_imported_unit => {
                        let other = self.referred(unit, value);
                        into.imported.extend(other.map(|die| die.unit));
                    }
                    dw::DW_AT_type => node.of = target(read, value),
                    dw::DW_AT_abstract_origin | dw::DW_AT_specification | dw::DW_AT_signature => {
                        node.declares |= name == dw::DW_AT_signature;
                        // In the order in which they are asked for.
                        let rank = match name {
                            dw::DW_AT_abstract_origin => 0,
                            dw::DW_AT_specification => 1,
                            _ => 2,
                        };
                        if origin.is_none_or(|known| rank < known) {
                            origin = Some(rank);
                            node.origin = target(read, value);
                        }
                    }
                    dw::DW_AT_declaration => (node.declares, node.apart) = (true, true),
                    dw::DW_AT_external => node.apart = true,
                    dw::DW_AT_byte_size
                    | dw::DW_AT_bit_size
                    | dw::DW_AT_bit_offset
                    | dw::DW_AT_data_bit_offset
                    | dw::DW_AT_data_member_location
                    | dw::DW_AT_const_value
                    | dw::DW_AT_discr_value
                    | dw::DW_AT_upper_bound
                    | dw::DW_AT_count
                    | dw::DW_AT_encoding => {
                        let encoding = match value {
                            AttributeValue::Encoding(encoding) => Some(encoding.0),
                            _ => None,
                        };
                        let said = (name.0, value.udata_value(), value.sdata_value(), encoding);
                        said.hash(&mut own.0);
                        said.hash(&mut own.1);
                    }
                    _ => {}
                }
            }
            node.own = u128::from(own.0.finish()) << 64 | u128::from(own.1.finish());
            into.nodes.push(node);
            if abbreviation.has_children() {
                open.push((depth, number));
            }
        }
        Ok(())
    }
}

/// True if a unit has a type that somebody asks for.
fn has_wanted<'s>(
    read: &Unit<Bytes<'s>>,
    is_wanted: &dyn Fn(AttributeValue<Bytes<'s>>) -> bool,
) -> Result<bool, gimli::Error> {
    let mut entries = read.entries_raw(None)?;
    while !entries.is_empty() {
        let Some(abbreviation) = entries.read_abbreviation()? else {
            continue;
        };
        let specs = abbreviation.attributes();
        let name = specs.iter().position(|spec| spec.name() == dw::DW_AT_name);
        let Some(name) = name.filter(|_| is_named_type(abbreviation.tag())) else {
            entries.skip_attributes(specs)?;
            continue;
        };
        entries.skip_attributes(&specs[..name])?;
        if is_wanted(entries.read_attribute(specs[name])?.value()) {
            return Ok(true);
        }
        entries.skip_attributes(&specs[name + 1..])?;
    }
    Ok(false)
}

fn target(read: &Unit<Bytes<'_>>, value: AttributeValue<Bytes<'_>>) -> Target {
    match value {
        AttributeValue::UnitRef(at) => Target::Here(at.0),
        AttributeValue::DebugInfoRef(at) => {
            let here = at.to_unit_offset(&read.header);
            here.map_or(Target::Elsewhere, |at| Target::Here(at.0))
        }
        _ => Target::Elsewhere,
    }
}

/// False for what neither is a type nor names one. Most entries describe code.
fn takes_part(tag: DwTag) -> bool {
    !matches!(
        tag,
        dw::DW_TAG_variable
            | dw::DW_TAG_formal_parameter
            | dw::DW_TAG_lexical_block
            | dw::DW_TAG_inlined_subroutine
            | dw::DW_TAG_call_site
            | dw::DW_TAG_call_site_parameter
            | dw::DW_TAG_GNU_call_site
            | dw::DW_TAG_GNU_call_site_parameter
            | dw::DW_TAG_label
            | dw::DW_TAG_template_type_parameter
            | dw::DW_TAG_template_value_parameter
            | dw::DW_TAG_GNU_template_template_param
            | dw::DW_TAG_GNU_template_parameter_pack
            | dw::DW_TAG_GNU_formal_parameter_pack
            | dw::DW_TAG_imported_declaration
            | dw::DW_TAG_imported_module
    )
}

fn is_composite(tag: DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_structure_type
            | dw::DW_TAG_class_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_enumeration_type
    )
}

fn is_named_type(tag: DwTag) -> bool {
    is_composite(tag) || tag == dw::DW_TAG_typedef
}

fn is_scope(tag: DwTag) -> bool {
    let code = [
        dw::DW_TAG_subprogram,
        dw::DW_TAG_namespace,
        dw::DW_TAG_module,
    ];
    code.contains(&tag) || is_composite(tag)
}
