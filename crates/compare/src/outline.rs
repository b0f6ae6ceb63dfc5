//! What each function refers to outside of itself, kept from the one pass over all code.
//!
//! Most functions of two builds are equal but for the distances to what they refer to. With
//! the places of these in the code at hand, such a pair is found equal without decoding it
//! again: the bytes between them are the same, and each leads to the same. Whatever is less
//! simple, such as a table that code jumps through, is left to [`Meaning::differences`]; so
//! is every pair that is not found equal here.

use invivo_image::x86_64::ReferenceKind;
use invivo_image::{Entity, EntityId, EntityKind, Image, Link, LinkAddr, Place, Slot};

use crate::meaning::{Meaning, Referred};
use crate::scan::{Outgoing, Scan};
use crate::{Parts, annexes};

/// A reference, as small as it can be: large programs have millions. Behind one to a table
/// whose length is known stands another one with that length.
#[derive(Clone, Copy, Debug)]
struct Outward {
    /// Where the operand is in the function, and in the lower bits how long it is and what
    /// table it may be the address of.
    operand: u32,
    /// What it refers to, relative to the image; or how many entries the table has.
    target: u32,
}

/// A longer function has no outline.
const LONGEST: u64 = 1 << 27;

/// In the place of an operand's width: this is the length of a table.
const LENGTH: u32 = 3;

impl Outward {
    fn new(image: &Image, outgoing: &Outgoing, jumps: bool) -> Option<Self> {
        let reference = &outgoing.reference;
        let start = outgoing.start as u64 + u64::from(reference.offset);
        let start = u32::try_from(start).ok().filter(|_| start < LONGEST)?;
        let width = match reference.width {
            1 => 0,
            4 => 1,
            8 => 2,
            _ => return None,
        };
        let tables = u32::from(jumps && outgoing.may_be_table)
            | u32::from(outgoing.distances) << 1
            | u32::from(outgoing.address_only) << 2;
        let operand = start << 5 | width << 3 | tables;
        let target = reference.target.checked_sub(image.base)?.try_into().ok()?;
        Some(Outward { operand, target })
    }

    /// How long the table is that this one refers to.
    fn length(self, outgoing: &Outgoing) -> Option<Self> {
        let is_table = self.may_be_table() || self.has_distances();
        let target = outgoing.entries.filter(|_| is_table)?.try_into().ok()?;
        let operand = self.operand | LENGTH << 3;
        Some(Outward { operand, target })
    }

    fn is_length(self) -> bool {
        self.operand >> 3 & 3 == LENGTH
    }

    fn start(self) -> usize {
        (self.operand >> 5) as usize
    }

    fn end(self) -> usize {
        self.start() + [1, 4, 8, 0][(self.operand >> 3 & 3) as usize]
    }

    /// True where the code may read a table of its own places at what is referred to.
    fn may_be_table(self) -> bool {
        self.operand & 1 != 0
    }

    /// True where nothing is read there by the instruction itself.
    fn is_address_only(self) -> bool {
        self.operand & 4 != 0
    }

    /// True where it reads a table of distances there.
    fn has_distances(self) -> bool {
        self.operand & 2 != 0
    }
}

/// The references of functions that lead out of them or depend on where they are.
#[derive(Debug, Default)]
pub(crate) struct Outlines {
    references: Vec<Outward>,
    /// Which functions have an outline, and where it ends in `references`.
    ends: Vec<(EntityId, u32)>,
}

impl Outlines {
    /// Adds the outline of a function, if it is that simple.
    pub(crate) fn add(&mut self, image: &Image, (id, entity): (EntityId, &Entity), scan: &Scan) {
        let before = self.references.len();
        let own = entity.addr..entity.end();
        let away = scan.references.iter().filter(|outgoing| {
            let reference = &outgoing.reference;
            reference.kind == ReferenceKind::Absolute || !own.contains(&reference.target)
        });
        let mut add = |outgoing: &Outgoing| {
            let outward = Outward::new(image, outgoing, scan.jumps_through)?;
            self.references.push(outward);
            self.references.extend(outward.length(outgoing));
            Some(())
        };
        let whole = !scan.odd && away.map(&mut add).all(|added| added.is_some());
        match u32::try_from(self.references.len()) {
            Ok(end) if whole => self.ends.push((id, end)),
            _ => self.references.truncate(before),
        }
    }
}

/// Where the outline of each function is.
#[derive(Debug, Default)]
pub(crate) struct OutlineIndex {
    groups: Vec<Vec<Outward>>,
    /// By the number of the function: the group, the start and the end in it.
    places: Vec<Option<(u32, u32, u32)>>,
}

impl OutlineIndex {
    pub(crate) fn new(entities: usize, groups: impl Iterator<Item = Outlines>) -> Self {
        let mut index = OutlineIndex {
            groups: Vec::new(),
            places: vec![None; entities],
        };
        for (number, group) in (0u32..).zip(groups) {
            let mut start = 0;
            for (id, end) in group.ends {
                index.places[id.0 as usize] = Some((number, start, end));
                start = end;
            }
            index.groups.push(group.references);
        }
        index
    }

    /// The outline of a function; `None` for one that is not that simple.
    fn get(&self, id: EntityId) -> Option<&[Outward]> {
        let (group, start, end) = (*self.places.get(id.0 as usize)?)?;
        self.groups
            .get(group as usize)?
            .get(start as usize..end as usize)
    }
}

impl Meaning<'_, '_> {
    /// True if two functions are seen to be equal by their outlines, and by no more of their
    /// instructions than those whose references the outlines do not prove to be the same.
    pub(crate) fn same_outlines(&self, base: &Parts, fixed: &Parts) -> bool {
        let mut unproved = Vec::new();
        let c = self.comparison();
        let plain = annexes::of(c.base, base).is_empty() && annexes::of(c.fixed, fixed).is_empty();
        plain
            && base.cold.len() == fixed.cold.len()
            && base.ids().zip(fixed.ids()).enumerate().all(|(part, both)| {
                self.same_part(base, fixed, part, both, &mut unproved) == Some(true)
            })
            && (unproved.is_empty() || self.same_lines(base, fixed, &unproved))
    }

    /// `Some(true)` if two parts are the same but for the references that are added to
    /// `unproved`: the number of the part, and where in it the operand is.
    fn same_part(
        &self,
        base: &Parts,
        fixed: &Parts,
        part: usize,
        (a, b): (EntityId, EntityId),
        unproved: &mut Vec<(usize, u64)>,
    ) -> Option<bool> {
        let c = self.comparison();
        let one = c.base_usage.outlines.get(a)?;
        let other = c.fixed_usage.outlines.get(b)?;
        let (a, b) = (c.base.entity(a), c.fixed.entity(b));
        if a.size != b.size || one.len() != other.len() {
            return Some(false);
        }
        let (code, its) = (
            c.base.bytes(a.addr, a.size)?,
            c.fixed.bytes(b.addr, b.size)?,
        );
        let mut done = 0;
        for (index, (x, y)) in one.iter().zip(other).enumerate() {
            let start = x.start();
            if x.is_length() && x.operand == y.operand && x.target == y.target {
                continue;
            }
            if x.operand != y.operand
                || x.is_length()
                || code.get(done..start)? != its.get(done..start)?
            {
                return Some(false);
            }
            done = x.end();
            let from = c.base.base.checked_add(x.target.into())?;
            let to = c.fixed.base.checked_add(y.target.into())?;
            let tabled = x.has_distances()
                || x.may_be_table()
                    && (leads_into(c.base, base, from) || leads_into(c.fixed, fixed, to));
            let entries = one.get(index + 1).filter(|next| next.is_length());
            let width = if x.has_distances() { 4 } else { 8 };
            let same_table = tabled
                && entries.is_some_and(|entries| {
                    self.same_table((base, from), (fixed, to), width, entries.target.into())
                });
            if !same_table && !self.same_target((base, from), (fixed, to), *x, tabled) {
                unproved.push((part, start as u64));
            }
        }
        let (range, there) = (a.addr..a.end(), b.addr..b.end());
        let moved = |x: LinkAddr, y: LinkAddr| {
            let distance = x.0.wrapping_sub(range.start.0);
            distance <= a.size && distance == y.0.wrapping_sub(there.start.0)
        };
        Some(code.get(done..)? == its.get(done..)? && self.same_frames_by(&range, &there, &moved))
    }

    /// True if two tables of `count` entries, and of as many more as lead into the function,
    /// lead to the same places in it, and what stands behind them is the same.
    fn same_table(
        &self,
        (base, from): (&Parts, LinkAddr),
        (fixed, to): (&Parts, LinkAddr),
        width: u64,
        count: u64,
    ) -> bool {
        const MOST: u64 = 1 << 16;
        let c = self.comparison();
        let mut entries = 0;
        while entries <= MOST {
            let lead = |image: &Image, parts: &Parts, table| {
                own(image, parts, entry(image, table, width, entries)?)
            };
            match (lead(c.base, base, from), lead(c.fixed, fixed, to)) {
                (None, None) if entries >= count => break,
                (Some(here), Some(there)) if here == there => entries += 1,
                _ => return false,
            }
        }
        (1..=MOST).contains(&entries) && self.same_rest(from, to, entries * width)
    }

    /// True if two constants without a name that begin with a pointer are the same up to the
    /// next references. Whoever only takes their addresses reads no more: they are no texts.
    fn same_filled(&self, a: LinkAddr, b: LinkAddr) -> bool {
        const LONGEST: u64 = 4096;
        let c = self.comparison();
        let filled = c.base.slots.contains_key(&a) && c.fixed.slots.contains_key(&b);
        let rooms = filled.then(|| self.rooms(a, b)).flatten();
        rooms.is_some_and(|(room, its_room)| {
            room == its_room && room <= LONGEST && self.same_data(a, b, room)
        })
    }

    fn same_target(
        &self,
        (base, from): (&Parts, LinkAddr),
        (fixed, to): (&Parts, LinkAddr),
        outward: Outward,
        tabled: bool,
    ) -> bool {
        let c = self.comparison();
        let places = (own(c.base, base, from), own(c.fixed, fixed, to));
        if places.0.is_some() || places.1.is_some() {
            return places.0 == places.1;
        }
        if !tabled && self.is_known(from, to) {
            return true;
        }
        let pointed = || {
            let place = Referred::pointer;
            self.same(place(from), place(to)).is_ok()
        };
        let same = match (c.base.place(from), c.fixed.place(to)) {
            (Place::In(a, _), Place::In(b, _)) => {
                if c.base.entity(a).kind != EntityKind::Object {
                    pointed()
                } else {
                    !tabled && !self.is_unsized(a, b) && pointed()
                }
            }
            (Place::Stub(_), Place::Stub(_)) => pointed(),
            (Place::Slot(_), Place::Slot(_)) | (Place::Unnamed(_), Place::Unnamed(_)) => {
                !tabled && pointed()
            }
            (Place::Constant(a), Place::Constant(b)) => {
                !tabled
                    && (self.same_bytes(a, b) == Some(true)
                        || outward.is_address_only() && self.same_filled(a, b))
            }
            _ => false,
        };
        if same && !tabled {
            self.know(from, to);
        }
        same
    }
}

/// The part of the function that holds `at`, and how far that is into it. A place in the
/// function is the same at the same distance from its start, where its bytes are the same.
fn own(image: &Image, parts: &Parts, at: LinkAddr) -> Option<(usize, u64)> {
    let mut parts = parts.ids().map(|id| image.entity(id)).enumerate();
    parts.find_map(|(number, part)| {
        let inside = (part.addr..part.end()).contains(&at);
        inside.then(|| (number, at.0 - part.addr.0))
    })
}

/// Where entry `number` of a table of code places leads: of distances from its start, or of
/// addresses.
fn entry(image: &Image, table: LinkAddr, width: u64, number: u64) -> Option<LinkAddr> {
    let place = table.checked_add(number.checked_mul(width)?)?;
    let raw = image.bytes(place, width)?;
    if width == 4 {
        return table.checked_offset(i32::from_le_bytes(raw.try_into().ok()?).into());
    }
    match image.slots.get(&place) {
        Some(Slot::Pointer(target)) => Some(*target),
        Some(_) => None,
        None => Some(LinkAddr(u64::from_le_bytes(raw.try_into().ok()?))),
    }
}

/// True if what stands at `at`, read as a distance from there or as an address, leads into the
/// function: otherwise the first entry of a jump table there would be none of its own, and so
/// there is no such table.
fn leads_into(image: &Image, parts: &Parts, at: LinkAddr) -> bool {
    let inside = |to: LinkAddr| {
        let mut parts = parts.ids().map(|id| image.entity(id));
        parts.any(|part| (part.addr..part.end()).contains(&to))
    };
    let distance = image.bytes(at, 4).and_then(<[u8]>::first_chunk);
    let near = distance.and_then(|bytes| at.checked_offset(i32::from_le_bytes(*bytes).into()));
    let far = match image.slots.get(&at) {
        Some(Slot::Pointer(to)) => Some(*to),
        Some(_) => None,
        None => {
            let word = image.bytes(at, 8).and_then(<[u8]>::first_chunk);
            word.map(|bytes| LinkAddr(u64::from_le_bytes(*bytes)))
        }
    };
    near.is_some_and(inside) || far.is_some_and(inside)
}

pub(crate) fn holds_no_pointer(image: &Image, at: LinkAddr, bytes: &[u8]) -> bool {
    let start = LinkAddr(at.0.saturating_sub(7));
    let end = LinkAddr(at.0.saturating_add(bytes.len() as u64));
    if image.slots.range(start..end).next().is_some() {
        return false;
    }
    let lead = (at.0.wrapping_neg() & 7) as usize;
    let mut words = bytes.get(lead..).unwrap_or_default().chunks_exact(8);
    image.link != Link::Fixed
        || !words.any(|word| {
            let word = u64::from_le_bytes(word.try_into().expect("chunks of eight"));
            image.section_at(LinkAddr(word)).is_some()
        })
}
