//! R-LIBRARY: the running process has loaded the libraries that the base needs, no others.

use std::collections::BTreeSet;

use invivo_image::Image;

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
    for (version, library) in versions(c.fixed).difference(&versions(c.base)) {
        // A library that is not loaded is refused as a whole.
        if c.base.needed.iter().any(|needed| needed == library) {
            findings.push(Finding::refuse(
                Rule::Library,
                format!("{library} {version}"),
                "is a version that only the fixed image needs; it is not known whether the loaded \
                 library has it",
            ));
        }
    }
}

/// The versions of symbols that an image needs, each with its library.
fn versions(image: &Image) -> BTreeSet<(&str, &str)> {
    let versions = image
        .imports
        .iter()
        .filter_map(|import| import.version.as_ref());
    versions
        .map(|(version, library)| (&**version, &**library))
        .collect()
}
