//! R-STATIC: a variable that only the fixed image has lives in the patch.

use std::collections::HashSet;

use invivo_image::{demangle, stem};

use crate::Comparison;
use crate::rules::{Finding, Rule, is_variable};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let is_lost = |id| is_variable(c.base, id) && c.pairs.fixed_of(id).is_none();
    let lost: HashSet<&str> = c
        .base
        .entity_ids()
        .filter(|(id, _)| is_lost(*id))
        .map(|(_, entity)| stem(entity.name()))
        .collect();
    let copied = super::copied(c.fixed);
    for (id, entity) in c.fixed.entity_ids() {
        let name = entity.name();
        let is_new = is_variable(c.fixed, id) && c.pairs.base_of(id).is_none();
        // One that may be an old one is the planner's to refuse; a reference to a
        // personality routine is no variable of the program.
        if !is_new
            || lost.contains(stem(name))
            || copied.contains(name)
            || name.starts_with("DW.ref.")
        {
            continue;
        }
        let text = if name.starts_with("_ZGV") {
            "guards a new static variable, which is made when new code first comes to it"
        } else {
            "is a new variable: it lives in the patch and starts with its initial value when the \
             patch becomes live, whatever has happened before"
        };
        findings.push(Finding::note(Rule::Static, demangle(name), text));
    }
}
