//! R-STACK: functions that do not return run their old body for good.

use invivo_image::demangle;

use crate::Comparison;
use crate::rules::body::{Body, Stays};
use crate::rules::endings::Endings;
use crate::rules::{Finding, Rule};

/// The text of the note for a function that stays.
const STAYS: &str = "stays on its thread's stack: what changed in its own body takes effect only when it \
                     is called again";
/// For one that stays on one of its ways, such as what a child of `fork` does.
const MAY_STAY: &str = "has a loop that nothing leaves but what ends the thread or the process: where it runs, what \
                        changed in it takes effect only when it is called again";

/// Functions that are entered once and stay: their frames run old code for good.
pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let mut endings = Endings::of(c.base, &c.base_cold);
    for hot in &c.hot {
        let entity = c.base.entity(hot.base.main);
        let is_main = entity.name() == "main" || hot.name.ends_with("::main");
        let stays = Body::of(c.base, &hot.base).map(|body| body.stays(&mut endings));
        let text = match stays.unwrap_or(Stays::Never) {
            Stays::Never if !is_main => continue,
            Stays::OnOneWay if !is_main => MAY_STAY,
            _ => STAYS,
        };
        findings.push(Finding::note(Rule::Stack, demangle(entity.name()), text));
    }
}
