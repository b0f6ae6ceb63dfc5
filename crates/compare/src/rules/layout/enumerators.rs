//! Enumerators keep their values: live data hold them, mostly in plain numbers.

use std::collections::{BTreeMap, BTreeSet};

use invivo_image::{Enumerator, TypeLayout, UsedType};

use crate::Source;
use crate::rules::{Finding, Rule};

/// What is in names of enumerators that count the others, or tell where they end: nothing has their value.
const COUNTS: [&str; 27] = [
    "all",
    "bound",
    "cnt",
    "count",
    "counts",
    "end",
    "highest",
    "last",
    "lastentry",
    "lastone",
    "len",
    "length",
    "limit",
    "max",
    "n",
    "nb",
    "nr",
    "num",
    "number",
    "numof",
    "nums",
    "past",
    "sentinel",
    "size",
    "sum",
    "top",
    "total",
];

/// Finds what enumerations without a name have renumbered. The last one of a whole file may be
/// a count (`enum { A, B, ALL }`), which moves; a function's is a state like the others.
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
        if let [(name, before, after)] = moved[..]
            && is_count(name)
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
            (other.at != one.at).then_some((one, other))
        });
        match (moved.next(), moved.next()) {
            (None, _) => false,
            (Some((from, to)), None) => {
                !is_count(&from.name)
                    || (Some(from.at), Some(to.at)) != (highest(old), highest(new))
            }
            _ => true,
        }
    };
    let mut new = after.layouts.iter();
    new.any(|new| before.layouts.iter().all(|old| moved(old, new)))
}

/// True for the name of what counts other enumerators: `KIND_MAX`, `kindCount`, `NKINDS`, `kinds`. A state that is
/// called as any other has a number that live data hold, though it is the last one.
fn is_count(name: &str) -> bool {
    let name = name.rsplit("::").next().unwrap_or(name);
    let mut words: Vec<String> = Vec::new();
    let letters: Vec<char> = name.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| letters[before]);
        let is_lower = |letter: Option<&char>| letter.is_some_and(|one| one.is_lowercase());
        // `kindCount`, `HTTPMax`.
        let begins = letter.is_uppercase()
            && (before.is_some_and(|before| !before.is_uppercase())
                || is_lower(letters.get(at + 1)));
        if begins || before.is_none_or(|before| !before.is_alphanumeric()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| letter.is_alphanumeric()) {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    let is_plural = |word: &String| word.ends_with('s') && !word.ends_with("ss");
    words
        .iter()
        .any(|word| COUNTS.contains(&word.as_str()) || word.starts_with("max"))
        || matches!(&words[..], [only] if is_plural(only))
}

#[cfg(test)]
mod tests {
    use super::is_count;

    #[test]
    fn counts_have_names_that_tell() {
        let counts = [
            "KIND_MAX",
            "kindCount",
            "NKINDS",
            "kinds",
            "N_KINDS",
            "__NKINDS",
            "HTTPMax",
            "MAXKIND",
            "CODEC_NB",
            "http::Kind::last",
            "__KIND_END",
        ];
        for name in counts {
            assert!(is_count(name), "{name}");
        }
        for name in [
            "CLOSED",
            "sw_done",
            "kProcess",
            "Kind::lost",
            "IN_PROGRESS",
            "nothing",
        ] {
            assert!(!is_count(name), "{name}");
        }
    }
}
