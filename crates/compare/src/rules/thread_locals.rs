//! R-TLS: running threads have their blocks of thread-locals already.

use invivo_image::{Image, LinkAddr, SectionKind, Symbol, demangle};

use crate::Comparison;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    let place = |s: &Symbol| (s.name.clone(), s.addr, s.size);
    let base: Vec<_> = c.base.thread_locals.iter().map(place).collect();
    for local in &c.fixed.thread_locals {
        let mut refuse = |text: &str| {
            let name = demangle(&local.name);
            findings.push(Finding::refuse(Rule::ThreadLocals, name, text));
        };
        if !base.contains(&place(local)) {
            refuse(
                "is a thread-local that is new or has another place or size; running threads \
                 have their blocks already",
            );
        } else if c.base.tls_block != c.fixed.tls_block {
            // Code counts back from the end of the block.
            refuse(
                "is a thread-local in a block of another size, and so at another distance from \
                 the thread pointer; running threads have their blocks already",
            );
        } else {
            // The initial values may hold pointers, as those of a static libc do.
            let same = match (initial(c.base, local), initial(c.fixed, local)) {
                (Some(one), Some(other)) => meaning.same_data(one, other, local.size),
                (one, other) => one == other,
            };
            if !same {
                refuse(
                    "is a thread-local with another initial value; running threads keep what \
                     they have",
                );
            }
        }
    }
}

/// Where the initial value of a thread-local is; `None` if it starts as zero.
fn initial(image: &Image, local: &Symbol) -> Option<LinkAddr> {
    let mut sections = image.sections.iter().filter(|s| s.kind == SectionKind::Tls);
    let at = sections.next()?.range.start.checked_add(local.addr.0)?;
    (image.section_at(at)?.kind == SectionKind::Tls).then_some(at)
}
