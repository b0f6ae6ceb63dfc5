//! Where each reference of the copied code leads: into the patch, or to one
//! place of the base.

use std::sync::Arc;

use invivo_compare::{Ahead, Parts, Rule, ahead, labelled};
use invivo_image::x86_64::{Line, Reference, ReferenceKind, decode};
use invivo_image::{Entity, EntityId, EntityKind, LinkAddr, Place, SectionKind, Slot, stem};

use crate::code::Code;
use crate::model::SymbolPlace;
use crate::planner::{Placed, Planner};

/// A symbol of the patch and an addend to it.
pub(crate) type Target = (u32, i64);

impl Planner<'_, '_> {
    /// Copies the code of a function and binds its references.
    pub(crate) fn copy_code(&mut self, parts: &Parts) {
        let image = self.c.fixed;
        for part in parts.ids() {
            let entity = image.entity(part);
            let (Some(lines), Some(bytes)) =
                (decode(image, entity), image.bytes(entity.addr, entity.size))
            else {
                self.refuse(Rule::Binding, part, "its code is not all instructions");
                continue;
            };
            let mut code = Code::new(bytes);
            for (index, line) in lines.iter().enumerate() {
                for reference in line.references() {
                    if stays_inside(entity, &reference) {
                        continue;
                    }
                    let offset = line.at().0 - entity.addr.0;
                    if let Some(name) = self.missing_copy(&reference) {
                        let slot = self.bind_slot(&Slot::Import(Arc::clone(&name), 0));
                        let loaded =
                            slot.and_then(|slot| code.load(line, &reference, offset, slot));
                        if loaded.is_err() {
                            let text = format!(
                                "it uses {}, a variable of a library that the running image has no copy of",
                                invivo_image::demangle(&name)
                            );
                            self.refuse(Rule::Binding, part, text);
                        }
                        continue;
                    }
                    let bound = match self.unmoved_text(line, &reference) {
                        Some(target) => Ok(target),
                        None => self.bind_code(parts, &lines, index, &reference),
                    };
                    let copied = bound.and_then(|target| {
                        self.doubt_code(parts, (part, &lines, index), &reference, target);
                        code.refer(line, &reference, offset, target)
                    });
                    if let Err(text) = copied {
                        self.refuse(Rule::Binding, part, text);
                    }
                }
            }
            let symbol = self.copied(part);
            let place = &mut self.contents.symbols[symbol as usize].place;
            if let SymbolPlace::Patch {
                section, offset, ..
            } = place
            {
                *offset = code.start();
                code.store(&mut self.contents.sections[*section as usize]);
            }
        }
    }

    /// The variable that an operand refers to, if the loader copies it into the fixed image and not
    /// into the base.
    fn missing_copy(&self, reference: &Reference) -> Option<Arc<str>> {
        let c = self.c;
        match c.fixed.place(reference.target) {
            Place::In(id, 0) if c.pairs.base_of(id).is_none() => {
                match c.fixed.slots.get(&c.fixed.entity(id).addr) {
                    Some(Slot::Copy(name)) => Some(Arc::clone(name)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn bind_code(
        &mut self,
        parts: &Parts,
        lines: &[Line],
        index: usize,
        reference: &Reference,
    ) -> Result<Target, String> {
        let branch = matches!(reference.kind, ReferenceKind::Call | ReferenceKind::Jump);
        let at = reference.target;
        if let Some(ahead) = ahead(self.c.fixed, at, &lines[index]).filter(|_| !branch) {
            return self.bind_before(at, ahead);
        }
        match self.c.fixed.place(at) {
            Place::In(id, offset) if branch => self.bind_call(id, offset),
            Place::Stub(Slot::Import(name, 0) | Slot::LazyImport(name)) if branch => {
                let stub = self.bind_stub(&Slot::LazyImport(Arc::clone(&name)));
                stub.or_else(|_| self.import_stub(&name))
            }
            Place::Stub(slot) if branch => self.bind_stub(&slot),
            Place::Constant(_) => self.bind_constant(Some((parts, lines, index)), at),
            Place::Outside(_) if self.c.fixed.just_before(at).is_some() => {
                let (start, before) = self.c.fixed.just_before(at).ok_or("no constant follows")?;
                let (symbol, addend) = self.bind_constant(Some((parts, lines, index)), start)?;
                Ok((
                    symbol,
                    addend - i64::try_from(before).map_err(|e| e.to_string())?,
                ))
            }
            _ => self.bind_pointer(at),
        }
    }

    /// A place that may be counted from what is behind it.
    fn bind_before(&mut self, at: LinkAddr, ahead: Ahead) -> Result<Target, String> {
        let distance = i64::try_from(ahead.distance).map_err(|e| e.to_string())?;
        let behind = self.bind_object(ahead.entity, 0);
        let behind = behind.map(|(symbol, addend)| (symbol, addend - distance));
        if ahead.alone {
            return behind;
        }
        // The one or the other may be meant, which is the same only if both lie as they do here.
        let here = self.bind_pointer(at)?;
        let rva = |(symbol, addend): Target| match self.contents.symbols[symbol as usize].place {
            SymbolPlace::Base(rva) => rva.0.checked_add_signed(addend),
            _ => None,
        };
        match (rva(here), behind.ok().and_then(rva)) {
            (Some(one), Some(other)) if one == other => Ok(here),
            _ => Err(format!(
                "it refers to what may be {}, and these lie otherwise in the base",
                ahead.describe(self.c.fixed, at)
            )),
        }
    }

    /// The target of a call or jump: new code is called directly.
    fn bind_call(&mut self, id: EntityId, offset: u64) -> Result<Target, String> {
        let entity = self.c.fixed.entity(id);
        let name = invivo_image::demangle(entity.name());
        let copied = self.hot.contains_key(&id)
            || self.cold.contains_key(&id)
            || (entity.kind == EntityKind::Function && self.c.pairs.base_of(id).is_none());
        if entity.size == 0 && copied {
            return Err(format!("it calls {name}, whose size is not known"));
        }
        if copied {
            let offset = i64::try_from(offset).map_err(|e| e.to_string())?;
            return Ok((self.copied(id), offset));
        }
        if offset != 0 {
            return Err(format!("it jumps into {name}, which is not part of it"));
        }
        self.bind_base_entity(id, 0)
    }

    /// A place whose address is used: functions and variables of the base keep theirs.
    pub(crate) fn bind_pointer(&mut self, at: LinkAddr) -> Result<Target, String> {
        match self.c.fixed.place(at) {
            Place::In(id, offset) => match self.c.fixed.entity(id).kind {
                EntityKind::Object => self.bind_object(id, offset),
                _ if self.c.pairs.base_of(id).is_some() && offset == 0 => {
                    self.bind_base_entity(id, 0)
                }
                _ => self.bind_call(id, offset),
            },
            Place::Stub(slot) => self.bind_stub(&slot),
            Place::Slot(slot) => self.bind_slot(&slot),
            Place::Constant(at) => self.bind_constant(None, at),
            Place::Unnamed(at) | Place::Outside(at) => {
                let section = self
                    .c
                    .fixed
                    .section_at(at)
                    .map_or("no section", |s| &s.name);
                Err(format!(
                    "it refers to {at} in {section}, which has no symbol"
                ))
            }
        }
    }

    fn bind_base_entity(&mut self, fixed: EntityId, offset: u64) -> Result<Target, String> {
        let entity = self.c.fixed.entity(fixed);
        let base = self.c.pairs.base_of(fixed).ok_or_else(|| {
            format!(
                "{} has no counterpart in the base",
                invivo_image::demangle(entity.name())
            )
        })?;
        let base = self.c.base.entity(base);
        let symbol = self.base_symbol(base.name(), base.addr)?;
        if self.c.fixed.is_external(fixed) {
            return Ok((symbol, offset.cast_signed()));
        }
        Ok((symbol, i64::try_from(offset).map_err(|e| e.to_string())?))
    }

    pub(crate) fn base_symbol(&mut self, name: &str, at: LinkAddr) -> Result<u32, String> {
        if let Some(symbol) = self.placed.get(&Placed::Base(at)) {
            return Ok(*symbol);
        }
        let rva = self.c.base.rva(at).ok_or("a place before the image")?;
        let symbol = self.add_symbol(name, SymbolPlace::Base(rva));
        self.placed.insert(Placed::Base(at), symbol);
        Ok(symbol)
    }

    fn bind_object(&mut self, id: EntityId, offset: u64) -> Result<Target, String> {
        let c = self.c;
        let entity = c.fixed.entity(id);
        let name = invivo_image::demangle(entity.name());
        let constant = c
            .fixed
            .section_at(entity.addr)
            .is_some_and(|s| s.kind == SectionKind::ReadOnly);
        if let Some(base) = c.pairs.base_of(id) {
            if !constant || c.same_object(base, id) && !self.leads_inside(id) {
                let running = c.base.section_at(c.base.entity(base).addr);
                let running = running.map(|section| section.kind);
                if !constant && !c.base.is_copied(base) && running == Some(SectionKind::ReadOnly) {
                    return Err(format!("it uses {name}, which is a constant in the base"));
                }
                if c.base.entity(base).size != entity.size {
                    return Err(format!("it uses {name}, whose size changed"));
                }
                return self.bind_base_entity(id, offset);
            }
        } else if c.fixed.is_external(id) {
            return Err(format!("it uses {name}, which the base does not refer to"));
        } else if c.fixed.is_copied(id) {
            return Err(format!(
                "it uses {name}, a variable of a library that the running image has no copy of"
            ));
        } else if !constant {
            let alike = c.base.entities.iter().zip(0u32..).find(|(other, index)| {
                other.kind == EntityKind::Object
                    && stem(other.name()) == stem(entity.name())
                    && c.pairs.fixed_of(EntityId(*index)).is_none()
            });
            if let Some((other, _)) = alike {
                return Err(format!(
                    "it uses the variable {name}, which may or may not be the running {}",
                    invivo_image::demangle(other.name())
                ));
            }
        }
        let symbol = self.copy_object(id)?;
        Ok((symbol, i64::try_from(offset).map_err(|e| e.to_string())?))
    }

    /// True for a constant that holds places inside functions that are copied: those of the base's
    /// are in the old version.
    fn leads_inside(&self, id: EntityId) -> bool {
        let functions = labelled(self.c.fixed, id);
        let copied = |id| self.hot.contains_key(id) || self.cold.contains_key(id);
        functions.iter().any(copied)
    }

    /// The stub in the base that calls the same import.
    fn bind_stub(&mut self, slot: &Slot) -> Result<Target, String> {
        let wanted = match slot {
            Slot::Import(name, 0) | Slot::LazyImport(name) => {
                let lazy = self.base_stubs.get(&Slot::LazyImport(name.clone()));
                lazy.or_else(|| self.base_stubs.get(&Slot::Import(name.clone(), 0)))
            }
            _ => {
                let slot = self.slot_in_base(slot)?;
                return self.stub_of(&slot);
            }
        };
        let at = *wanted.ok_or_else(|| missing(slot))?;
        let name = slot_name(slot);
        Ok((self.base_symbol(&format!("{name}@plt"), at)?, 0))
    }

    fn stub_of(&mut self, slot: &Slot) -> Result<Target, String> {
        let at = *self.base_stubs.get(slot).ok_or_else(|| missing(slot))?;
        Ok((
            self.base_symbol(&format!("{}@plt", slot_name(slot)), at)?,
            0,
        ))
    }

    /// What a slot of the fixed image would be in the base.
    fn slot_in_base(&self, slot: &Slot) -> Result<Slot, String> {
        let moved = |at: &LinkAddr| match self.c.fixed.place(*at) {
            Place::In(id, offset) => {
                let base = self.c.pairs.base_of(id).ok_or("its target is new")?;
                self.c
                    .base
                    .entity(base)
                    .addr
                    .checked_add(offset)
                    .ok_or("its target wraps")
            }
            _ => Err("its target has no symbol"),
        };
        Ok(match slot {
            Slot::Pointer(at) => Slot::Pointer(moved(at)?),
            Slot::Resolved(at) => Slot::Resolved(moved(at)?),
            other => other.clone(),
        })
    }

    /// The slot in the base that holds the same; a pointer into the image gets a
    /// slot of its own where the base has none.
    pub(crate) fn bind_slot(&mut self, slot: &Slot) -> Result<Target, String> {
        let in_base = self
            .slot_in_base(slot)
            .ok()
            .and_then(|slot| self.base_slots.get(&slot));
        if let Some(at) = in_base {
            let at = *at;
            return Ok((
                self.base_symbol(&format!("{}@got", slot_name(slot)), at)?,
                0,
            ));
        }
        match slot {
            Slot::Pointer(target) => self.own_slot(slot, *target),
            Slot::Import(name, addend) => self.import_slot(name, *addend),
            _ => Err(missing(slot)),
        }
    }
}

fn slot_name(slot: &Slot) -> String {
    match slot {
        Slot::Import(name, _) | Slot::LazyImport(name) | Slot::Copy(name) => name.to_string(),
        Slot::TlsModule(name) | Slot::TlsOffset(name, _) | Slot::TlsFromThreadPointer(name, _) => {
            format!("{name}@tls")
        }
        Slot::Pointer(at) | Slot::Resolved(at) => format!("{at}"),
        Slot::Number(number) => format!("{number:#x}"),
        Slot::Unknown(kind) => format!("relocation {kind}"),
    }
}

fn missing(slot: &Slot) -> String {
    format!(
        "it needs {}, which the running image does not import",
        slot_name(slot)
    )
}

/// True for branches within a function and for the addresses of its own labels. Its
/// own address is another matter: everybody knows a function by the base's.
fn stays_inside(entity: &Entity, reference: &Reference) -> bool {
    let inside = entity.addr <= reference.target && reference.target < entity.end();
    match reference.kind {
        ReferenceKind::Call | ReferenceKind::Jump => inside,
        ReferenceKind::Relative => inside && reference.target != entity.addr,
        ReferenceKind::Absolute => false,
    }
}
