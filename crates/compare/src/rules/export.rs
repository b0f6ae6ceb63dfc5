//! R-EXPORT: what other images of the process may bind to.

use std::collections::BTreeMap;

use invivo_image::{Image, demangle};

use crate::Comparison;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    // Of object files every global name counts as one, since other files may use it.
    if c.base.is_of_objects() {
        return;
    }
    let (base, fixed) = (exports(c.base), exports(c.fixed));
    for (name, weak) in base.iter().filter(|(name, _)| !fixed.contains_key(*name)) {
        findings.push(if c.base.is_library && !weak {
            Finding::refuse(
                Rule::Export,
                demangle(name),
                "is no longer exported by the fixed library; whoever bound to it goes on calling \
                 or reading the old one",
            )
        } else {
            Finding::note(
                Rule::Export,
                demangle(name),
                "is no longer exported by the fixed image; whoever bound to it keeps the old one",
            )
        });
    }
    for name in fixed.keys().filter(|name| !base.contains_key(*name)) {
        findings.push(Finding::note(
            Rule::Export,
            demangle(name),
            "is a new export; other images find it only after the next start",
        ));
    }
}

/// Exported names, and whether each may have other bearers (`weak`).
fn exports(image: &Image) -> BTreeMap<&str, bool> {
    let copied = super::copied(image);
    let names = image.entities.iter().flat_map(|entity| &entity.names);
    names
        .filter(|symbol| symbol.exported && !copied.contains(&*symbol.name))
        .map(|symbol| (&*symbol.name, symbol.weak))
        .collect()
}
