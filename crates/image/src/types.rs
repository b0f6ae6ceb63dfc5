//! Layouts of types and prototypes of functions, as the DWARF data have them.
//!
//! A layout is a text that is equal exactly when two programs lay data out in the
//! same way: sizes, offsets, names and kinds of members, values of enumerators. What
//! a pointer points to is no part of it. One name may have several layouts, in
//! several files; so a name has a set of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use gimli::{
    AttributeValue, DwAt, DwTag, Dwarf, EndianSlice, LittleEndian, Unit, UnitHeader,
    constants as dw,
};
use object::{Object, ObjectSection};
use rayon::prelude::*;

use crate::Image;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// All layouts and prototypes of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeLayouts {
    /// Structures, unions, classes and enumerations, by qualified name.
    pub types: BTreeMap<String, BTreeSet<TypeLayout>>,
    /// Functions, by linkage name where they have one.
    pub prototypes: BTreeMap<String, BTreeSet<String>>,
}

/// One layout of a type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeLayout(pub String);

impl Image {
    /// Reads the DWARF data of the image or of its debug file; `None` if there are none.
    ///
    /// # Errors
    /// A text that says what is broken.
    pub fn type_layouts(&self) -> Result<Option<TypeLayouts>, String> {
        let files = std::iter::once(&self.file).chain(&self.debug_file);
        for file in files {
            let file = object::File::parse(&file[..]).map_err(|e| e.to_string())?;
            if file.section_by_name(".debug_info").is_some() {
                return read(&file)
                    .map(Some)
                    .map_err(|e| format!("debug data: {e}"));
            }
        }
        Ok(None)
    }
}

fn read(file: &object::File<'_>) -> Result<TypeLayouts, gimli::Error> {
    let load = |id: gimli::SectionId| -> Result<Cow<'_, [u8]>, gimli::Error> {
        let section = file.section_by_name(id.name());
        let data = section.and_then(|section| section.uncompressed_data().ok());
        Ok(data.unwrap_or_default())
    };
    let sections = gimli::DwarfSections::load(load)?;
    let dwarf: Dwarf<Bytes<'_>> = sections.borrow(|bytes| EndianSlice::new(bytes, LittleEndian));
    let mut headers = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        headers.push(header);
    }
    let parts: Vec<TypeLayouts> = headers
        .into_par_iter()
        .map(|header| read_unit(&dwarf, header))
        .collect::<Result<_, _>>()?;
    let mut all = TypeLayouts::default();
    for part in parts {
        for (name, layouts) in part.types {
            all.types.entry(name).or_default().extend(layouts);
        }
        for (name, prototypes) in part.prototypes {
            all.prototypes.entry(name).or_default().extend(prototypes);
        }
    }
    Ok(all)
}

/// An entry of a unit, as far as layouts need it.
struct Entry {
    tag: DwTag,
    parent: Option<usize>,
    children: Vec<usize>,
    name: Option<String>,
    linkage_name: Option<String>,
    /// Offset in the unit of the type.
    of: Option<usize>,
    size: Option<u64>,
    place: Option<u64>,
    bits: Option<u64>,
    value: Option<i64>,
    count: Option<u64>,
    encoding: Option<u64>,
    declaration: bool,
}

struct Entries {
    all: Vec<Entry>,
    by_offset: HashMap<usize, usize>,
}

fn read_unit(
    dwarf: &Dwarf<Bytes<'_>>,
    header: UnitHeader<Bytes<'_>>,
) -> Result<TypeLayouts, gimli::Error> {
    let unit = dwarf.unit(header)?;
    let entries = Entries::read(dwarf, &unit)?;
    let mut layouts = TypeLayouts::default();
    for (index, entry) in entries.all.iter().enumerate() {
        match entry.tag {
            dw::DW_TAG_structure_type
            | dw::DW_TAG_class_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_enumeration_type
                if !entry.declaration && entry.name.is_some() =>
            {
                let layout = TypeLayout(entries.layout(index, 0));
                layouts
                    .types
                    .entry(entries.qualified_name(index))
                    .or_default()
                    .insert(layout);
            }
            // An unnamed structure is known by the name that is given to it.
            dw::DW_TAG_typedef => {
                let Some(target) = entries.target(entry) else {
                    continue;
                };
                let unnamed = entries.all[target].name.is_none() && entries.is_composite(target);
                if unnamed {
                    let layout = TypeLayout(entries.layout(target, 0));
                    layouts
                        .types
                        .entry(entries.qualified_name(index))
                        .or_default()
                        .insert(layout);
                }
            }
            dw::DW_TAG_subprogram if !entry.declaration => {
                if let Some(name) = entry.linkage_name.as_ref().or(entry.name.as_ref()) {
                    let prototype = entries.prototype(index);
                    layouts
                        .prototypes
                        .entry(name.clone())
                        .or_default()
                        .insert(prototype);
                }
            }
            _ => {}
        }
    }
    Ok(layouts)
}

impl Entries {
    fn read(dwarf: &Dwarf<Bytes<'_>>, unit: &Unit<Bytes<'_>>) -> Result<Entries, gimli::Error> {
        let mut entries = Entries {
            all: Vec::new(),
            by_offset: HashMap::new(),
        };
        let mut parents: Vec<(isize, usize)> = Vec::new();
        let mut cursor = unit.entries();
        while let Some(entry) = cursor.next_dfs()? {
            while parents
                .last()
                .is_some_and(|(depth, _)| *depth >= entry.depth())
            {
                parents.pop();
            }
            let text = |name: DwAt| {
                let value = entry.attr_value(name)?;
                let text = dwarf.attr_string(unit, value).ok()?;
                Some(String::from_utf8_lossy(text.slice()).into_owned())
            };
            let number = |name: DwAt| entry.attr_value(name).and_then(|value| value.udata_value());
            let index = entries.all.len();
            let parent = parents.last().map(|(_, parent)| *parent);
            if let Some(parent) = parent {
                entries.all[parent].children.push(index);
            }
            parents.push((entry.depth(), index));
            entries.by_offset.insert(entry.offset().0, index);
            entries.all.push(Entry {
                tag: entry.tag(),
                parent,
                children: Vec::new(),
                name: text(dw::DW_AT_name),
                linkage_name: text(dw::DW_AT_linkage_name),
                of: match entry.attr_value(dw::DW_AT_type) {
                    Some(AttributeValue::UnitRef(offset)) => Some(offset.0),
                    _ => None,
                },
                size: number(dw::DW_AT_byte_size),
                place: number(dw::DW_AT_data_member_location).or(number(dw::DW_AT_data_bit_offset)),
                bits: number(dw::DW_AT_bit_size),
                value: entry
                    .attr_value(dw::DW_AT_const_value)
                    .and_then(|value| value.sdata_value()),
                count: number(dw::DW_AT_count)
                    .or(number(dw::DW_AT_upper_bound).map(|n| n.wrapping_add(1))),
                encoding: match entry.attr_value(dw::DW_AT_encoding) {
                    Some(AttributeValue::Encoding(encoding)) => Some(u64::from(encoding.0)),
                    _ => None,
                },
                declaration: entry.has_attr(dw::DW_AT_declaration),
            });
        }
        Ok(entries)
    }

    fn target(&self, entry: &Entry) -> Option<usize> {
        self.by_offset.get(&entry.of?).copied()
    }

    fn is_composite(&self, index: usize) -> bool {
        let tag = self.all[index].tag;
        [
            dw::DW_TAG_structure_type,
            dw::DW_TAG_class_type,
            dw::DW_TAG_union_type,
            dw::DW_TAG_enumeration_type,
        ]
        .contains(&tag)
    }

    fn qualified_name(&self, index: usize) -> String {
        let mut names = Vec::new();
        let mut at = Some(index);
        while let Some(here) = at {
            let entry = &self.all[here];
            if entry.tag != dw::DW_TAG_compile_unit {
                names.extend(entry.name.as_deref());
            }
            at = entry.parent;
        }
        names.reverse();
        names.join("::")
    }

    /// The layout of a structure, union, class or enumeration.
    fn layout(&self, index: usize, depth: usize) -> String {
        const DEEPEST: usize = 16;
        let entry = &self.all[index];
        let mut text = format!("{} {}", entry.tag, entry.size.unwrap_or(0));
        if depth > DEEPEST {
            return text + " …";
        }
        for child in entry.children.iter().map(|child| &self.all[*child]) {
            let name = child.name.as_deref().unwrap_or("");
            let of = || {
                self.target(child)
                    .map_or("void".to_owned(), |of| self.describe(of, depth + 1))
            };
            let part = match child.tag {
                dw::DW_TAG_member | dw::DW_TAG_inheritance => {
                    // A static member has no place in the object.
                    let Some(place) = child
                        .place
                        .or((entry.tag == dw::DW_TAG_union_type).then_some(0))
                    else {
                        continue;
                    };
                    let bits = child.bits.map_or(String::new(), |bits| format!(":{bits}"));
                    format!("{name}@{place}{bits} {}", of())
                }
                dw::DW_TAG_enumerator => format!("{name}={}", child.value.unwrap_or(0)),
                dw::DW_TAG_variant_part | dw::DW_TAG_variant => {
                    let inner: Vec<usize> = child.children.clone();
                    let parts = inner.iter().map(|inner| self.variant(*inner, depth + 1));
                    parts.collect::<Vec<_>>().join(" | ")
                }
                _ => continue,
            };
            text.push_str("; ");
            text.push_str(&part);
        }
        text
    }

    /// A variant of a Rust enumeration, with what is in it.
    fn variant(&self, index: usize, depth: usize) -> String {
        const DEEPEST: usize = 16;
        let entry = &self.all[index];
        let of = self
            .target(entry)
            .map_or(String::new(), |of| self.describe(of, depth));
        let name = entry.name.as_deref().unwrap_or("");
        let mut text = format!("{name}@{} {of}", entry.place.unwrap_or(0));
        if depth < DEEPEST {
            for child in &entry.children {
                text.push_str(&self.variant(*child, depth + 1));
            }
        }
        text
    }

    /// A type as a part of another one.
    fn describe(&self, index: usize, depth: usize) -> String {
        const DEEPEST: usize = 16;
        let entry = &self.all[index];
        if depth > DEEPEST {
            return "…".to_owned();
        }
        let inner = || {
            self.target(entry)
                .map_or("void".to_owned(), |of| self.describe(of, depth + 1))
        };
        match entry.tag {
            dw::DW_TAG_pointer_type
            | dw::DW_TAG_reference_type
            | dw::DW_TAG_rvalue_reference_type
            | dw::DW_TAG_ptr_to_member_type => "pointer".to_owned(),
            dw::DW_TAG_array_type => {
                let ranges = entry.children.iter().map(|child| &self.all[*child]);
                let counts = ranges.filter(|child| child.tag == dw::DW_TAG_subrange_type);
                let counts: Vec<_> = counts
                    .map(|range| format!("[{}]", range.count.unwrap_or(0)))
                    .collect();
                format!("{}{}", inner(), counts.join(""))
            }
            dw::DW_TAG_base_type => {
                format!(
                    "{}-byte {}",
                    entry.size.unwrap_or(0),
                    entry.encoding.unwrap_or(0)
                )
            }
            _ if self.is_composite(index) => match &entry.name {
                // A named part has a layout of its own, compared under its own name.
                Some(_) => format!("{} {}", self.qualified_name(index), entry.size.unwrap_or(0)),
                None => format!("{{{}}}", self.layout(index, depth + 1)),
            },
            // Typedefs and qualifiers.
            _ => inner(),
        }
    }

    /// How a function is called.
    fn prototype(&self, index: usize) -> String {
        let entry = &self.all[index];
        let of = |entry: &Entry| {
            self.target(entry)
                .map_or("void".to_owned(), |of| self.describe(of, 1))
        };
        let parameters = entry.children.iter().map(|child| &self.all[*child]);
        let parameters: Vec<String> = parameters
            .filter_map(|child| match child.tag {
                dw::DW_TAG_formal_parameter => Some(of(child)),
                dw::DW_TAG_unspecified_parameters => Some("…".to_owned()),
                _ => None,
            })
            .collect();
        format!("{}({})", of(entry), parameters.join(", "))
    }
}
