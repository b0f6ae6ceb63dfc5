//! R-RESUME: places inside functions that live data hold are places of the old code.
//!
//! Calls of a coroutine that wait go on in new code where they stood in the old one, as a number
//! says. Whoever keeps `&&label` in data goes on in the old code, with the frame of the new one.

use std::collections::BTreeSet;

use invivo_image::demangle;

use crate::Comparison;
use crate::hot::Hot;
use crate::labels::{Labels, labelled, stranger};
use crate::rules::{Finding, Rule, is_variable};

/// What LLVM makes of a coroutine besides the function that starts one: what goes on with one that
/// waits, and what ends it early. Both begin with a jump to the place that the frame names by its
/// number.
const PARTS: [&str; 3] = [".resume", ".destroy", ".cleanup"];

/// A coroutine of C++ by clang, whose frames say nothing of their places: with one `co_yield` more
/// before another, a frame of the same layout goes on at the wrong one.
///
/// GCC's frames have a field for each place and Rust's a variant, so that R-LAYOUT sees it.
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
        } else if !c.base.is_windows()
            && let Some(text) = kept_place(c, hot)
        {
            findings.push(Finding::refuse(Rule::Resume, &hot.name, text));
        }
    }
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
