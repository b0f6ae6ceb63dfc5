//! Enumerators keep their values: live data hold them, mostly in plain numbers.

use std::collections::{BTreeMap, BTreeSet};

use invivo_image::{Enumerator, TypeLayout, UsedType};

use crate::Source;
use crate::rules::{Finding, Rule};

/// Finds what enumerations without a name have renumbered. The last one of a whole file is often
/// a count (`enum { A, B, ALL }`) and may move; a function's is a state like the others.
pub(super) fn find(base: &Source, fixed: &Source, findings: &mut Vec<Finding>) {
    let mut enumerations: BTreeMap<&str, Vec<(&str, &Enumerator)>> = BTreeMap::new();
    for (name, one) in &fixed.enumerators {
        enumerations
            .entry(&one.first)
            .or_default()
            .push((name, one));
    }
    // What a typedef names is compared under that name.
    let types = fixed.types.values().chain(fixed.beside.values());
    let layouts = types.flat_map(|used| &used.layouts);
    let named: BTreeSet<(&str, i64)> = layouts
        .filter(|layout| layout.kind == "enum")
        .flat_map(|layout| layout.members.iter().map(|m| (m.name.as_str(), m.at)))
        .collect();
    for members in enumerations.into_values() {
        let has_name = |(name, one): &(&str, &Enumerator)| {
            let own = name.rsplit("::").next().unwrap_or(name);
            one.values
                .iter()
                .all(|value| named.contains(&(own, *value)))
        };
        if members.iter().all(has_name) {
            continue;
        }
        let moved = members.iter().filter_map(|(name, after)| {
            let before = base.enumerators.get(*name)?;
            (!after.values.is_subset(&before.values)).then_some((*name, before, *after))
        });
        let moved: Vec<(&str, &Enumerator, &Enumerator)> = moved.collect();
        if let [(_, before, after)] = moved[..]
            && before.is_last
            && after.is_last
            && !after.is_local
        {
            continue;
        }
        let Some((name, before, after)) = moved.first() else {
            continue;
        };
        let place = super::place(before.declared.as_ref(), after.declared.as_ref());
        let list = |one: &Enumerator| {
            let values: Vec<String> = one.values.iter().map(i64::to_string).collect();
            values.join(" or ")
        };
        let more = match moved.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more of its enumeration changed"),
        };
        findings.push(Finding::refuse(
            Rule::Layout,
            *name,
            format!(
                "was {} and is {}{place}{more}; live data hold the old numbers, in whatever type",
                list(before),
                list(after)
            ),
        ));
    }
}

/// True if an enumeration with a name gives another value to an enumerator that it had, other
/// than to its last one, which is often a count.
pub(super) fn is_renumbered(base: &Source, name: &str, after: &UsedType) -> bool {
    let Some(before) = base.layouts(name) else {
        return false;
    };
    let moved = |old: &TypeLayout, new: &TypeLayout| {
        let highest = |layout: &TypeLayout| layout.members.iter().map(|m| m.at).max();
        let mut moved = old.members.iter().filter_map(|one| {
            let other = new.members.iter().find(|other| other.name == one.name)?;
            (other.at != one.at).then_some((one.at, other.at))
        });
        match (moved.next(), moved.next()) {
            (None, _) => false,
            (Some((from, to)), None) => (Some(from), Some(to)) != (highest(old), highest(new)),
            _ => true,
        }
    };
    let mut new = after.layouts.iter();
    new.any(|new| before.layouts.iter().all(|old| moved(old, new)))
}
