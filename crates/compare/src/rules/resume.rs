//! R-RESUME: calls of a coroutine that wait go on in new code where they stood in the old one.

use invivo_image::demangle;

use crate::Comparison;
use crate::rules::{Finding, Rule};

/// What LLVM makes of a coroutine besides the function that starts one: what goes on with one that
/// waits, and what ends it early. Both begin with a jump to the place that the frame names by its
/// number.
const PARTS: [&str; 3] = [".resume", ".destroy", ".cleanup"];

/// A coroutine of C++ by clang, whose frames say nothing of their places: with one `co_yield` more
/// before another, a frame of the same layout goes on at the wrong one.
///
/// GCC's frames have a field for each place and Rust's a variant, so that R-LAYOUT sees it.
pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for hot in &c.hot {
        let name = c.base.entity(hot.base.main).name();
        if PARTS.iter().any(|part| name.ends_with(part)) {
            findings.push(Finding::refuse(
                Rule::Resume,
                demangle(name),
                "goes on with calls that wait, at the place that has the same number in new code; \
                 whether it is the same place nothing tells",
            ));
        }
    }
}
