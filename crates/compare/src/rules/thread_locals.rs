//! R-TLS: running threads have their blocks of thread-locals already.

use invivo_image::{Image, LinkAddr, SectionKind, demangle};

use crate::Comparison;
use crate::meaning::Meaning;
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
    // The initial values may hold pointers, as those of a static libc do.
    let meaning = Meaning::new(c);
    let blocks = |image: &Image| -> Vec<(LinkAddr, u64)> {
        let sections = image.sections.iter().filter(|s| s.kind == SectionKind::Tls);
        sections
            .map(|s| (s.range.start, s.range.end.0 - s.range.start.0))
            .collect()
    };
    let (ones, others) = (blocks(c.base), blocks(c.fixed));
    let same = c.base.tls_block == c.fixed.tls_block
        && ones.len() == others.len()
        && ones
            .iter()
            .zip(&others)
            .all(|(one, other)| one.1 == other.1 && meaning.same_data(one.0, other.0, one.1));
    if base == fixed && !same {
        findings.push(Finding::refuse(
            Rule::ThreadLocals,
            "thread-locals",
            "have other initial values in the fixed image; running threads keep what they have",
        ));
    }
}
