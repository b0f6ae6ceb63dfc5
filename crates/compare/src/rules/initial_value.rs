//! R-INIT: a variable that lives in the process keeps the value that it has.

use invivo_image::{EntityKind, demangle};

use crate::Comparison;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule, constant, is_variable, variables};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    for (base, fixed) in variables(c) {
        let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
        if one.size == other.size
            && !meaning.same_object(base, fixed)
            && !constant::is_all_that_differs(c, &meaning, base, fixed)
        {
            findings.push(Finding::refuse(
                Rule::InitialValue,
                demangle(one.name()),
                "has another initial value in the fixed image; the running one keeps \
                 what it has, which the fixed code may not expect",
            ));
        }
    }
    turned(c, &meaning, findings);
}

/// What can be written in one build only: compilers keep a static that nobody writes among the
/// constants.
fn turned(c: &Comparison<'_>, meaning: &Meaning<'_, '_>, findings: &mut Vec<Finding>) {
    for (base, fixed) in c.pairs.iter() {
        let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
        let objects = [one, other]
            .into_iter()
            .all(|entity| entity.kind == EntityKind::Object && entity.size > 0);
        let objects = objects && !c.base.is_copied(base) && !c.fixed.is_copied(fixed);
        let what = match (is_variable(c.base, base), is_variable(c.fixed, fixed)) {
            (false, true) if objects => {
                "is a constant in the running image, which the fixed code could not write"
            }
            (true, false) if objects && !meaning.same_object(base, fixed) => {
                "is a variable in the running image, and a constant with another value in the \
                 fixed one; who holds its address keeps the old value"
            }
            _ => continue,
        };
        findings.push(Finding::refuse(
            Rule::InitialValue,
            demangle(one.name()),
            what,
        ));
    }
}
