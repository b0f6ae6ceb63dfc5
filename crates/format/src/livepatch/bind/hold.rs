//! Is the running hypervisor made of these object files? The code of each function that is
//! replaced is held against the hypervisor's: every byte, and what each reference means.

use std::collections::BTreeMap;

use invivo_compare::{Comparison, Finding, Rule};
use invivo_image::{EntityId, LinkAddr, Place, Slot, demangle};
use invivo_patch::{Held, Patch, Running, hold_code, hold_constant};

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
        let running = Running {
            whole: "this hypervisor",
            at: LinkAddr(known.address),
            code,
        };
        hold_code(self.c.base, entity, running, &mut |held| self.meant(held))
    }

    /// Holds what one reference of the base means against the address that the hypervisor has.
    fn meant(&mut self, held: &Held<'_>) -> Result<(), String> {
        let (c, target) = (self.c, held.target.0);
        match c.base.place(held.reference.target) {
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
            Place::Constant(at) => hold_constant(c, held, at, |size| {
                let bytes = self.hypervisor.bytes(target)?;
                bytes.get(..usize::try_from(size).ok()?)
            }),
            Place::Slot(Slot::Pointer(_)) | Place::Stub(_) | Place::Slot(_) => Err(
                "it goes through a table of the linker; compile it with hidden visibility"
                    .to_owned(),
            ),
            Place::Unnamed(_) | Place::Outside(_) => Ok(()),
        }
    }
}
