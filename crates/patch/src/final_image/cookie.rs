//! The security cookie (`/GS`): a number that functions with arrays put on their stack, and hold
//! against the variable before they return.
//!
//! Compilers read it directly, whatever functions they are told of. Each image has a cookie of its own,
//! and the function that compares is often the base's; so new code must put the base's number down.
//! Where operands can be led to the base they are; a final image, in which they cannot, gets a copy of
//! the number, which is never changed once the image runs.

use invivo_compare::Rule;
use invivo_image::{EntityId, Machine};

use super::direct::From;
use super::walk::Walk;

/// The variable.
pub(super) const NAME: &str = "__security_cookie";

impl Walk<'_, '_> {
    /// New code reads the cookie of the fixed image, `id`.
    pub(super) fn cookie(&mut self, id: EntityId, from: &From, by: &str) {
        let c = self.c;
        let base = c
            .pairs
            .base_of(id)
            .filter(|_| c.fixed.machine == Machine::X86_64);
        let Some(base) = base else {
            let text = "its stack is guarded (/GS), and the base has no cookie that it could use; build \
                        both with the same options";
            self.refuse(Rule::Binding, by, text);
            return;
        };
        let to = (c.base.entity(base).addr, NAME.to_owned());
        if !self.distances {
            self.slots.insert(c.fixed.entity(id).addr, to);
            return;
        }
        match from.distance() {
            Some(at) => {
                self.calls.insert(at, to);
            }
            None => {
                let text = "takes the address of the security cookie, and not its number";
                self.refuse(Rule::Binding, by, text);
            }
        }
    }
}
