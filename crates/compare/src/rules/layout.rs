//! R-LAYOUT: types that live data have keep their layout, as far as new code gets at them.

mod enumerators;
pub(super) mod numbers;

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::ops::Range;

use invivo_image::{Member, SourcePlace, TypeLayout, UsedType, demangle};

use crate::rules::{Finding, Rule};
use crate::untyped::Untyped;
use crate::{Comparison, Source, touched};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let (base, fixed) = match (&c.base_source, &c.fixed_source) {
        (Ok(base), Ok(fixed)) => (base, fixed),
        sources => {
            if !c.hot.is_empty() {
                unknown(sources, findings);
            }
            return;
        }
    };
    for untyped in &c.untyped {
        findings.push(Finding::refuse(
            Rule::Layout,
            &untyped.name,
            not_told(untyped),
        ));
    }
    for (name, after) in &fixed.types {
        let Some((text, _)) = changed(base, name, after) else {
            continue;
        };
        let by = c
            .hot
            .get(after.by)
            .map_or("new code", |hot| hot.name.as_str());
        let text =
            format!("{text}; live data of this type are laid out as before, and {by} gets at them");
        findings.push(Finding::refuse(Rule::Layout, name.as_str(), text));
    }
    for (one, other) in &c.held {
        let (Some(before), Some(after)) = (base.variables.get(one), fixed.variables.get(other))
        else {
            continue;
        };
        if holds(&before.layout, &after.layout) {
            continue;
        }
        let place = place(before.declared.as_ref(), after.declared.as_ref());
        let what = match (&before.layout.members[..], &after.layout.members[..]) {
            ([old], [new]) if after.layout.kind == "variable" => {
                format!("was {} and is {}", old.text, new.text)
            }
            _ => changes(&before.layout, &after.layout).join("; "),
        };
        let text = format!(
            "changed its type{place}: {what}; what it holds in the running program is laid out as \
             before, and new code gets at it"
        );
        let name = demangle(c.base.entity(*one).name());
        findings.push(Finding::refuse(Rule::Layout, name, text));
    }
    enumerators::find(base, fixed, findings);
    let touched = LazyCell::new(|| touched::offsets(c));
    for (name, after) in &fixed.beside {
        let Some((text, ranges)) = changed(base, name, after) else {
            continue;
        };
        // Enumerators are numbers in the code, and their values are in variables of any type.
        let is_enum = after.layouts.iter().all(|layout| layout.kind == "enum");
        let overlaps = |range: &Range<i64>| touched.range(range.clone()).next().is_some();
        let text = if is_enum && enumerators::is_renumbered(base, name, after) {
            format!(
                "{text}; its source file is one of new code, and live data hold the old numbers, \
                 in whatever type"
            )
        } else if !is_enum && ranges.iter().any(overlaps) {
            format!(
                "{text}; live data of this type are laid out as before, and new code of the same \
                 source file uses an offset that changed, so it may get at them by a cast"
            )
        } else {
            let text =
                format!("{text}; it is in the same source file, and new code does not get at it");
            findings.push(Finding::note(Rule::Layout, name.as_str(), text));
            continue;
        };
        findings.push(Finding::refuse(Rule::Layout, name.as_str(), text));
    }
}

/// What became of a type, and the offsets at which it is another one; `None` if live data of
/// it are laid out as new code expects.
fn changed(base: &Source, name: &str, after: &UsedType) -> Option<(String, Vec<Range<i64>>)> {
    let before = base.layouts(name)?;
    let fits = |new: &TypeLayout| before.layouts.iter().any(|old| holds(old, new));
    let new = after.layouts.iter().find(|new| !fits(new))?;
    let old = before.layouts.difference(&after.layouts).next();
    let old = old.or(before.layouts.first())?;
    let place = place(before.declared.as_ref(), after.declared.as_ref());
    let text = format!(
        "changed its layout{place}: {}",
        changes(old, new).join("; ")
    );
    Some((text, new_ranges(old, new)))
}

/// Offsets of members that the old layout does not have in the same way.
fn new_ranges(old: &TypeLayout, new: &TypeLayout) -> Vec<Range<i64>> {
    let byte = |member: &Member| {
        if member.bits.is_some() {
            member.at / 8
        } else {
            member.at
        }
    };
    let mut starts: Vec<i64> = new.members.iter().map(byte).collect();
    starts.push(i64::try_from(new.size).unwrap_or(i64::MAX));
    starts.sort_unstable();
    let is_old = |member: &&Member| {
        old.members.iter().any(|m| {
            (&m.name, m.at, m.bits, &m.shape)
                == (&member.name, member.at, member.bits, &member.shape)
        })
    };
    let fresh = new.members.iter().filter(|member| !is_old(member));
    fresh
        .map(|member| {
            let from = byte(member);
            let next = starts.iter().find(|start| **start > from);
            from..next.copied().unwrap_or(from + 1)
        })
        .collect()
}

fn place(before: Option<&SourcePlace>, after: Option<&SourcePlace>) -> String {
    match (before, after) {
        (Some(old), Some(new)) if old == new => format!(" ({old})"),
        (Some(old), Some(new)) => format!(" ({old}, now {new})"),
        (None, Some(place)) | (Some(place), None) => format!(" ({place})"),
        (None, None) => String::new(),
    }
}

/// Why nothing is known of the types that a function gets at, and what helps.
fn not_told(untyped: &Untyped) -> String {
    let which = untyped.which;
    if untyped.assembly {
        return format!(
            "is written in assembly, which tells no types, so it is not known whether the new code \
             gets at live data as they are laid out ({which} image); compare both by eye, and allow it"
        );
    }
    format!(
        "the {which} image's debug data tell no types of it, so neither its signature nor the layout \
         of the data that it gets at is known; build its source file with -g (gcc, clang) or \
         debug=2 (Rust) instead of -g0, -g1, -gline-tables-only or debug=1"
    )
}

fn unknown(
    sources: (&Result<Source, String>, &Result<Source, String>),
    findings: &mut Vec<Finding>,
) {
    for (which, source) in [("base", sources.0), ("fixed", sources.1)] {
        if let Err(why) = source {
            findings.push(Finding::refuse(
                Rule::Layout,
                which,
                format!(
                    "the {which} image {why}, so it is not known whether live data keep their \
                     layout; build with -g, or give its debug file (--{which}-debug FILE)"
                ),
            ));
        }
    }
}

/// True if data that were laid out as `old` says are laid out as `new` says. An enumeration
/// may have new values: no live data hold them yet.
fn holds(old: &TypeLayout, new: &TypeLayout) -> bool {
    let plain = |members: &[Member]| -> BTreeSet<(String, i64, Option<u64>, String)> {
        let parts = members.iter();
        parts
            .map(|m| (m.name.clone(), m.at, m.bits, m.shape.clone()))
            .collect()
    };
    let (before, after) = (plain(&old.members), plain(&new.members));
    let grown = old.kind == "enum" && new.kind == "enum" && before.is_subset(&after);
    old.size == new.size && (before == after || grown)
}

/// What became of the members, at most a few.
fn changes(old: &TypeLayout, new: &TypeLayout) -> Vec<String> {
    const SHOWN: usize = 4;
    let mut found = Vec::new();
    let named = |layout: &TypeLayout, name: &str| -> Option<Member> {
        layout.members.iter().find(|m| m.name == name).cloned()
    };
    for before in &old.members {
        let name = &before.name;
        match named(new, name) {
            None => found.push(format!("{} is gone", show(old, before))),
            Some(after) if old.kind == "enum" && after.at != before.at => {
                found.push(format!("{name} was {} and is {}", before.at, after.at));
            }
            Some(after) if (&after.shape, after.bits) != (&before.shape, before.bits) => {
                found.push(format!(
                    "{} became {}",
                    show(old, before),
                    show(new, &after)
                ));
            }
            Some(after) if after.at != before.at => {
                let unit = if after.bits.is_some() { "bit" } else { "byte" };
                let (from, to) = (before.at, after.at);
                found.push(format!("{name} moved from {unit} {from} to {to}"));
            }
            Some(_) => {}
        }
    }
    for after in new.members.iter().filter(|m| named(old, &m.name).is_none()) {
        found.push(format!("{} is new", show(new, after)));
    }
    if old.size != new.size {
        found.insert(
            0,
            format!("its size was {} bytes and is {}", old.size, new.size),
        );
    }
    if found.len() > SHOWN {
        let more = found.len() - SHOWN;
        found.truncate(SHOWN);
        found.push(format!("and {more} more"));
    }
    found
}

/// A member for a person: `retries: int at byte 8`.
fn show(layout: &TypeLayout, member: &Member) -> String {
    let Member {
        name,
        at,
        bits,
        text,
        ..
    } = member;
    match (layout.kind, bits) {
        ("enum", _) => format!("{name} = {at}"),
        (_, Some(bits)) => format!("{name}: {text} of {bits} bits at bit {at}"),
        _ if name.is_empty() => format!("{text} at byte {at}"),
        _ => format!("{name}: {text} at byte {at}"),
    }
}
