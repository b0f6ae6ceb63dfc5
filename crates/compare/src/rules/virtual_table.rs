//! R-VTABLE: live objects hold the tables of virtual functions that the base has.
//!
//! Rust's tables have no symbols; the type that the debug data give to each of them
//! (`<T as Trait>::{vtable_type}`) falls under R-LAYOUT.

use invivo_image::demangle;

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
