//! Is the running hypervisor made of these object files? The code of each function that is
//! replaced is held against the hypervisor's: every byte, and what each reference means.
//!
//! A fix that was compiled from other source, by another compiler or with other flags would
//! otherwise patch functions that only have the same name.

use std::collections::BTreeMap;

use invivo_compare::{Comparison, Extent, Finding, Rule, extent};
use invivo_image::x86_64::{Line, Reference, ReferenceKind, decode};
use invivo_image::{EntityId, LinkAddr, Place, Slot, demangle};
use invivo_patch::Patch;

use super::super::hypervisor::{Hypervisor, Known};
use super::is_function;
use super::names::xen_names;

/// Holds the base's functions against the hypervisor; the addresses that its code tells of what
/// they refer to.
pub(super) fn hold(
    c: &Comparison<'_>,
    patch: &Patch,
    hypervisor: &Hypervisor<'_>,
    findings: &mut Vec<Finding>,
) -> BTreeMap<EntityId, u64> {
    let mut holder = Holder {
        c,
        hypervisor,
        known: BTreeMap::new(),
    };
    for redirect in &patch.redirects {
        let addr = LinkAddr(c.base.base.0 + redirect.at.0);
        let id = c.base.entity_at(addr).filter(|id| is_function(c.base, *id));
        let Some(id) = id else { continue };
        if let Err(text) = holder.function(id) {
            findings.push(Finding::refuse(
                Rule::Build,
                demangle(&redirect.function),
                text,
            ));
        }
    }
    holder.known
}

struct Holder<'h, 'c> {
    c: &'h Comparison<'c>,
    hypervisor: &'h Hypervisor<'h>,
    known: BTreeMap<EntityId, u64>,
}

impl Holder<'_, '_> {
    fn find(&self, id: EntityId) -> Option<Known> {
        let names = xen_names(self.c.base.entity(id));
        names
            .iter()
            .find_map(|name| self.hypervisor.find(name.as_bytes()))
    }

    fn function(&mut self, id: EntityId) -> Result<(), String> {
        let entity = self.c.base.entity(id);
        let known = self
            .find(id)
            .ok_or("is no function of this hypervisor by its name")?;
        if known.size != 0 && known.size != entity.size {
            return Err(format!(
                "has {} bytes in this hypervisor, and {} in the base's object file: that is not \
                 what the hypervisor was made of",
                known.size, entity.size
            ));
        }
        let size = usize::try_from(entity.size).map_err(|error| error.to_string())?;
        let code = self
            .hypervisor
            .bytes(known.address)
            .and_then(|code| code.get(..size));
        // A .map file tells names alone.
        let Some(code) = code else { return Ok(()) };
        let (Some(lines), Some(own)) = (
            decode(self.c.base, entity),
            self.c.base.bytes(entity.addr, entity.size),
        ) else {
            return Err("is not all instructions".to_owned());
        };
        let mut expected = own.to_vec();
        for line in &lines {
            let start = usize::try_from(line.at().0 - entity.addr.0).map_err(|e| e.to_string())?;
            for reference in line.references() {
                let inside = entity.addr <= reference.target && reference.target < entity.end();
                if inside && reference.kind != ReferenceKind::Absolute {
                    continue;
                }
                let place = start + usize::from(reference.offset);
                let range = place..place + usize::from(reference.width);
                let operand = code.get(range.clone()).ok_or("is cut off")?;
                let next = known.address + start as u64 + line.instruction.len() as u64;
                let target = reference.target_of(operand, next);
                expected[range].copy_from_slice(operand);
                self.reference(line, &reference, target).map_err(|what| {
                    format!("differs from this hypervisor's at +{start:#x}: {what}")
                })?;
            }
        }
        match expected
            .iter()
            .zip(code)
            .position(|(one, other)| one != other)
        {
            None => Ok(()),
            Some(at) => Err(format!(
                "differs from this hypervisor's at +{at:#x}: it was compiled from other source, \
                 by another compiler or with other flags"
            )),
        }
    }

    /// Holds what one reference of the base means against the address that the hypervisor has.
    fn reference(&mut self, line: &Line, reference: &Reference, target: u64) -> Result<(), String> {
        let c = self.c;
        match c.base.place(reference.target) {
            Place::In(id, offset) => {
                let start = target.wrapping_sub(offset);
                let name = demangle(c.base.entity(id).name());
                if let Some(known) = self.find(id)
                    && known.address != start
                {
                    let address = known.address;
                    return Err(format!(
                        "{name} is at {address:#x}, and it refers to {start:#x}"
                    ));
                }
                match self.known.insert(id, start) {
                    Some(before) if before != start => {
                        Err(format!("{name} would be at {before:#x} and at {start:#x}"))
                    }
                    _ => Ok(()),
                }
            }
            Place::Constant(at) => {
                let size = match extent(c.base, &c.base_usage, line, at) {
                    Some(Extent::Text(size) | Extent::Operand(size)) => size,
                    // A table of places has other distances where it lies.
                    Some(Extent::UpToNext(_)) | None => return Ok(()),
                };
                let length = usize::try_from(size).map_err(|error| error.to_string())?;
                let own = c.base.bytes(at, size);
                let other = self
                    .hypervisor
                    .bytes(target)
                    .and_then(|bytes| bytes.get(..length));
                let end = at.checked_add(size).ok_or("a constant that wraps around")?;
                let pointers = c.base.slots.range(at..end).next().is_some();
                if pointers || own.is_some() && own == other {
                    return Ok(());
                }
                Err("the constant that it reads is another one".to_owned())
            }
            Place::Slot(Slot::Pointer(_)) | Place::Stub(_) | Place::Slot(_) => Err(
                "it goes through a table of the linker; compile it with hidden visibility"
                    .to_owned(),
            ),
            Place::Unnamed(_) | Place::Outside(_) => Ok(()),
        }
    }
}
