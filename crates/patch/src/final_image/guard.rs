//! Where calls through pointers are checked (Control Flow Guard): whose address new code has may be
//! called so.

use std::collections::BTreeSet;

use invivo_compare::Rule;
use invivo_image::pe::{PeError, PeImage, guard_flags};
use invivo_image::{LinkAddr, Rva, demangle};

use super::walk::{Walk, Ways};

impl Walk<'_, '_> {
    /// Notes that new code has the address of a function.
    pub(super) fn takes(&mut self, at: LinkAddr, by: &str) {
        self.taken.entry(at).or_insert_with(|| by.to_owned());
    }

    /// Holds what may be called through pointers against the tables of both builds.
    pub(super) fn guarded(&mut self, base: &PeImage) {
        if self.windows.guard_flags() & guard_flags::INSTRUMENTED == 0 {
            return;
        }
        if let Err(error) = self.try_guarded(base) {
            self.refuse(Rule::Guard, "Control Flow Guard", error.to_string());
        }
    }

    fn try_guarded(&mut self, base: &PeImage) -> Result<(), PeError> {
        let of = |image: &PeImage| -> Result<BTreeSet<Rva>, PeError> {
            let targets = image.guard_targets()?.into_iter();
            Ok(targets
                .filter(|target| target.may_be_called())
                .map(|target| target.at)
                .collect())
        };
        let (old, new) = (of(base)?, of(self.windows)?);
        let c = self.c;
        for (at, by) in std::mem::take(&mut self.taken) {
            let id = c.fixed.entity_at(at);
            // Where code is led to the base place by place, it is the base's function that is called.
            let led = id.filter(|_| self.ways == Ways::Direct);
            let led = led.and_then(|id| c.pairs.base_of(id));
            let listed = match led {
                Some(id) => c
                    .base
                    .rva(c.base.entity(id).addr)
                    .map(|at| old.contains(&at)),
                None => c.fixed.rva(at).map(|at| new.contains(&at)),
            };
            if listed == Some(false) {
                let name = id.map(|id| c.fixed.entity(id).name());
                let text = format!(
                    "has the address of {}, which the table of call targets of the image that has it does \
                     not list: Windows ends the process where it is called through it; compile all files with \
                     the same /guard options",
                    name.map_or_else(|| at.to_string(), demangle)
                );
                self.refuse(Rule::Guard, &by, text);
            }
        }
        for hot in &c.hot {
            let at = c.base.rva(c.base.entity(hot.base.main).addr);
            let to = c.fixed.rva(c.fixed.entity(hot.fixed.main).addr);
            if at.is_some_and(|at| old.contains(&at)) && to.is_some_and(|to| !new.contains(&to)) {
                let text = "may be called through pointers in the base and not in the fixed image, whose \
                            table of call targets does not list it; keep its address taken, and compile \
                            it with the same /guard options";
                self.refuse(Rule::Guard, &hot.name, text);
            }
        }
        Ok(())
    }
}
