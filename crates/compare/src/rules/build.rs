//! R-BUILD: two builds that differ in more than the fix.

use invivo_image::EntityKind;

use crate::Comparison;
use crate::rules::{Finding, Rule};

/// A hot set that is far too large has another cause than the fix.
pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let functions = c
        .base
        .entities
        .iter()
        .filter(|e| e.kind == EntityKind::Function)
        .count();
    if c.hot.len() > 50 && c.hot.len() * 3 > functions {
        findings.push(Finding::note(
            Rule::Build,
            format!("{} of {functions} functions", c.hot.len()),
            "differ, which no fix does: compare the compiler, its flags and the source \
             paths of the two builds",
        ));
    }
}
