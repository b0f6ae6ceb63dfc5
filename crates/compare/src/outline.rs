//! What each function refers to outside of itself, kept from the one pass over all code.
//!
//! Most functions of two builds are equal but for the distances to what they refer to. With
//! the places of these in the code at hand, such a pair is found equal without decoding it
//! again: the bytes between them are the same, and each leads to the same. Whatever is less
//! simple, such as a table that code jumps through, is left to [`Meaning::differences`]; so
//! is every pair that is not found equal here.

use invivo_image::x86_64::{ReferenceKind, decode_first};
use invivo_image::{Entity, EntityId, EntityKind, Image, LinkAddr, Machine, Place};

use crate::meaning::{Meaning, Referred};
use crate::scan::{Outgoing, Scan};
use crate::tables::{leads_into, own};
use crate::{Parts, annexes};

/// A reference, as small as it can be: large programs have millions. Behind one to a table
/// whose length is known stands another one with that length.
#[derive(Clone, Copy, Debug)]
struct Outward {
    /// Where the operand is in the function, and in the lower bits where it is in its
    /// instruction, how long it is, and what table it may be the address of.
    operand: u32,
    /// What it refers to, relative to the image; or how many entries the table has.
    target: u32,
}

/// A longer function has no outline.
const LONGEST: u64 = 1 << 23;

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
        let offset = u32::from(reference.offset & 15);
        let operand = start << 9 | offset << 5 | width << 3 | tables;
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
        (self.operand >> 9) as usize
    }

    /// Where its instruction begins.
    fn instruction(self) -> usize {
        self.start() - (self.operand >> 5 & 15) as usize
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
        // Operands of ARM64 are parts of words.
        let simple = !scan.odd && image.machine != Machine::Aarch64;
        let whole = simple && away.map(&mut add).all(|added| added.is_some());
        match u32::try_from(self.references.len()) {
            Ok(end) if whole => self.ends.push((id, end)),
            _ => self.references.truncate(before),
        }
    }

    /// Gives back the room for more.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.references.shrink_to_fit();
        self.ends.shrink_to_fit();
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
            let width = match x.has_distances() {
                true => 4,
                false => c.base.pointer_size(),
            };
            let same_table = tabled
                && entries.is_some_and(|entries| {
                    self.same_table((base, from), (fixed, to), width, entries.target.into())
                });
            if !same_table
                && !self.same_target((base, from), (fixed, to), *x, tabled)
                && (tabled || !self.same_read((a, code), (b, its), *x, (from, to)))
            {
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
        if self.may_count_from_others(from, to) {
            return false;
        }
        let pointed = || {
            let place = Referred::pointer;
            self.same(place(from), place(to)).is_ok()
        };
        let same = match (c.base.place(from), c.fixed.place(to)) {
            (Place::In(a, x), Place::In(b, y)) => {
                if c.base.entity(a).kind != EntityKind::Object {
                    // Nothing else is asked of what is code.
                    x == y && c.pairs.fixed_of(a) == Some(b) || pointed()
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
                    && !self.other_neighbours(a, b)
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

    /// True if two constants without a name, which are no tables, are the same as one
    /// instruction reads them that is the same in both functions but for this reference.
    fn same_read(
        &self,
        (a, code): (&Entity, &[u8]),
        (b, its): (&Entity, &[u8]),
        outward: Outward,
        (from, to): (LinkAddr, LinkAddr),
    ) -> bool {
        let c = self.comparison();
        let constants = match (c.base.place(from), c.fixed.place(to)) {
            (Place::Constant(_), Place::Constant(_)) => true,
            (Place::In(a, x), Place::In(b, y)) => x == y && self.is_unsized(a, b),
            _ => false,
        };
        let line = |image, entity: &Entity, code: &[u8]| {
            let start = outward.instruction();
            let at = entity.addr.checked_add(start as u64)?;
            decode_first(image, at, code.get(start..)?, 1).pop()
        };
        if !constants {
            return false;
        }
        let (Some(one), Some(other)) = (line(c.base, a, code), line(c.fixed, b, its)) else {
            return false;
        };
        let reader = |at, line| Referred {
            at,
            line: Some(line),
            numbers: &[],
        };
        self.same(reader(from, &one), reader(to, &other)).is_ok()
    }
}
