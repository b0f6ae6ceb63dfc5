//! Was the program linked of these object files? The code of each function that is replaced is held
//! against the program's: every byte, and what each reference means.

use invivo_image::{Entity, EntityId, LinkAddr, Place, Slot, demangle};

use super::Binder;
use crate::hold::{Held, Running, hold_code, hold_constant};

impl Binder<'_> {
    /// Holds a function of the base, or a cold part, against the program's, and learns from it where
    /// it is, and what it refers to.
    pub(super) fn hold(&mut self, id: EntityId, there: EntityId) -> Result<(), String> {
        let base = self.c.base;
        let entity = base.entity(id);
        let there = self.program.entity(there);
        if there.size != entity.size {
            return Err(format!(
                "has {} bytes in this program, and {} in the base's object file: that is not what \
                 the program was linked of",
                there.size, entity.size
            ));
        }
        let at = there.addr;
        let code = self.program.bytes(at, there.size);
        let running = Running {
            whole: "the program",
            at,
            code: code.ok_or("is not all instructions")?,
        };
        hold_code(base, entity, running, &mut |held| self.meant(held))?;
        self.learn(id, at)
    }

    /// Holds what one reference of the base means against the place that the program has.
    fn meant(&mut self, held: &Held<'_>) -> Result<(), String> {
        let (base, target) = (self.c.base, held.target);
        match base.place(held.reference.target) {
            Place::In(id, offset) => {
                let start = LinkAddr(target.0.wrapping_sub(offset));
                self.learn(id, start)
            }
            Place::Slot(Slot::Pointer(to)) => {
                let Some(id) = base.entity_at(to).filter(|id| base.entity(*id).addr == to) else {
                    return Err("a slot of the linker is for nothing that has a name".to_owned());
                };
                if held.relaxed {
                    return self.learn(id, target);
                }
                let entity = base.entity(id);
                match self.program.place(target) {
                    Place::Slot(Slot::Pointer(there)) => self.learn(id, there),
                    Place::Slot(Slot::Import(name, 0) | Slot::LazyImport(name))
                        if has_name(entity, &name) =>
                    {
                        Ok(())
                    }
                    _ => Err(format!("it reads no slot for {}", demangle(entity.name()))),
                }
            }
            Place::Constant(at) => {
                hold_constant(self.c, held, at, |size| self.program.bytes(target, size))
            }
            Place::Slot(_) | Place::Stub(_) | Place::Unnamed(_) | Place::Outside(_) => {
                Err("what it refers to has no name".to_owned())
            }
        }
    }

    /// The program's code says that something of the base is at `start` there.
    fn learn(&mut self, id: EntityId, start: LinkAddr) -> Result<(), String> {
        let entity = self.c.base.entity(id);
        let name = demangle(entity.name());
        let import = match self.program.place(start) {
            Place::Stub(Slot::Import(import, 0) | Slot::LazyImport(import)) => Some(import),
            _ => None,
        };
        match import {
            Some(import) if !has_name(entity, &import) => {
                return Err(format!("it calls {import} there, and {name} here"));
            }
            // The stub of the linker stands for it, wherever it is.
            Some(_) => {}
            None => {
                // Of several that are called so, code tells which.
                if let Ok(Some(named)) = self.named(entity)
                    && named != start
                {
                    return Err(format!("{name} is at {named}, and it refers to {start}"));
                }
            }
        }
        match self.known.get(&id) {
            Some(before) if *before != start => {
                Err(format!("{name} would be at {before} and at {start}"))
            }
            Some(_) => Ok(()),
            None => {
                self.known.insert(id, start);
                self.fresh.push(id);
                Ok(())
            }
        }
    }
}

fn has_name(entity: &Entity, name: &str) -> bool {
    entity.names.iter().any(|own| *own.name == *name)
}
