//! R-SIGNATURE: functions that unpatched code calls are called as before.
//!
//! A caller inside the image needs no care of its own: if it is not in the hot set, its
//! code is the same in the fixed image, so it is right for the new function, too. Who is
//! in another image is not seen; and who holds a pointer may be a frame of old code.

use crate::Comparison;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for hot in &c.hot {
        let Some((before, after)) = hot.prototypes() else {
            continue;
        };
        let place = hot.fixed_source.as_ref().and_then(|s| s.declared.as_ref());
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        let change = format!("its signature changed{place}: {before} became {after}");
        let names = &c.base.entity(hot.base.main).names;
        let exported = names.iter().any(|symbol| symbol.exported);
        if exported && c.base.is_library {
            findings.push(Finding::refuse(
                Rule::Signature,
                &hot.name,
                format!(
                    "{change}; it is exported, and other images of the process may call it in \
                     the old way"
                ),
            ));
        } else if exported {
            // Programs that are linked with `-rdynamic` export all that they have; only
            // modules which they load import any of it, and the process shows which.
            findings.push(Finding::note(
                Rule::Signature,
                &hot.name,
                format!(
                    "{change}; it is exported, so the patch is refused by processes in which \
                     another image imports it, and goes live only while no thread is inside \
                     what is replaced"
                ),
            ));
        } else if c.base_usage.address_is_taken(hot.base.main) {
            findings.push(Finding::note(
                Rule::Signature,
                &hot.name,
                format!(
                    "{change}; it is called through pointers, so old and new callers must not \
                     mix: the switch waits until no thread is inside what is replaced"
                ),
            ));
        }
    }
}
