//! R-VTABLE: live objects hold the tables of virtual functions that the base has.
//!
//! Rust's tables have no symbols; the type that the debug data give to each of them
//! (`<T as Trait>::{vtable_type}`) falls under R-LAYOUT.

use invivo_image::demangle;

use crate::Comparison;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule};

/// A pointer, in bytes.
const ENTRY: u64 = 8;

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    for (base, fixed) in c.pairs.iter() {
        let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
        if !one.name().starts_with("_ZTV") || meaning.same_object(base, fixed) {
            continue;
        }
        let how = if one.size == other.size {
            "names other functions, or another type,".to_owned()
        } else {
            format!(
                "has {} entries and not {}",
                other.size / ENTRY,
                one.size / ENTRY
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
}

/// The class whose table has this name: the demangler says `{vtable(Shape)}`.
fn class(table: &str) -> String {
    let name = demangle(table);
    let class = name.strip_prefix("{vtable(");
    let class = class.and_then(|rest| rest.strip_suffix(")}"));
    class.map_or_else(|| name.clone(), str::to_owned)
}
