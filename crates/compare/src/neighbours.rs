//! What a place means that is counted from something behind it.
//!
//! `table[i - 1]` is an address just before the table: a last element of whatever the linker put
//! there, or padding. What is at such a place says nothing about what is read.

use iced_x86::Register;
use invivo_image::x86_64::Line;
use invivo_image::{EntityId, EntityKind, Image, Link, LinkAddr, Place, SectionKind, demangle};

use crate::describe::describe;
use crate::meaning::{Meaning, Referred};

/// Something that begins a little behind a place which code may mean as a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// What begins there.
    pub entity: EntityId,
    /// How many bytes behind the place.
    pub distance: u64,
    /// True in padding: nothing else can be meant.
    pub alone: bool,
}

impl Ahead {
    /// The place, counted from what is behind it, for a person: `table-0x4`.
    fn text(self, image: &Image) -> String {
        let name = demangle(image.entity(self.entity).name());
        format!("{name}-{:#x}", self.distance)
    }

    /// What may be meant by `at`, for a person.
    #[must_use]
    pub fn describe(self, image: &Image, at: LinkAddr) -> String {
        match self.alone {
            true => self.text(image),
            false => format!("{} or {}", describe(image, at), self.text(image)),
        }
    }
}

/// Padding is shorter.
const LARGEST_ALIGNMENT: u64 = 64;
/// The widest element of a table that is thought of, in bytes.
const WIDEST: u64 = 16;

/// What `line` may count back from if it refers to `at`; `None` if what is at `at` is meant.
///
/// Only an instruction that adds a register to an address counts back from anything, or one that
/// loads an address. So the empty text at the end of another one is not taken for padding.
#[must_use]
pub fn ahead(image: &Image, at: LinkAddr, line: &Line) -> Option<Ahead> {
    let instruction = &line.instruction;
    let plain = [Register::None, Register::RIP, Register::EIP];
    let operand = line.address.is_some_and(|address| address.target == at);
    let adds = operand
        && (instruction.memory_index() != Register::None
            || !plain.contains(&instruction.memory_base()));
    let size = line.operand_size() as u64;
    let step = size.max(u64::from(instruction.memory_index_scale()));
    let reads = operand && !adds && size > 0;
    match image.place(at) {
        Place::Constant(_) | Place::Unnamed(_) if reads => None,
        Place::Constant(_) | Place::Unnamed(_) => {
            let before = || Some(image.bytes(at.checked_offset(-1)?, 1)?[0]);
            let ends_text = !adds && before().is_some_and(|byte| byte != 0);
            behind_padding(image, at).filter(|_| !ends_text)
        }
        Place::In(..) if adds => behind_last(image, at, step.min(WIDEST)),
        _ => None,
    }
}

/// The first thing with a name behind `at`.
fn next(image: &Image, at: LinkAddr) -> Option<(EntityId, LinkAddr)> {
    let next = image.entities.partition_point(|entity| entity.addr <= at);
    let id = EntityId(u32::try_from(next).ok()?);
    Some((id, image.entities.get(next)?.addr))
}

/// What follows the padding that `at` is in.
fn behind_padding(image: &Image, at: LinkAddr) -> Option<Ahead> {
    let section = image.section_at(at)?;
    let holds = |addr| section.range.contains(&addr);
    let (entity, start) = next(image, at).filter(|(_, start)| holds(*start))?;
    let distance = start.0 - at.0;
    let is_data = matches!(section.kind, SectionKind::Data | SectionKind::ReadOnly);
    let object = image.entity(entity);
    if !is_data
        || distance >= LARGEST_ALIGNMENT
        || object.kind != EntityKind::Object
        || object.size == 0
    {
        return None;
    }
    let end = LinkAddr(start.0 - 1);
    let filled = image.slots.range(at..=end).next().is_some();
    let zero = match image.bytes(at, distance) {
        Some(bytes) => bytes.iter().all(|byte| *byte == 0),
        // Nothing is in the file.
        None => section.kind == SectionKind::Data && image.bytes(at, 1).is_none(),
    };
    let alone = true;
    (zero && !filled).then_some(Ahead {
        entity,
        distance,
        alone,
    })
}

/// What follows the object at whose end `at` is, for code that reads elements of `step` bytes from
/// an address that is part of its instruction.
fn behind_last(image: &Image, at: LinkAddr, step: u64) -> Option<Ahead> {
    if !matches!(image.link, Link::Fixed | Link::Rebased) {
        return None;
    }
    let Place::In(id, offset) = image.place(at) else {
        return None;
    };
    let object = image.entity(id);
    let rest = object.size.checked_sub(offset)?;
    // A table that has a single element is none.
    let far = if offset == 0 { step } else { 2 * step };
    if object.kind != EntityKind::Object || object.size == 0 || rest > far {
        return None;
    }
    let last = LinkAddr(object.end().0 - 1);
    let section = image.section_at(at)?;
    let (entity, start) = next(image, last.max(at))?;
    let near = start.0 - object.end().0 < LARGEST_ALIGNMENT;
    let alone = false;
    (near && section.range.contains(&start)).then_some(Ahead {
        entity,
        distance: start.0 - at.0,
        alone,
    })
}

impl Meaning<'_, '_> {
    /// Whether two places are counted from the same thing behind them: `None` where they are not
    /// counted from behind.
    pub(crate) fn counted_back(
        &self,
        base: Referred<'_>,
        fixed: Referred<'_>,
    ) -> Option<(bool, [Ahead; 2])> {
        let c = self.comparison();
        let of = |image, referred: Referred<'_>| ahead(image, referred.at, referred.line?);
        let (one, other) = of(c.base, base).zip(of(c.fixed, fixed))?;
        let same = one.distance == other.distance
            && one.alone == other.alone
            && self.same_entity(one.entity, other.entity);
        Some((same, [one, other]))
    }

    /// True if some instruction may count from different things behind two places.
    pub(crate) fn may_count_from_others(&self, base: LinkAddr, fixed: LinkAddr) -> bool {
        let c = self.comparison();
        let of = |image: &Image, at| match image.place(at) {
            Place::In(..) => behind_last(image, at, WIDEST),
            Place::Constant(_) | Place::Unnamed(_) => behind_padding(image, at),
            _ => None,
        };
        match (of(c.base, base), of(c.fixed, fixed)) {
            (None, None) => false,
            (Some(one), Some(other)) => {
                one.distance != other.distance || !self.same_entity(one.entity, other.entity)
            }
            _ => true,
        }
    }

    /// True for places in variables' own section without a name of their own, in images in which
    /// the loader moves addresses in code, where the next variables are no pair or are at other
    /// distances.
    pub(crate) fn other_neighbours(&self, base: LinkAddr, fixed: LinkAddr) -> bool {
        let c = self.comparison();
        let rebased = c.base.link == Link::Rebased || c.fixed.link == Link::Rebased;
        let variable = |image: &Image, at| {
            let section = image.section_at(at);
            section.is_some_and(|section| section.kind == SectionKind::Data)
        };
        if !rebased || !variable(c.base, base) && !variable(c.fixed, fixed) {
            return false;
        }
        match (next(c.base, base), next(c.fixed, fixed)) {
            (Some((one, start)), Some((other, its))) => {
                start.0 - base.0 != its.0 - fixed.0 || c.pairs.fixed_of(one) != Some(other)
            }
            (None, None) => false,
            _ => true,
        }
    }
}
