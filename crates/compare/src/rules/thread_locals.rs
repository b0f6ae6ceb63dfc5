//! R-TLS: running threads have their blocks of thread-locals already.

use invivo_image::{Image, SectionKind, demangle};

use crate::Comparison;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let layout = |image: &Image| -> Vec<(String, u64, u64)> {
        let mut all: Vec<_> = image
            .thread_locals
            .iter()
            .map(|s| (s.name.to_string(), s.addr.0, s.size))
            .collect();
        all.sort();
        all
    };
    let (base, fixed) = (layout(c.base), layout(c.fixed));
    for missing in fixed.iter().filter(|local| !base.contains(local)) {
        findings.push(Finding::refuse(
            Rule::ThreadLocals,
            demangle(&missing.0),
            "is a thread-local that is new or has another place or size; running threads \
             have their blocks already",
        ));
    }
    let bytes = |image: &Image| {
        let sections = image.sections.iter().filter(|s| s.kind == SectionKind::Tls);
        sections
            .flat_map(|s| image.section_bytes(s).to_vec())
            .collect::<Vec<u8>>()
    };
    if base == fixed && (c.base.tls_block != c.fixed.tls_block || bytes(c.base) != bytes(c.fixed)) {
        findings.push(Finding::refuse(
            Rule::ThreadLocals,
            "thread-locals",
            "have other initial values in the fixed image; running threads keep what they have",
        ));
    }
}
