//! Was the program linked of these object files? The code of each function that is replaced is held
//! against the program's: every byte, and what each reference means.

use invivo_compare::{Extent, extent};
use invivo_image::x86_64::{Line, Reference, ReferenceKind, decode};
use invivo_image::{Entity, EntityId, LinkAddr, Place, Slot, demangle};

use super::Binder;

/// `mov` from a slot, which linkers turn into a `lea` of what the slot would hold.
const MOV: u8 = 0x8b;
const LEA: u8 = 0x8d;

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
        let code = self.program.bytes(there.addr, there.size);
        let (Some(code), Some(lines), Some(own)) = (
            code,
            decode(base, entity),
            base.bytes(entity.addr, entity.size),
        ) else {
            return Err("is not all instructions".to_owned());
        };
        let mut expected = own.to_vec();
        for line in &lines {
            let start = usize::try_from(line.at().0 - entity.addr.0).map_err(|e| e.to_string())?;
            let next = there.addr.0 + start as u64 + line.instruction.len() as u64;
            for reference in line.references() {
                let inside = entity.addr <= reference.target && reference.target < entity.end();
                if inside && reference.kind != ReferenceKind::Absolute {
                    continue;
                }
                let place = start + usize::from(reference.offset);
                let range = place..place + usize::from(reference.width);
                let operand = code.get(range.clone()).ok_or("is cut off")?;
                let is_slot = matches!(base.place(reference.target), Place::Slot(_));
                let relaxed =
                    place >= 2 && is_slot && expected[place - 2] == MOV && code[place - 2] == LEA;
                if relaxed {
                    expected[place - 2] = LEA;
                }
                let target = LinkAddr(reference.target_of(operand, next));
                expected[range].copy_from_slice(operand);
                self.meant(line, &reference, target, relaxed)
                    .map_err(|what| format!("differs from the program's at +{start:#x}: {what}"))?;
            }
        }
        let differs = expected
            .iter()
            .zip(code)
            .position(|(one, other)| one != other);
        match differs {
            None => self.learn(id, there.addr),
            Some(at) => Err(format!(
                "differs from the program's at +{at:#x}: it was compiled from other source, by another \
                 compiler or with other flags"
            )),
        }
    }

    /// Holds what one reference of the base means against the place that the program has.
    fn meant(
        &mut self,
        line: &Line,
        reference: &Reference,
        target: LinkAddr,
        relaxed: bool,
    ) -> Result<(), String> {
        let base = self.c.base;
        match base.place(reference.target) {
            Place::In(id, offset) => {
                let start = LinkAddr(target.0.wrapping_sub(offset));
                self.learn(id, start)
            }
            Place::Slot(Slot::Pointer(to)) => {
                let Some(id) = base.entity_at(to).filter(|id| base.entity(*id).addr == to) else {
                    return Err("a slot of the linker is for nothing that has a name".to_owned());
                };
                if relaxed {
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
                let size = match extent(base, &self.c.base_usage, line, at) {
                    Some(Extent::Text(size) | Extent::Operand(size)) => size,
                    // A table of places has other distances where it lies.
                    Some(Extent::UpToNext(_)) | None => return Ok(()),
                };
                let end = at.checked_add(size).ok_or("a constant that wraps around")?;
                let pointers = base.slots.range(at..end).next().is_some();
                let (own, other) = (base.bytes(at, size), self.program.bytes(target, size));
                if pointers || own.is_some() && own == other {
                    return Ok(());
                }
                Err("the constant that it reads is another one".to_owned())
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
