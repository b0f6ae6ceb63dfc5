//! Whether a comparison names what a mutation concerns: that anything at all differs would also
//! be so where a wrong function is taken for the changed one.

use std::collections::BTreeSet;

use invivo_compare::{Comparison, Rule};
use invivo_image::{EntityId, EntityKind, Image, LinkAddr, SectionKind, Slot, demangle};

use crate::mutation::Mutation;
use crate::subject::{Kind, Subject};

/// How far readers of readers are followed: a text, a table that points to it, a structure that
/// points to the table, and the code that uses that.
const DEEPEST: usize = 4;

/// True if the function that was changed, or one that gets at the constant or variable that was
/// changed, is hot or named in a finding. Also where nobody knows what is concerned: changes of
/// unwind data, and of what nothing refers to.
pub(crate) fn is_named(subject: &Subject, mutation: &Mutation, c: &Comparison<'_>) -> bool {
    let place = match mutation.kind {
        Kind::Unwind => None,
        Kind::Relocation => {
            let entry = |offset: usize| (offset..offset + 24).contains(&mutation.site.offset);
            let relocations = subject.relocations.iter();
            let mut relocations = relocations.filter(|relocation| entry(relocation.offset));
            relocations.next().map(|relocation| relocation.place)
        }
        _ => subject.address(mutation.site.offset),
    };
    let Some(place) = place else { return true };
    if let Some(rule) = rule_for(&subject.image, place) {
        return c.findings.iter().any(|finding| finding.rule == rule);
    }
    let concerned = Concerned::of(subject, place, c);
    let mut known = concerned.known.iter().copied().chain(owner(subject, place));
    concerned.known.is_empty() || known.any(|id| says(subject, c, id))
}

/// The name without a size that is last before a place, such as `__dso_handle`: what follows may
/// be its own.
fn owner(subject: &Subject, place: LinkAddr) -> Option<EntityId> {
    let entities = &subject.image.entities;
    let last = entities
        .partition_point(|one| one.addr <= place)
        .checked_sub(1)?;
    let id = u32::try_from(last).expect("entities have numbers of 32 bits");
    (entities[last].size == 0).then_some(EntityId(id))
}

/// The rule that tells of what start-up and new threads read, which no code refers to by its name.
fn rule_for(image: &Image, place: LinkAddr) -> Option<Rule> {
    let section = image.section_at(place)?;
    match section.kind {
        SectionKind::Tls => Some(Rule::ThreadLocals),
        _ if section.name.ends_with("_array") => Some(Rule::Start),
        _ => None,
    }
}

/// True if the comparison calls this function or object changed.
fn says(subject: &Subject, c: &Comparison<'_>, id: EntityId) -> bool {
    if c.hot
        .iter()
        .any(|hot| hot.base.ids().any(|part| part == id))
    {
        return true;
    }
    if c.removed.contains(&id) {
        return true;
    }
    let entity = subject.image.entity(id);
    entity.names.iter().any(|symbol| {
        let name = demangle(&symbol.name);
        c.findings
            .iter()
            .any(|finding| finding.subject == name || finding.text.contains(&name))
    })
}

/// The entities that a place belongs to, and those that get at it.
struct Concerned {
    known: BTreeSet<EntityId>,
}

impl Concerned {
    fn of(subject: &Subject, place: LinkAddr, c: &Comparison<'_>) -> Concerned {
        let mut found = Concerned {
            known: BTreeSet::new(),
        };
        let mut next = vec![place];
        for _ in 0..DEEPEST {
            for place in std::mem::take(&mut next) {
                next.extend(found.step(subject, place, c));
            }
        }
        found
    }

    /// Adds what a place belongs to and the code that gets at it; the data that point to it.
    fn step(&mut self, subject: &Subject, place: LinkAddr, c: &Comparison<'_>) -> Vec<LinkAddr> {
        let image = &subject.image;
        let mut holders = Vec::new();
        let is_code = image
            .section_at(place)
            .is_some_and(|section| section.kind == SectionKind::Text);
        let (start, end) = if let Some(id) = image.entity_at(place) {
            let entity = image.entity(id);
            if !self.known.insert(id) && entity.kind == EntityKind::Function {
                return holders;
            }
            for by in c.base_usage.uses.get(&id).into_iter().flatten() {
                if !is_code {
                    self.known.insert(by.by);
                }
            }
            // Pointers in images with fixed addresses have no relocations.
            holders.extend(c.base_usage.pointed.get(&id).into_iter().flatten());
            (entity.addr, entity.end())
        } else {
            // A constant without a name: from the last place that anything refers to.
            let boundaries = &c.base_usage.boundaries;
            let behind = boundaries.partition_point(|at| *at <= place);
            let start = behind.checked_sub(1).map_or(place, |at| boundaries[at]);
            let end = boundaries.get(behind).copied();
            (start, end.unwrap_or(LinkAddr(place.0 + 1)))
        };
        if is_code {
            return holders;
        }
        // The pointer may be one before the constant, and a table may be read from its middle.
        let near = LinkAddr(start.0.saturating_sub(1))..end;
        for (at, instruction) in &subject.instructions {
            let target = match instruction.is_ip_rel_memory_operand() {
                true => instruction.ip_rel_memory_address(),
                false if instruction.memory_displacement64() != 0 => {
                    instruction.memory_displacement64()
                }
                false => (0..instruction.op_count())
                    .find_map(|op| instruction.try_immediate(op).ok())
                    .unwrap_or(0),
            };
            if near.contains(&LinkAddr(target)) {
                self.known.extend(image.entity_at(LinkAddr(*at)));
            }
        }
        for (at, slot) in &image.slots {
            if let Slot::Pointer(to) = slot
                && near.contains(to)
            {
                holders.push(*at);
            }
        }
        holders
    }
}
