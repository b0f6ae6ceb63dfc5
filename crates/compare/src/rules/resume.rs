//! R-RESUME: places inside functions that live data hold are places of the old code.
//!
//! Calls of a coroutine that wait go on in new code where they stood in the old one, as a number
//! says. Whoever keeps `&&label` in data goes on in the old code, with the frame of the new one.

use std::collections::BTreeSet;

use invivo_image::x86_64::decode;
use invivo_image::{Image, Place, Slot, demangle, stem};

use crate::Comparison;
use crate::hot::{Hot, Parts};
use crate::labels::{Labels, labelled, stranger};
use crate::rules::{Finding, Rule, is_variable};

/// What LLVM makes of a coroutine besides the function that starts one: what goes on with one that
/// waits, and what ends it early. Both begin with a jump to the place that the frame names by its
/// number.
const PARTS: [&str; 3] = [".resume", ".destroy", ".cleanup"];

/// What GCC makes of one: the function that goes on, from the place that the frame names by its number.
const ACTOR: &str = ".actor";

/// A coroutine of C++ by clang, whose frames say nothing of their places: with one `co_yield` more
/// before another, a frame of the same layout goes on at the wrong one.
///
/// GCC's frames have a field for each place and Rust's a variant, so that R-LAYOUT sees it; but for places that are
/// exchanged: `co_await flush(); co_await close();` the other way round has the same frame, if both wait alike.
pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for hot in &c.hot {
        let name = c.base.entity(hot.base.main).name();
        if PARTS.iter().any(|part| name.ends_with(part)) {
            findings.push(Finding::refuse(
                Rule::Resume,
                demangle(name),
                "goes on with calls that wait, at the place that has the same number in new code; \
                 whether it is the same place nothing tells",
            ));
        } else if name.ends_with(ACTOR) && called(c.base, &hot.base) != called(c.fixed, &hot.fixed)
        {
            findings.push(Finding::refuse(
                Rule::Resume,
                demangle(name),
                "goes on with calls that wait, at the place that has the same number in new code, and what \
                 it calls between these places is not the same, in the same order",
            ));
        } else if !c.base.is_windows()
            && let Some(text) = kept_place(c, hot)
        {
            findings.push(Finding::refuse(Rule::Resume, &hot.name, text));
        }
    }
}

/// The names of what a function calls, in the order of its instructions.
fn called(image: &Image, parts: &Parts) -> Vec<Option<String>> {
    let mut found = Vec::new();
    for part in parts.ids() {
        let lines = decode(image, image.entity(part)).unwrap_or_default();
        for line in lines.iter().filter(|line| line.is_call()) {
            let name = line
                .references()
                .find_map(|to| match image.place(to.target) {
                    Place::In(id, _) => Some(stem(image.entity(id).name()).to_owned()),
                    Place::Stub(Slot::Import(name, _) | Slot::LazyImport(name))
                    | Place::Slot(Slot::Import(name, _) | Slot::LazyImport(name)) => {
                        Some(name.to_string())
                    }
                    _ => None,
                });
            found.push(name);
        }
    }
    found
}

/// Why live data may hold a place inside the old version of a function that the new one jumps to.
fn kept_place(c: &Comparison<'_>, hot: &Hot) -> Option<String> {
    // What the new version jumps to counts, and whether the old one has given places away.
    let before = Labels::of(c.base, &c.base_usage, &hot.base)?;
    let after = Labels::of(c.fixed, &c.fixed_usage, &hot.fixed)?;
    if !before.jumps || !after.jumps {
        return None;
    }
    if before.taken {
        return Some(
            "takes addresses of places inside itself and jumps to such: live data may hold one of \
             the old version, where new code would go on with another frame"
                .to_owned(),
        );
    }
    let variables = holders(c, hot);
    if let Some(name) = variables.first() {
        return Some(format!(
            "the variable {name} holds places inside the old version, and the new one may jump there"
        ));
    }
    let name = |table| demangle(c.base.entity(table).name());
    if let Some(table) = before.tables.iter().find(|_| before.strays || after.strays) {
        return Some(format!(
            "{} holds places inside it, and not every jump goes straight through there: live data \
             may hold places of the old version",
            name(*table)
        ));
    }
    before.tables.iter().find_map(|table| {
        let other = stranger(&c.base_usage, c.base, &hot.base, *table)?;
        Some(format!(
            "{} holds places inside it, and {} refers to that, too",
            name(*table),
            name(other)
        ))
    })
}

/// Variables of the base that hold places inside the old version.
fn holders(c: &Comparison<'_>, hot: &Hot) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in hot.base.ids() {
        for at in c.base_usage.pointed.get(&part).into_iter().flatten() {
            let holder = c
                .base
                .entity_at(*at)
                .filter(|_| !c.base.is_constant_at(*at));
            let Some(holder) = holder.filter(|id| is_variable(c.base, *id)) else {
                continue;
            };
            if labelled(c.base, holder).contains(&part) {
                found.insert(demangle(c.base.entity(holder).name()));
            }
        }
    }
    found
}
