//! Layouts of types.

use std::collections::BTreeSet;

use ms_codeview::types::fields::Field;
use ms_codeview::types::{TypeData, TypeIndex};

use super::broken;
use super::texts::{shape, text};
use super::types::Types;
use crate::debug::{Member, TypeLayout, UsedType, UsedTypes};
use crate::pe::PeError;

/// More members than any type has.
const MOST_MEMBERS: usize = 1 << 16;
/// A list that is too long for one record goes on in another one; no type has so many.
const MOST_LISTS: usize = 1 << 10;

/// All types that have a layout, by name.
pub(super) fn layouts(types: &Types) -> Result<UsedTypes, PeError> {
    let mut found = UsedTypes::new();
    for record in types.records() {
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
                types.size(of.fixed.underlying_type.get()),
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
            members: members(types, fields, &name)?,
        };
        // All types of the program are looked at, whoever uses them.
        let used = found.entry(name).or_insert_with(|| UsedType {
            layouts: BTreeSet::new(),
            declared: None,
            by: usize::MAX,
        });
        used.layouts.insert(layout);
    }
    Ok(found)
}

fn members(types: &Types, fields: TypeIndex, name: &str) -> Result<Vec<Member>, PeError> {
    let (mut members, mut next) = (Vec::new(), Some(fields));
    for _ in 0..MOST_LISTS {
        let Some(TypeData::FieldList(list)) = next.take().and_then(|at| types.get(at)) else {
            return Ok(members);
        };
        // Any number of types may name one list.
        types.budget.spend(list.bytes.len())?;
        for field in list.iter() {
            if let Field::Index(at) = field {
                next = Some(at);
            } else if members.len() < MOST_MEMBERS {
                members.extend(member(types, &field)?);
            }
        }
    }
    let name: String = name.chars().take(200).collect();
    Err(broken(format!("the members of {name} have no end")))
}

fn member(types: &Types, field: &Field<'_>) -> Result<Option<Member>, PeError> {
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
        Field::VFuncTable(of) => ("virtual table".to_owned(), 0, Some(*of)),
        // Methods, static members and nested types are no part of the layout.
        _ => return Ok(None),
    };
    let mut member = Member {
        name,
        at,
        bits: None,
        shape: String::new(),
        text: String::new(),
    };
    let mut steps = 0;
    if let Some(of) = of {
        let (text, shape) = (text(types, of), shape(types, of));
        steps = text.1 + shape.1;
        (member.text, member.shape) = (text.0, shape.0);
        if let Some(TypeData::Bitfield(bits)) = types.get(of) {
            member.bits = Some(bits.length.into());
            member.at = member.at.saturating_mul(8) + i64::from(bits.position);
        }
    }
    let letters = member.name.len() + member.text.len() + member.shape.len();
    types.budget.spend(size_of::<Member>() + letters + steps)?;
    Ok(Some(member))
}
