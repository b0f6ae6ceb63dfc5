//! R-LIBRARY: the running process has loaded the libraries that the base needs, no others.
//!
//! Another version of one of them is a matter of what is imported: whether the loaded library
//! has it is seen when the patch is applied.

use crate::Comparison;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for library in c
        .fixed
        .needed
        .iter()
        .filter(|library| !c.base.needed.contains(library))
    {
        findings.push(Finding::refuse(
            Rule::Library,
            library.as_str(),
            "is needed by the fixed image only; the running process has not loaded it",
        ));
    }
}
