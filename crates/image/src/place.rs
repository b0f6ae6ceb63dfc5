//! What an address means.

use crate::objects::{EXTERNAL, GAP};
use crate::{EntityId, EntityKind, Image, LinkAddr, SectionKind, Slot};

/// What is at an address that an instruction or a pointer refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A byte of a function or object.
    In(EntityId, u64),
    /// The stub through which other images' functions are called.
    Stub(Slot),
    /// A place that the loader fills and that has no symbol.
    Slot(Slot),
    /// Constants without a symbol: strings, literals, jump tables.
    Constant(LinkAddr),
    /// Loaded, but nothing is known about it.
    Unnamed(LinkAddr),
    /// Not a place of this image.
    Outside(LinkAddr),
}

impl Image {
    /// What is at `at`.
    #[must_use]
    pub fn place(&self, at: LinkAddr) -> Place {
        let section = self.section_at(at);
        let stubs = section.filter(|s| s.kind == SectionKind::Text && s.name != ".text");
        if let Some(slot) = stubs.and_then(|_| self.stubs.get(&at)) {
            if let Some(slot) = self.slots.get(slot) {
                return Place::Stub(slot.clone());
            }
            // A static program that runs at any address has stubs for functions that nobody
            // defines (`_ITM_RU1` of libstdc++); their slots lead back into the stub.
            const LONGEST: u64 = 16;
            match self.static_slot(*slot) {
                Some(Slot::Pointer(to)) if to > at && to.0 - at.0 <= LONGEST => {
                    return Place::Stub(Slot::Number(0));
                }
                Some(slot) => return Place::Stub(slot),
                None => {}
            }
        }
        if let Some(id) = self.entity_at(at) {
            let offset = at.0 - self.entity(id).addr.0;
            return Place::In(id, offset);
        }
        let Some(section) = section else {
            // Sections of object files do not touch, so what ends here is not what begins.
            let ends = self.ending_at(at).filter(|_| self.is_of_objects());
            return ends.map_or(Place::Outside(at), |id| Place::In(id, self.entity(id).size));
        };
        match section.kind {
            SectionKind::Got => match self.slots.get(&at) {
                Some(slot) => Place::Slot(slot.clone()),
                None => self.static_slot(at).map_or(Place::Unnamed(at), Place::Slot),
            },
            // A pointer constant of C++ or Rust has no symbol but a relocation:
            // it is a constant like others.
            SectionKind::ReadOnly => Place::Constant(at),
            // The initial contents of a function's own array that holds pointers lie in
            // `.data` and have no symbol (`char *help[] = {…}` in a body): a constant,
            // provided that real variables of one file do have symbols here.
            SectionKind::Data if self.names_locals && self.bytes(at, 1).is_some() => {
                Place::Constant(at)
            }
            // `buffer + sizeof buffer` belongs to the variable, as long as no other
            // begins there.
            SectionKind::Data if section.name == EXTERNAL && self.is_of_objects() => {
                self.before_external(at).unwrap_or(Place::Unnamed(at))
            }
            SectionKind::Data => match self.ending_at(at) {
                Some(id) => Place::In(id, self.entity(id).size),
                None => Place::Unnamed(at),
            },
            SectionKind::Text | SectionKind::Tls => Place::Unnamed(at),
        }
    }

    /// A place in front of something that object files only refer to (`table[i - 1]`): the
    /// offset wraps around.
    fn before_external(&self, at: LinkAddr) -> Option<Place> {
        let next = self.starts_index.up_to(&self.starts, at);
        let start = *self.starts.get(next)?;
        let id = EntityId(u32::try_from(next).ok()?);
        // Not what is in front of everything that lies there.
        let near = start.0 - at.0 < GAP && self.is_external(id);
        near.then(|| Place::In(id, at.0.wrapping_sub(start.0)))
    }

    /// The variable whose last byte is just before `at`.
    fn ending_at(&self, at: LinkAddr) -> Option<EntityId> {
        let id = self.entity_at(LinkAddr(at.0.checked_sub(1)?))?;
        let entity = self.entity(id);
        (entity.kind == EntityKind::Object && entity.end() == at).then_some(id)
    }

    /// What linkers write for the distance of a thread-local that nobody defines from the thread
    /// pointer: that of the address 0. Code that asks first whether it is there never uses the
    /// number, as `_nl_locale_subfreeres` of a static glibc does; it is another one wherever the
    /// template of thread-locals lies elsewhere.
    #[must_use]
    pub fn no_thread_local(&self) -> Option<u64> {
        let template = self.sections.iter().filter(|s| s.kind == SectionKind::Tls);
        let start = template.map(|section| section.range.start).min()?;
        Some(0u64.wrapping_sub(start.0.checked_add(self.tls_block)?))
    }

    /// The constant that a pointer to just before a section really means, and how
    /// many bytes before it points.
    ///
    /// Compilers count from one where the source does: `lea rax, [table-1]`, then
    /// `movzx ecx, byte ptr [rax+rdi]` with `rdi` from 1 on. Where the table begins
    /// the section, the pointer leads out of it.
    #[must_use]
    pub fn just_before(&self, at: LinkAddr) -> Option<(LinkAddr, u64)> {
        const FARTHEST: u64 = 16;
        let section = self.sections.iter().find(|s| {
            s.kind == SectionKind::ReadOnly
                && s.range.start > at
                && s.range.start.0 - at.0 <= FARTHEST
        })?;
        Some((section.range.start, section.range.start.0 - at.0))
    }

    /// A slot that the linker filled for good, as it does in images with fixed addresses.
    fn static_slot(&self, at: LinkAddr) -> Option<Slot> {
        let bytes: [u8; 8] = self.bytes(at, 8)?.try_into().ok()?;
        let value = LinkAddr(u64::from_le_bytes(bytes));
        // The end of a section (`__stop_…`) is a place, though nothing is there.
        let is_end =
            self.edges.contains_key(&value) || self.sections.iter().any(|s| s.range.end == value);
        let is_place = is_end || self.section_at(value).is_some();
        Some(if is_place {
            Slot::Pointer(value)
        } else {
            Slot::Number(value.0)
        })
    }
}
