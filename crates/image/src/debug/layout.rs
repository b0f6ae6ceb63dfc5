//! How data are laid out, and how functions are called.
//!
//! Two layouts are equal exactly when two programs lay data out in the same way: sizes,
//! offsets, names and kinds of members, values of enumerators. Of what a pointer points to only the
//! name takes part, or what kind of number it is: code steps through numbers by their size. What has a
//! name has a layout of its own. All single bytes are one there, and so is `void`: that a `char *`
//! becomes an `unsigned char *` or a `void *` is usual in fixes, and moves no byte. A pointer to a
//! function stays one, since the old functions are hooked.

use gimli::constants as dw;

use super::{DebugData, DebugEntry, Die};

/// Deeper than this no description goes: a hostile file may nest without end.
pub(super) const DEEPEST: usize = 16;
/// How many parameters of a function are told that is itself part of a type.
const FEW: usize = 8;

/// How data of a type are laid out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeLayout {
    /// `struct`, `union`, `class`, `enum`.
    pub kind: &'static str,
    /// In bytes.
    pub size: u64,
    /// Fields, base classes, enumerators, in the order of the source.
    pub members: Vec<Member>,
}

/// A part of a layout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its name; empty where it has none.
    pub name: String,
    /// Offset in bytes, in bits for a bit-field; the value of an enumerator.
    pub at: i64,
    /// Bits, for a bit-field.
    pub bits: Option<u64>,
    /// Its type, as far as it takes part in the layout.
    pub shape: String,
    /// Its type for a person.
    pub text: String,
}

impl<'s> DebugData<'s> {
    pub(super) fn layout(&self, die: Die, entry: &DebugEntry<'s>, depth: usize) -> TypeLayout {
        let mut layout = TypeLayout {
            kind: match entry.tag() {
                dw::DW_TAG_union_type => "union",
                dw::DW_TAG_enumeration_type => "enum",
                dw::DW_TAG_class_type => "class",
                _ => "struct",
            },
            size: number(entry, dw::DW_AT_byte_size).unwrap_or(0),
            members: Vec::new(),
        };
        if depth < DEEPEST {
            self.fill(die, depth, "", &mut layout);
        }
        layout
    }

    /// How a variable of this type is laid out: as one member without a name.
    pub(super) fn layout_of_variable(&self, of: Die) -> TypeLayout {
        if let Some((die, entry)) = self.unnamed(of)
            && entry.tag() != dw::DW_TAG_enumeration_type
        {
            return self.layout(die, &entry, 0);
        }
        let (shape, text) = self.describe(Some(of), 0);
        let named = self.entry(of).is_some_and(|entry| {
            entry.tag() == dw::DW_TAG_typedef && self.unnamed_behind(of).is_some()
        });
        TypeLayout {
            kind: "variable",
            size: 0,
            members: vec![Member {
                name: String::new(),
                at: 0,
                bits: None,
                // What a typedef names is compared under that name.
                shape: if named { text.clone() } else { shape },
                text,
            }],
        }
    }

    /// Adds the members below `die`; those of a Rust enumeration's variant get its name in front.
    fn fill(&self, die: Die, depth: usize, prefix: &str, layout: &mut TypeLayout) {
        for child in self.children(die) {
            let at = Die {
                unit: die.unit,
                offset: child.offset(),
            };
            let name = self
                .text(die.unit, &child, dw::DW_AT_name)
                .unwrap_or_default();
            let name = format!("{prefix}{name}");
            let bits = number(&child, dw::DW_AT_bit_size);
            match child.tag() {
                dw::DW_TAG_member | dw::DW_TAG_inheritance => {
                    let place = place(&child).and_then(|place| i64::try_from(place).ok());
                    // A member without a place is at the start of a union, or static.
                    let static_member =
                        child.has_attr(dw::DW_AT_declaration) || child.has_attr(dw::DW_AT_external);
                    if static_member {
                        continue;
                    }
                    let of = self.reference(die.unit, &child, dw::DW_AT_type);
                    let (shape, text) = self.describe(of, depth + 1);
                    layout.members.push(Member {
                        name,
                        at: place.unwrap_or(0),
                        bits,
                        shape,
                        text,
                    });
                }
                dw::DW_TAG_enumerator => layout.members.push(Member {
                    name,
                    at: child
                        .attr_value(dw::DW_AT_const_value)
                        .and_then(|value| {
                            value
                                .sdata_value()
                                .or(value.udata_value().map(u64::cast_signed))
                        })
                        .unwrap_or(0),
                    bits: None,
                    shape: String::new(),
                    text: String::new(),
                }),
                dw::DW_TAG_variant_part if depth < DEEPEST => {
                    self.fill(at, depth + 1, prefix, layout);
                }
                dw::DW_TAG_variant if depth < DEEPEST => {
                    let value = child.attr_value(dw::DW_AT_discr_value);
                    let value = value.and_then(|value| value.udata_value());
                    let tag = value.map_or("otherwise".to_owned(), |value| value.to_string());
                    self.fill(at, depth + 1, &format!("{prefix}[{tag}] "), layout);
                }
                _ => {}
            }
        }
    }

    /// A type as a part of another one: as far as it takes part in the layout, and for a person.
    fn describe(&self, die: Option<Die>, depth: usize) -> (String, String) {
        let Some((die, entry)) = die.and_then(|die| Some((die, self.entry(die)?))) else {
            return ("void".to_owned(), "void".to_owned());
        };
        if depth > DEEPEST {
            return ("…".to_owned(), "…".to_owned());
        }
        let inner = || {
            let of = self.reference(die.unit, &entry, dw::DW_AT_type);
            self.describe(of, depth + 1)
        };
        let size = number(&entry, dw::DW_AT_byte_size).unwrap_or(0);
        match entry.tag() {
            dw::DW_TAG_pointer_type
            | dw::DW_TAG_reference_type
            | dw::DW_TAG_rvalue_reference_type
            | dw::DW_TAG_ptr_to_member_type => {
                // Rust writes the names of its references and pointers itself.
                let own = self.text(die.unit, &entry, dw::DW_AT_name);
                let size = if size == 0 { 8 } else { size };
                // Tables of Rust's traits have types of their own, and are of all lengths here.
                let is_table = own
                    .as_deref()
                    .is_some_and(|own| own.starts_with("&[usize; "));
                let text = own.unwrap_or_else(|| format!("{} *", inner().1));
                if is_table || entry.tag() == dw::DW_TAG_ptr_to_member_type {
                    return (format!("pointer {size}"), text);
                }
                let of = self.reference(die.unit, &entry, dw::DW_AT_type);
                (
                    format!("pointer {size} to {}", self.pointee(of, depth + 1)),
                    text,
                )
            }
            // For people alone, so that it may end early.
            dw::DW_TAG_subroutine_type => {
                let (_, text) = self.prototype_at(die, depth + DEEPEST / 4, FEW);
                ("function".to_owned(), text)
            }
            dw::DW_TAG_array_type => {
                let counts = self.children(die);
                let counts = counts
                    .iter()
                    .filter(|child| child.tag() == dw::DW_TAG_subrange_type);
                let counts: String = counts
                    .map(|range| {
                        let above = number(range, dw::DW_AT_upper_bound);
                        let count = number(range, dw::DW_AT_count)
                            .or(above.map(|above| above.wrapping_add(1)));
                        format!("[{}]", count.unwrap_or(0))
                    })
                    .collect();
                let (shape, text) = inner();
                (format!("{shape}{counts}"), format!("{text}{counts}"))
            }
            dw::DW_TAG_base_type => {
                let encoding = match entry.attr_value(dw::DW_AT_encoding) {
                    Some(gimli::AttributeValue::Encoding(encoding)) => u64::from(encoding.0),
                    _ => 0,
                };
                let name = self.text(die.unit, &entry, dw::DW_AT_name);
                let shape = format!("base {encoding} {size}");
                (shape, name.unwrap_or_else(|| "number".to_owned()))
            }
            _ if is_composite(&entry) => match self.qualified_name(die) {
                // A named part has a layout of its own, compared under its own name.
                Some(name) => (format!("{name} {size}"), name),
                // Its enumerators are compared one by one, and new ones may come.
                None if entry.tag() == dw::DW_TAG_enumeration_type => {
                    (format!("enum {size}"), "enum {…}".to_owned())
                }
                None => {
                    let layout = self.layout(die, &entry, depth + 1);
                    (format!("{layout:?}"), format!("{} {{…}}", layout.kind))
                }
            },
            dw::DW_TAG_typedef => {
                let name = self.text(die.unit, &entry, dw::DW_AT_name);
                let (shape, text) = inner();
                let text = name.unwrap_or(text);
                match self.unnamed_behind(die) {
                    // What is behind the pointer is known by this name.
                    Some((_, _, true)) => (format!("pointer {size} to {text}", size = 8), text),
                    _ => (shape, text),
                }
            }
            // Qualifiers.
            _ => inner(),
        }
    }

    /// What a pointer points to, as far as it takes part in a layout.
    fn pointee(&self, die: Option<Die>, depth: usize) -> String {
        const BYTES: &str = "bytes";
        let Some((die, entry)) = die.and_then(|die| Some((die, self.entry(die)?))) else {
            return BYTES.to_owned();
        };
        if depth > DEEPEST {
            return "…".to_owned();
        }
        let of = self.reference(die.unit, &entry, dw::DW_AT_type);
        match entry.tag() {
            dw::DW_TAG_pointer_type
            | dw::DW_TAG_reference_type
            | dw::DW_TAG_rvalue_reference_type => format!("* {}", self.pointee(of, depth + 1)),
            dw::DW_TAG_base_type if number(&entry, dw::DW_AT_byte_size).unwrap_or(0) <= 1 => {
                BYTES.to_owned()
            }
            dw::DW_TAG_base_type => self.describe(Some(die), depth).0,
            dw::DW_TAG_subroutine_type => "function".to_owned(),
            dw::DW_TAG_typedef => {
                let unnamed = self.unnamed_behind(die).is_some();
                match self.qualified_name(die) {
                    Some(name) if unnamed => name,
                    _ => self.pointee(of, depth + 1),
                }
            }
            _ if is_composite(&entry) => match self.qualified_name(die) {
                Some(name) => name,
                // What has no name cannot hold itself; broken data may say so all the same.
                None => self.describe(Some(die), depth + DEEPEST / 2).0,
            },
            // Elements lie one behind the other.
            dw::DW_TAG_array_type => self.describe(Some(die), depth).0,
            // Qualifiers.
            _ => self.pointee(of, depth + 1),
        }
    }

    /// The composite without a name that a typedef names, and whether it names a pointer to it.
    pub(super) fn unnamed_behind(&self, typedef: Die) -> Option<(Die, DebugEntry<'s>, bool)> {
        const LONGEST: usize = 4;
        let mut pointer = false;
        let mut next = self.type_of(typedef)?;
        for _ in 0..LONGEST {
            if let Some((die, entry)) = self.unnamed(next) {
                return Some((die, entry, pointer));
            }
            let entry = self.entry(next)?;
            match entry.tag() {
                dw::DW_TAG_pointer_type if !pointer => pointer = true,
                dw::DW_TAG_const_type | dw::DW_TAG_volatile_type => {}
                _ => return None,
            }
            next = self.reference(next.unit, &entry, dw::DW_AT_type)?;
        }
        None
    }

    /// The entry, if it is a composite without a name.
    pub(super) fn unnamed(&self, die: Die) -> Option<(Die, DebugEntry<'s>)> {
        let entry = self.entry(die)?;
        let unnamed = is_composite(&entry) && entry.attr_value(dw::DW_AT_name).is_none();
        unnamed.then_some((die, entry))
    }

    /// What a caller and a function must agree on: unlike in a layout, also what a pointer
    /// points to. A `struct store **` that becomes a `struct message **` is another agreement.
    fn agreement(&self, die: Option<Die>, depth: usize) -> String {
        let Some((die, entry)) = die.and_then(|die| Some((die, self.entry(die)?))) else {
            return "void".to_owned();
        };
        if depth > DEEPEST {
            return "…".to_owned();
        }
        let inner = || {
            let of = self.reference(die.unit, &entry, dw::DW_AT_type);
            self.agreement(of, depth + 1)
        };
        match entry.tag() {
            dw::DW_TAG_pointer_type
            | dw::DW_TAG_reference_type
            | dw::DW_TAG_rvalue_reference_type => format!("* {}", inner()),
            dw::DW_TAG_typedef
            | dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type => inner(),
            _ if is_composite(&entry) => match self.qualified_name(die) {
                Some(name) => name,
                None => self.describe(Some(die), depth).0,
            },
            _ => self.describe(Some(die), depth).0,
        }
    }

    /// How the function, or type of a function, at `die` is called.
    pub(super) fn prototype(&self, die: Die) -> (String, String) {
        self.prototype_at(die, 0, usize::MAX)
    }

    /// The same for a part of another type, with so many parameters at most: broken data may lead
    /// from a function's type to that type itself.
    fn prototype_at(&self, die: Die, depth: usize, most: usize) -> (String, String) {
        let of = |die: Die| {
            let of = self.type_of(die);
            let (shape, text) = self.describe(of, depth + 1);
            (format!("{shape} {}", self.agreement(of, depth + 1)), text)
        };
        let result = of(die);
        let mut shapes = Vec::new();
        let mut texts = Vec::new();
        for child in self.children(die) {
            let at = Die {
                unit: die.unit,
                offset: child.offset(),
            };
            match child.tag() {
                dw::DW_TAG_formal_parameter if texts.len() == most => {
                    texts.push("…".to_owned());
                    break;
                }
                dw::DW_TAG_formal_parameter => {
                    let (shape, text) = of(at);
                    shapes.push(shape);
                    texts.push(text);
                }
                dw::DW_TAG_unspecified_parameters => {
                    shapes.push("…".to_owned());
                    texts.push("…".to_owned());
                }
                _ => {}
            }
        }
        let how = self.convention(die).unwrap_or_default();
        (
            format!("{how}{}({})", result.0, shapes.join(", ")),
            format!("{how}{} ({})", result.1, texts.join(", ")),
        )
    }
}

/// Where a member is: in bytes, for a bit-field in bits.
fn place(member: &DebugEntry<'_>) -> Option<u64> {
    let location = number(member, dw::DW_AT_data_member_location);
    let Some(bits) = number(member, dw::DW_AT_bit_size) else {
        return location;
    };
    let new = number(member, dw::DW_AT_data_bit_offset);
    new.or_else(|| {
        // Until DWARF 3 the offset counts from the highest bit of what holds the field.
        let before = number(member, dw::DW_AT_bit_offset)?;
        let holder = number(member, dw::DW_AT_byte_size).unwrap_or(0);
        let from = location.unwrap_or(0).checked_add(holder)?.checked_mul(8)?;
        Some(from.wrapping_sub(before).wrapping_sub(bits))
    })
}

pub(super) fn number(entry: &DebugEntry<'_>, name: gimli::DwAt) -> Option<u64> {
    entry.attr_value(name).and_then(|value| value.udata_value())
}

pub(super) fn is_composite(entry: &DebugEntry<'_>) -> bool {
    matches!(
        entry.tag(),
        dw::DW_TAG_structure_type
            | dw::DW_TAG_class_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_enumeration_type
    )
}
