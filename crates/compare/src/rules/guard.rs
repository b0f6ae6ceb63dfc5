//! R-CFG: both builds check calls through pointers in the same way.

use invivo_image::pe::guard_flags;

use crate::Comparison;
use crate::rules::{Finding, Rule};

const SUBJECT: &str = "Control Flow Guard";

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let of = |flags: u32| flags & !guard_flags::TABLE_SIZE_MASK;
    let (base, fixed) = (of(c.base.guard_flags), of(c.fixed.guard_flags));
    if base != fixed {
        let text = format!(
            "GuardFlags are {base:#x} in the base and {fixed:#x} in the fixed image; compile and link \
             both with the same /guard options"
        );
        findings.push(Finding::refuse(Rule::Guard, SUBJECT, text));
    }
    let unknown = [
        (
            guard_flags::TYPE_DIGESTS,
            "a digest of its type stands before each function (XFG), where the jump of a hook goes; \
             build without it",
        ),
        (
            guard_flags::EXPORT_SUPPRESSION,
            "exports may be called only once they were asked for, and how a patch is asked for them is \
             not known; link without /guard:cf,exportsuppress",
        ),
    ];
    for (flag, text) in unknown {
        if (base | fixed) & flag != 0 {
            findings.push(Finding::refuse(Rule::Guard, SUBJECT, text));
        }
    }
}
