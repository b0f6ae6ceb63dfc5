//! R-SIZE: a variable that lives in the process can neither grow nor shrink.

use invivo_image::demangle;

use crate::Comparison;
use crate::rules::{Finding, Rule, variables};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for (base, fixed) in variables(c) {
        let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
        if one.size != other.size {
            findings.push(Finding::refuse(
                Rule::Size,
                demangle(one.name()),
                format!(
                    "has {} bytes in the running image and {} in the fixed one; \
                     the running one cannot grow or shrink",
                    one.size, other.size
                ),
            ));
        }
    }
}
