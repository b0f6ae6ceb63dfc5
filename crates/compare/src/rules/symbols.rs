//! R-SYMBOLS: without the names of functions and variables nothing can be paired.

use crate::Comparison;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for (which, image) in [("base", c.base), ("fixed", c.fixed)] {
        if !image.has_symbols {
            findings.push(Finding::refuse(
                Rule::Symbols,
                which,
                format!(
                    "the {which} image has no symbol table; its debug file is needed \
                     (--{which}-debug FILE, or installed below /usr/lib/debug/.build-id)"
                ),
            ));
        }
    }
}
