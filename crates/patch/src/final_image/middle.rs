//! A long instruction in the middle of a function, by which every call comes before it does anything
//! that the fix changed. A jump may stand there where the function's begin has no room for one: it
//! leads to the same place of the fixed function, which finds registers and stack as it would have
//! left them itself.

use std::collections::BTreeSet;
use std::ops::Range;

use iced_x86::{Mnemonic, Register};
use invivo_compare::{Comparison, Hot, Meaning, Referred};
use invivo_image::pe::PeImage;
use invivo_image::x86_64::{Line, Reference, ReferenceKind, decode, jumps_through};
use invivo_image::{Entity, EntityId, EntityKind, Image, LinkAddr, Place, Slot};

/// Bytes of `jmp rel32`.
const JUMP: u64 = 5;
/// More places than this are not looked for, nor further from the begin.
const MOST: usize = 16;
const FARTHEST: u64 = 4096;

/// Both builds of a function.
struct Both<'c, 'a> {
    c: &'c Comparison<'a>,
    meaning: Meaning<'c, 'a>,
    old: (&'c Entity, Vec<Line>),
    new: (&'c Entity, Vec<Line>),
}

/// Where the instructions are, counted from the function's begin, which is equal in both builds up to
/// there. They are in order, and have room for a jump.
///
/// What is before one of them has no call, so that no thread is there for longer than a moment, and
/// nothing leads back to it or over it. Functions that handle exceptions or jump through tables have
/// no such place: not all ways into their middle are known.
pub(super) fn long_instructions(
    c: &Comparison<'_>,
    windows: (&PeImage, &PeImage),
    hot: &Hot,
) -> Vec<Range<u64>> {
    if !hot.base.cold.is_empty() || !hot.fixed.cold.is_empty() {
        return Vec::new();
    }
    let both = Both::of(c, hot.base.main, hot.fixed.main);
    let entered = |both: &Both<'_, '_>| {
        let known =
            is_plain(c.base, windows.0, &both.old) && is_plain(c.fixed, windows.1, &both.new);
        known && both.is_entered_at_its_begin(hot.base.main)
    };
    let both = both.filter(entered);
    both.map(|both| both.places(windows.0)).unwrap_or_default()
}

/// True if exceptions pass through a function, and it jumps to no place but those that its jumps name.
fn is_plain(image: &Image, windows: &PeImage, (entity, lines): &(&Entity, Vec<Line>)) -> bool {
    let imported = |line: &Line| {
        let registers = [
            line.instruction.memory_base(),
            line.instruction.memory_index(),
        ];
        let alone = registers
            .iter()
            .all(|one| matches!(one, Register::None | Register::RIP));
        let slot = line.address.and_then(|to| image.slots.get(&to.target));
        alone && matches!(slot, Some(Slot::Import(..)))
    };
    let mut through = lines.iter().filter(|line| jumps_through(&line.instruction));
    let code = image.rva(entity.addr).zip(image.rva(entity.end()));
    let Some((start, end)) = code else {
        return false;
    };
    let code = start..end;
    let mut entries = windows.unwind_entries(&code);
    through.all(imported) && entries.all(|entry| matches!(windows.handler(entry), Ok(None)))
}

impl<'c, 'a> Both<'c, 'a> {
    fn of(c: &'c Comparison<'a>, old: EntityId, new: EntityId) -> Option<Self> {
        let (old, new) = (c.base.entity(old), c.fixed.entity(new));
        Some(Both {
            c,
            meaning: Meaning::new(c),
            old: (old, decode(c.base, old)?),
            new: (new, decode(c.fixed, new)?),
        })
    }

    /// True if nothing outside of the base's function refers to it but to its begin.
    fn is_entered_at_its_begin(&self, id: EntityId) -> bool {
        let (base, usage) = (self.c.base, &self.c.base_usage);
        let (start, end) = (self.old.0.addr, self.old.0.end());
        let pointed = usage.pointed.get(&id).into_iter().flatten();
        let mut words = pointed.map(|place| base.slots.get(place));
        let users = usage.uses.get(&id).into_iter().flatten();
        let others: BTreeSet<EntityId> = users
            .filter(|one| one.by != id && !one.branch)
            .map(|one| one.by)
            .collect();
        let at_begin = |by: EntityId| {
            decode(base, base.entity(by)).is_some_and(|lines| {
                let mut all = lines.iter().flat_map(Line::references);
                all.all(|to| to.target <= start || end <= to.target)
            })
        };
        words.all(|slot| matches!(slot, Some(Slot::Pointer(to)) if *to == start))
            && others.into_iter().all(at_begin)
    }

    fn places(&self, windows: &PeImage) -> Vec<Range<u64>> {
        let (start, lines) = (self.old.0.addr, &self.old.1);
        let image = self.c.base.base;
        let loaded = windows.relocations.iter();
        let loaded: BTreeSet<_> = loaded
            .filter_map(|one| image.checked_add(one.at.0))
            .collect();
        let (mut found, mut farthest) = (Vec::new(), start);
        for (index, line) in lines.iter().enumerate() {
            let place = line.at().0 - start.0..line.end().0 - start.0;
            if found.len() == MOST || place.end > FARTHEST {
                break;
            }
            let long = place.start > 0 && place.end - place.start >= JUMP;
            // A jump before it leads here at most, and so no call gets past it.
            if long && farthest <= line.at() && self.is_come_by_once(index) {
                found.push(place);
            }
            let other = self.new.1.get(index);
            if line.is_call() || !other.is_some_and(|other| self.is_same(line, other, &loaded)) {
                break;
            }
            let own = line
                .references()
                .map(|to| to.target)
                .filter(|to| self.is_inside(*to));
            farthest = own.fold(farthest, Ord::max);
        }
        found
    }

    fn is_inside(&self, at: LinkAddr) -> bool {
        self.old.0.addr < at && at < self.old.0.end()
    }

    /// True if what is behind this instruction of the base leads to none before its end, and nobody
    /// else does but what is before it.
    fn is_come_by_once(&self, index: usize) -> bool {
        let (start, lines) = (self.old.0.addr, &self.old.1);
        let end = lines[index].end();
        let back = |to: &Reference| {
            let again = to.target == start && to.kind == ReferenceKind::Jump;
            again || start < to.target && to.target < end
        };
        let mut behind = lines[index + 1..].iter().flat_map(Line::references);
        if behind.any(|to| back(&to)) {
            return false;
        }
        let own = lines[..=index].iter().flat_map(Line::references);
        let own: BTreeSet<LinkAddr> = own.map(|to| to.target).collect();
        let usage = &self.c.base_usage;
        let mut led = usage.next_boundary(start);
        while let Some(at) = led.filter(|at| *at < end) {
            if !own.contains(&at) {
                return false;
            }
            led = usage.next_boundary(at);
        }
        true
    }

    /// True if two instructions have the same bytes but for operands that mean the same.
    fn is_same(&self, a: &Line, b: &Line, loaded: &BTreeSet<LinkAddr>) -> bool {
        let bytes = |image: &Image, line: &Line| {
            image
                .bytes(line.at(), line.instruction.len() as u64)
                .map(<[u8]>::to_vec)
        };
        let (Some(mut one), Some(mut other)) = (bytes(self.c.base, a), bytes(self.c.fixed, b))
        else {
            return false;
        };
        let mut operands = 0;
        for (from, to) in [(a.address, b.address), (a.immediate, b.immediate)] {
            let (from, to) = match (from, to) {
                (None, None) => continue,
                (Some(from), Some(to)) => (from, to),
                _ => return false,
            };
            if (from.kind, from.offset, from.width) != (to.kind, to.offset, to.width)
                || !self.leads_to_same((a, from), (b, to))
            {
                return false;
            }
            for bytes in [&mut one, &mut other] {
                let operand = usize::from(from.offset)..usize::from(from.offset + from.width);
                let Some(operand) = bytes.get_mut(operand) else {
                    return false;
                };
                operand.fill(0);
            }
            operands += usize::from(from.kind == ReferenceKind::Absolute);
        }
        // An address that is not known as one could mean another thing in the fixed build.
        one == other && loaded.range(a.at()..a.end()).count() <= operands
    }

    fn leads_to_same(&self, (a, from): (&Line, Reference), (b, to): (&Line, Reference)) -> bool {
        let (one, other) = (self.old.0, self.new.0);
        let within = |entity: &Entity, at: LinkAddr| entity.addr <= at && at < entity.end();
        if within(one, from.target) || within(other, to.target) {
            // The bytes before are equal, so equal distances are the same place.
            return from.kind == ReferenceKind::Jump
                && from.target.0.wrapping_sub(one.addr.0)
                    == to.target.0.wrapping_sub(other.addr.0);
        }
        let (base, fixed) = (self.c.base, self.c.fixed);
        let known = match (base.place(from.target), fixed.place(to.target)) {
            (Place::In(x, _), Place::In(y, _)) => {
                let (x, y) = (base.entity(x), fixed.entity(y));
                x.kind != EntityKind::Object || x.size > 0 && x.size == y.size
            }
            (Place::Slot(_), Place::Slot(_)) | (Place::Stub(_), Place::Stub(_)) => true,
            // Where it ends is known where it is read at once.
            (Place::Constant(_), Place::Constant(_)) => reads_all(a, from),
            _ => false,
        };
        let referred = |line, at| Referred {
            at,
            line: Some(line),
            numbers: &[],
        };
        known
            && self
                .meaning
                .same(referred(a, from.target), referred(b, to.target))
                .is_ok()
    }
}

/// True if the instruction reads what the operand names, and nothing beside it.
fn reads_all(line: &Line, operand: Reference) -> bool {
    let i = &line.instruction;
    let alone = [i.memory_base(), i.memory_index()];
    line.address == Some(operand)
        && i.mnemonic() != Mnemonic::Lea
        && i.memory_size().size() > 0
        && alone
            .iter()
            .all(|one| matches!(one, Register::None | Register::RIP))
}
