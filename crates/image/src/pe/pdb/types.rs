//! Types: sizes, layouts, and how functions are called.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ms_codeview::types::fields::Field;
use ms_codeview::types::{TypeData, TypeIndex};
use ms_pdb::ReadAt;
use ms_pdb::tpi::TypeStream;

use super::{File, broken};
use crate::debug::{Member, TypeLayout, UsedType, UsedTypes};
use crate::pe::PeError;

/// Deeper than this no type goes.
const DEEPEST: usize = 16;
/// More members than any type has.
const MOST_MEMBERS: usize = 1 << 16;
/// Texts grow by what is inside them.
const LONGEST: usize = 1 << 12;

pub(super) struct Types {
    stream: TypeStream<Vec<u8>>,
    /// What functions are called that were inlined; older linkers write none of it.
    items: Option<TypeStream<Vec<u8>>>,
    /// Sizes of types that are only named where they are used.
    sizes: OnceCell<HashMap<String, u64>>,
    /// How functions are called, by type: a large program has many functions of few types.
    prototypes: RefCell<HashMap<u32, Arc<str>>>,
}

impl Types {
    pub(super) fn read<F: ReadAt>(file: &File<F>) -> Result<Types, PeError> {
        let stream = file.read_type_stream().map_err(broken)?;
        // Each record has four bytes at least.
        if u64::from(stream.num_types()) > stream.type_records_bytes().len() as u64 / 4 {
            return Err(broken("it counts more types than it has"));
        }
        let items = file.read_ipi_stream().ok().filter(|items| {
            u64::from(items.num_types()) <= items.type_records_bytes().len() as u64 / 4
        });
        Ok(Types {
            stream,
            items,
            sizes: OnceCell::new(),
            prototypes: RefCell::default(),
        })
    }

    /// The name of a function that was inlined.
    pub(super) fn inlined(&self, item: u32) -> Option<String> {
        let record = self.items.as_ref()?.record(TypeIndex(item)).ok()?;
        match record.parse().ok()? {
            TypeData::FuncId(function) => Some(function.name.to_string()),
            TypeData::MFuncId(function) => Some(function.name.to_string()),
            _ => None,
        }
    }

    fn get(&self, at: TypeIndex) -> Option<TypeData<'_>> {
        let record = self.stream.record(at).ok()?;
        record.parse().ok()
    }

    /// Bytes of a type; 0 where that is not known.
    pub(super) fn size(&self, at: TypeIndex) -> u64 {
        self.size_within(at, 0)
    }

    fn size_within(&self, at: TypeIndex, depth: usize) -> u64 {
        if depth > DEEPEST {
            return 0;
        }
        if self.stream.is_primitive(at) {
            return primitive_size(at.0);
        }
        let number = |value: Result<u64, _>| value.unwrap_or(0);
        match self.get(at) {
            Some(TypeData::Array(array)) => number(array.len.try_into().map_err(|_| ())),
            Some(TypeData::Struct(of)) => {
                let size = number(of.length.try_into().map_err(|_| ()));
                let forward = of.fixed.property.get().fwdref();
                if forward {
                    self.complete(&of.name.to_string())
                } else {
                    size
                }
            }
            Some(TypeData::Union(of)) => {
                let size = number(of.length.try_into().map_err(|_| ()));
                let forward = of.fixed.property.get().fwdref();
                if forward {
                    self.complete(&of.name.to_string())
                } else {
                    size
                }
            }
            Some(TypeData::Enum(of)) => self.size_within(of.fixed.underlying_type.get(), depth + 1),
            Some(TypeData::Modifier(of)) => self.size_within(of.underlying_type.get(), depth + 1),
            Some(TypeData::Bitfield(of)) => self.size_within(of.underlying_type.get(), depth + 1),
            // The size stands in bits 13 to 18 of the attributes.
            Some(TypeData::Pointer(of)) => u64::from((of.fixed.attr.get() >> 13) & 0x3f),
            _ => 0,
        }
    }

    /// The size of a type that is only named where it is used.
    fn complete(&self, name: &str) -> u64 {
        self.sizes_by_name().get(name).copied().unwrap_or(0)
    }

    fn sizes_by_name(&self) -> &HashMap<String, u64> {
        self.sizes.get_or_init(|| {
            let mut sizes = HashMap::new();
            for record in self.stream.iter_type_records() {
                let (name, size) = match record.parse() {
                    Ok(TypeData::Struct(of)) if !of.fixed.property.get().fwdref() => {
                        (of.name.to_string(), of.length.try_into().unwrap_or(0))
                    }
                    Ok(TypeData::Union(of)) if !of.fixed.property.get().fwdref() => {
                        (of.name.to_string(), of.length.try_into().unwrap_or(0))
                    }
                    _ => continue,
                };
                sizes.insert(name, size);
            }
            sizes
        })
    }

    /// All types that have a layout, by name.
    pub(super) fn layouts(&self) -> UsedTypes {
        let mut found = UsedTypes::new();
        for record in self.stream.iter_type_records() {
            let (name, kind, size, fields, forward) = match record.parse() {
                Ok(TypeData::Struct(of)) => (
                    of.name.to_string(),
                    "struct",
                    of.length.try_into().unwrap_or(0),
                    of.fixed.field_list.get(),
                    of.fixed.property.get().fwdref(),
                ),
                Ok(TypeData::Union(of)) => (
                    of.name.to_string(),
                    "union",
                    of.length.try_into().unwrap_or(0),
                    of.fixed.fields.get(),
                    of.fixed.property.get().fwdref(),
                ),
                Ok(TypeData::Enum(of)) => (
                    of.name.to_string(),
                    "enum",
                    self.size(of.fixed.underlying_type.get()),
                    of.fixed.fields.get(),
                    of.fixed.property.get().fwdref(),
                ),
                _ => continue,
            };
            if forward {
                continue;
            }
            let layout = TypeLayout {
                kind,
                size,
                members: self.members(fields),
            };
            // All types of the program are looked at, whoever uses them.
            let used = found.entry(name).or_insert_with(|| UsedType {
                layouts: BTreeSet::new(),
                declared: None,
                by: usize::MAX,
            });
            used.layouts.insert(layout);
        }
        found
    }

    fn members(&self, fields: TypeIndex) -> Vec<Member> {
        let mut members = Vec::new();
        for field in self.stream.iter_fields(fields).take(MOST_MEMBERS) {
            let (name, at, of) = match field {
                Field::Member(member) => {
                    let at = u64::try_from(member.offset).unwrap_or(0);
                    (member.name.to_string(), at.cast_signed(), Some(member.ty))
                }
                Field::BaseClass(base) => {
                    let at = u64::try_from(base.offset).unwrap_or(0);
                    (String::new(), at.cast_signed(), Some(base.ty))
                }
                Field::Enumerate(value) => {
                    let at = i64::try_from(value.value).unwrap_or(0);
                    (value.name.to_string(), at, None)
                }
                Field::VFuncTable(of) => ("virtual table".to_owned(), 0, Some(of)),
                // Methods, static members and nested types are no part of the layout.
                _ => continue,
            };
            let mut member = Member {
                name,
                at,
                bits: None,
                shape: String::new(),
                text: String::new(),
            };
            if let Some(of) = of {
                member.text = self.text(of, 0);
                member.shape = self.shape(of, 0);
                if let Some(TypeData::Bitfield(bits)) = self.get(of) {
                    member.bits = Some(bits.length.into());
                    member.at = member.at.saturating_mul(8) + i64::from(bits.position);
                }
            }
            members.push(member);
        }
        members
    }

    /// A type as a part of another one: what a pointer points to is no part of the layout.
    fn shape(&self, at: TypeIndex, depth: usize) -> String {
        match self.get(at).filter(|_| depth <= DEEPEST) {
            Some(TypeData::Pointer(_)) => "pointer".to_owned(),
            Some(TypeData::Array(array)) => {
                let element = self.shape(array.fixed.element_type.get(), depth + 1);
                format!("{element}[{} bytes]", self.size(at))
            }
            Some(TypeData::Modifier(of)) => self.shape(of.underlying_type.get(), depth + 1),
            Some(TypeData::Bitfield(of)) => self.shape(of.underlying_type.get(), depth + 1),
            _ => self.text(at, depth),
        }
    }

    /// A type for a person.
    fn text(&self, at: TypeIndex, depth: usize) -> String {
        if depth > DEEPEST {
            return "…".to_owned();
        }
        if self.stream.is_primitive(at) {
            return format!("{at:?}");
        }
        let inner = |of: TypeIndex| self.text(of, depth + 1);
        let text = match self.get(at) {
            Some(TypeData::Pointer(of)) => format!("{} *", inner(of.fixed.ty.get())),
            Some(TypeData::Array(of)) => {
                let bytes = self.size(at);
                format!("{}[{bytes} bytes]", inner(of.fixed.element_type.get()))
            }
            Some(TypeData::Struct(of)) => of.name.to_string(),
            Some(TypeData::Union(of)) => of.name.to_string(),
            Some(TypeData::Enum(of)) => of.name.to_string(),
            Some(TypeData::Modifier(of)) => inner(of.underlying_type.get()),
            Some(TypeData::Bitfield(of)) => inner(of.underlying_type.get()),
            Some(TypeData::Proc(of)) => {
                let arguments = self.arguments(of.arg_list.get(), depth + 1);
                let how = convention(of.call);
                format!("{} {how}({arguments})", inner(of.return_value.get()))
            }
            Some(TypeData::MemberFunc(of)) => {
                let arguments = self.arguments(of.arg_list.get(), depth + 1);
                let class = inner(of.class.get());
                let how = convention(of.call);
                format!(
                    "{} {how}{class}::({arguments})",
                    inner(of.return_value.get())
                )
            }
            _ => format!("type {:#x}", at.0),
        };
        text.chars().take(LONGEST).collect()
    }

    fn arguments(&self, list: TypeIndex, depth: usize) -> String {
        let Some(TypeData::ArgList(list)) = self.get(list) else {
            return String::new();
        };
        let texts = list
            .args
            .iter()
            .take(64)
            .map(|of| self.text(of.get(), depth));
        texts.collect::<Vec<_>>().join(", ")
    }

    /// How a function of this type is called.
    pub(super) fn prototype(&self, at: TypeIndex) -> Arc<str> {
        let mut known = self.prototypes.borrow_mut();
        let text = known.entry(at.0).or_insert_with(|| self.text(at, 0).into());
        Arc::clone(text)
    }
}

/// How a function is called, where that is not the usual way: on x86 callers and callees must agree
/// on who takes the arguments from the stack, and which are in registers.
fn convention(number: u8) -> String {
    match number {
        0x00 => String::new(),
        0x02 => "__pascal ".to_owned(),
        0x04 => "__fastcall ".to_owned(),
        0x07 => "__stdcall ".to_owned(),
        0x0b => "__thiscall ".to_owned(),
        0x16 => "__clrcall ".to_owned(),
        0x18 => "__vectorcall ".to_owned(),
        other => format!("(calling convention {other:#x}) "),
    }
}

/// The size of a type that has no record: pointers have a mode in bits 8 to 10.
fn primitive_size(number: u32) -> u64 {
    match (number >> 8) & 7 {
        0 => {}
        4 => return 4,
        6 => return 8,
        7 => return 16,
        _ => return 0,
    }
    match number & 0xff {
        0x10 | 0x20 | 0x30 | 0x68..=0x70 | 0x7c => 1,
        0x11 | 0x21 | 0x31 | 0x46 | 0x71..=0x73 | 0x7a => 2,
        0x08 | 0x12 | 0x22 | 0x32 | 0x40 | 0x74 | 0x75 | 0x7b => 4,
        0x13 | 0x23 | 0x33 | 0x41 | 0x50 | 0x76 | 0x77 => 8,
        0x42 => 10,
        0x14 | 0x24 | 0x43 | 0x51 | 0x78 | 0x79 => 16,
        _ => 0,
    }
}
