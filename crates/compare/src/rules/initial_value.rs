//! R-INIT: a variable that lives in the process keeps the value that it has.

use invivo_image::demangle;

use crate::Comparison;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule, constant, variables};

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
}
