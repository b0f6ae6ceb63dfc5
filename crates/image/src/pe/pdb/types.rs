//! Types: their sizes, and how functions are called.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use ms_codeview::types::{TypeData, TypeIndex, TypesIter};
use ms_pdb::ReadAt;
use ms_pdb::tpi::TypeStream;

use super::budget::Budget;
use super::texts::text;
use super::{File, broken};
use crate::pe::PeError;

/// Deeper than this no type goes.
pub(super) const DEEPEST: usize = 16;

pub(super) struct Types {
    stream: TypeStream<Vec<u8>>,
    /// What functions are called that were inlined; older linkers write none of it.
    items: Option<TypeStream<Vec<u8>>>,
    /// Sizes of types that are only named where they are used.
    sizes: OnceCell<HashMap<String, u64>>,
    /// How functions are called, by type: a large program has many functions of few types.
    prototypes: RefCell<HashMap<u32, Arc<str>>>,
    /// Names of functions that were inlined, by item: many are inlined in many places.
    inlined: RefCell<HashMap<u32, Option<Arc<str>>>>,
    /// Sizes of types that are only named, by type: their names may be long.
    completed: RefCell<HashMap<u32, u64>>,
    /// For all that is made of the file.
    pub(super) budget: Budget,
}

impl Types {
    pub(super) fn read<F: ReadAt>(file: &File<F>, budget: Budget) -> Result<Types, PeError> {
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
            inlined: RefCell::default(),
            completed: RefCell::default(),
            budget,
        })
    }

    /// The name of a function that was inlined.
    pub(super) fn inlined(&self, item: u32) -> Option<Arc<str>> {
        let mut known = self.inlined.borrow_mut();
        let name = known.entry(item);
        name.or_insert_with(|| self.item(item).map(Arc::from))
            .clone()
    }

    fn item(&self, item: u32) -> Option<String> {
        let record = self.items.as_ref()?.record(TypeIndex(item)).ok()?;
        match record.parse().ok()? {
            TypeData::FuncId(function) => Some(function.name.to_string()),
            TypeData::MFuncId(function) => Some(function.name.to_string()),
            _ => None,
        }
    }

    pub(super) fn records(&self) -> TypesIter<'_> {
        self.stream.iter_type_records()
    }

    pub(super) fn is_primitive(&self, at: TypeIndex) -> bool {
        self.stream.is_primitive(at)
    }

    pub(super) fn get(&self, at: TypeIndex) -> Option<TypeData<'_>> {
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
                    self.complete(at, || of.name.to_string())
                } else {
                    size
                }
            }
            Some(TypeData::Union(of)) => {
                let size = number(of.length.try_into().map_err(|_| ()));
                let forward = of.fixed.property.get().fwdref();
                if forward {
                    self.complete(at, || of.name.to_string())
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
    fn complete(&self, at: TypeIndex, name: impl FnOnce() -> String) -> u64 {
        let mut known = self.completed.borrow_mut();
        let size = || self.sizes_by_name().get(&name()).copied();
        *known.entry(at.0).or_insert_with(|| size().unwrap_or(0))
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

    /// How a function of this type is called.
    pub(super) fn prototype(&self, at: TypeIndex) -> Result<Arc<str>, PeError> {
        let mut known = self.prototypes.borrow_mut();
        if let Some(text) = known.get(&at.0) {
            return Ok(Arc::clone(text));
        }
        let (text, steps) = text(self, at);
        self.budget.spend(text.len() + steps)?;
        let text: Arc<str> = text.into();
        known.insert(at.0, Arc::clone(&text));
        Ok(text)
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
