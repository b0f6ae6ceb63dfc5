//! R-START: what runs at start has run.

use crate::Comparison;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    for name in [
        ".preinit_array",
        ".init_array",
        ".fini_array",
        ".ctors",
        ".dtors",
    ] {
        let (one, other) = (c.base.section_named(name), c.fixed.section_named(name));
        let same = match (one, other) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                let size = a.range.end.0 - a.range.start.0;
                size == b.range.end.0 - b.range.start.0
                    && meaning.same_data(a.range.start, b.range.start, size)
            }
            _ => false,
        };
        if !same {
            findings.push(Finding::refuse(
                Rule::Start,
                name,
                "lists other functions in the fixed image; those of the running one ran at its start",
            ));
        }
    }
}
