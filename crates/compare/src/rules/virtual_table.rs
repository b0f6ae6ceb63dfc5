//! R-VTABLE: live objects hold the tables of virtual functions that the base has.
//!
//! Rust's tables have no symbols. The type that the debug data give to each of them
//! (`<T as Trait>::{vtable_type}`) falls under R-LAYOUT, but it does not say which method is where: so
//! those that code hands out are held against each other by the names in the debug data.

use std::collections::BTreeMap;

use invivo_image::{LinkAddr, TraitTable, demangle};

use crate::Comparison;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    for (base, fixed) in c.pairs.iter() {
        let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
        let is_table = ["_ZTV", "??_7"]
            .iter()
            .any(|kind| one.name().starts_with(kind));
        if !is_table || meaning.same_object(base, fixed) {
            continue;
        }
        let how = if one.size == other.size {
            "names other functions, or another type,".to_owned()
        } else {
            format!(
                "has {} entries and not {}",
                other.size / c.fixed.pointer_size(),
                one.size / c.base.pointer_size()
            )
        };
        findings.push(Finding::refuse(
            Rule::VirtualTable,
            class(one.name()),
            format!(
                "is a class whose table of virtual functions {how} in the fixed image; live objects \
                 keep the old table"
            ),
        ));
    }
    of_traits(c, &meaning, findings);
}

/// Tables of traits: where and how long those of one name are.
fn of_traits(c: &Comparison<'_>, meaning: &Meaning<'_, '_>, findings: &mut Vec<Finding>) {
    let (Ok(before), Ok(after)) = (&c.base_source, &c.fixed_source) else {
        return;
    };
    let (before, after) = (by_name(&before.trait_tables), by_name(&after.trait_tables));
    for (name, tables) in before {
        // A number in the name of a closure may be that of another one; R-REMOVED tells them apart.
        let Some(others) = after.get(name).filter(|_| !name.contains("{closure")) else {
            continue;
        };
        let is_kept = |(at, size): &(LinkAddr, u64)| {
            let mut others = others.iter().filter(|(_, other)| other == size).peekable();
            // Another length is R-LAYOUT's.
            others.peek().is_none()
                || others.any(|(other, _)| meaning.same_data(*at, *other, *size))
        };
        if !tables.iter().all(is_kept) {
            findings.push(Finding::refuse(
                Rule::VirtualTable,
                name,
                "is an implementation of a trait whose table of methods names other functions in the \
                 fixed image, or the same ones in another order; live values keep the old table",
            ));
        }
    }
}

fn by_name(tables: &[TraitTable]) -> BTreeMap<&str, Vec<(LinkAddr, u64)>> {
    let mut found: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for table in tables {
        found
            .entry(&table.name)
            .or_default()
            .push((table.at, table.size));
    }
    found
}

/// The class whose table has this name: the demangler says `{vtable(Shape)}`. In names of Visual C++
/// (`??_7Box@shapes@@6B@`) what a class is in stands behind it.
fn class(table: &str) -> String {
    let name = demangle(table);
    let class = name.strip_prefix("{vtable(");
    let class = class.and_then(|rest| rest.strip_suffix(")}"));
    if let Some(class) = class {
        return class.to_owned();
    }
    let of_windows = name.strip_prefix("??_7");
    let of_windows = of_windows.and_then(|rest| rest.split_once("@@6"));
    match of_windows.filter(|(class, _)| !class.contains(['?', '$'])) {
        Some((class, _)) => class.rsplit('@').collect::<Vec<_>>().join("::"),
        None => name,
    }
}
