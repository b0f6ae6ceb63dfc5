//! Comparison of data by meaning: bytes are equal, pointers mean the same.

use std::collections::BTreeSet;

use invivo_image::{EntityId, EntityKind, Image, Link, LinkAddr, Place, Slot, is_rust, whole_of};

use crate::copies::is_anonymous;
use crate::meaning::{Meaning, Referred};
use crate::records::text;
use crate::{Comparison, Usage};

impl Meaning<'_, '_> {
    /// True if `size` bytes at `base` and `fixed` hold the same.
    pub(crate) fn same_data(&self, base: LinkAddr, fixed: LinkAddr, size: u64) -> bool {
        let c: &Comparison<'_> = self.comparison();
        let (Some(slots), Some(others)) = (slots(c.base, base, size), slots(c.fixed, fixed, size))
        else {
            return false;
        };
        if slots.len() != others.len() {
            return false;
        }
        let holders = if slots.is_empty() {
            (None, None)
        } else {
            (of_rust(c.base, base), of_rust(c.fixed, fixed))
        };
        let same = |index: usize| {
            let ((at, slot), (there, other)) = (&slots[index], &others[index]);
            let tables = slots.get(index + 1).zip(others.get(index + 1));
            let reads_nothing = || {
                tables.is_some_and(|((next, table), (there, other))| {
                    *next == at + c.base.pointer_size()
                        && next == there
                        && is_table_of_empty(c.base, table)
                        && is_table_of_empty(c.fixed, other)
                })
            };
            let one = length(c.base, base, holders.0, *at, slot);
            let another = length(c.fixed, fixed, holders.1, *there, other);
            at == there
                && (self.same_slot_of(slot, &one, other, &another)
                    || self.same_empty(slot, other) && reads_nothing())
        };
        if !(0..slots.len()).all(same) {
            return false;
        }
        let (one, other) = (c.base.bytes(base, size), c.fixed.bytes(fixed, size));
        let (Some(one), Some(other)) = (one, other) else {
            // Neither has bytes in the file (`.bss`): both are zero.
            return one.is_none() && other.is_none();
        };
        if c.base.link == Link::Fixed || c.fixed.link == Link::Fixed {
            return self.same_words(base, one, fixed, other);
        }
        let pointer = if c.base.pointer_size() == 4 { 4 } else { 8 };
        let Some(places) = self.same_relative_words(base, fixed, size) else {
            return false;
        };
        // What the file holds below a relocation is replaced when the image is loaded.
        let pointers = slots.iter().map(|(at, _)| (*at, pointer));
        let mut known: Vec<(u64, usize)> = pointers.chain(places).collect();
        known.sort_unstable();
        let mut done = 0;
        for (at, width) in known {
            let at = usize::try_from(at).expect("an offset inside a slice");
            let between = done..at.max(done);
            if one[between.clone()] != other[between] {
                return false;
            }
            done = (at + width).min(one.len());
        }
        one[done..] == other[done..]
    }

    /// Where words of both hold places relative to the image, and how wide they are, if these places
    /// are the same; `None` if they are not.
    fn same_relative_words(
        &self,
        base: LinkAddr,
        fixed: LinkAddr,
        size: u64,
    ) -> Option<Vec<(u64, usize)>> {
        const WIDTH: u64 = 4;
        let c = self.comparison();
        let words = |image: &'_ Image, at: LinkAddr| -> Vec<(u64, LinkAddr)> {
            let end = LinkAddr(at.0.saturating_add(size));
            let inside = image.relative_words.range(at..end);
            let inside = inside.map(|(place, to)| (place.0 - at.0, *to));
            inside.filter(|(at, _)| size - at >= WIDTH).collect()
        };
        let (one, other) = (words(c.base, base), words(c.fixed, fixed));
        let place = Referred::pointer;
        let same = one.len() == other.len()
            && one.iter().zip(&other).all(|((at, to), (there, other))| {
                at == there && self.same(place(*to), place(*other)).is_ok()
            });
        same.then(|| one.iter().map(|(at, _)| (*at, WIDTH as usize)).collect())
    }

    /// True for pointers to one static of Rust that has no bytes. What lies at its address
    /// is something else, and a pointer may mean that.
    pub(crate) fn same_empty(&self, base: &Slot, fixed: &Slot) -> bool {
        let c = self.comparison();
        let (Slot::Pointer(one), Slot::Pointer(other)) = (base, fixed) else {
            return false;
        };
        // Its compiler gives each symbol its true size; that of assembly often is zero.
        let empty = |image: &Image, at| match image.place(at) {
            Place::In(id, 0) => {
                let entity = image.entity(id);
                let empty = entity.size == 0 && entity.kind == EntityKind::Object;
                (empty && is_rust(entity.name())).then_some(id)
            }
            _ => None,
        };
        let pair = empty(c.base, *one).zip(empty(c.fixed, *other));
        pair.is_some_and(|(one, other)| c.pairs.fixed_of(one) == Some(other))
    }

    /// Words of an image with fixed addresses: equal numbers, or addresses that mean the same.
    ///
    /// Whether a word is a number or an address nobody says. Two that differ are equal if
    /// they lead to the same: no number of a fix would change by as much as the linker moved
    /// what lies there. Two that are the same number are the dangerous case. Take a list
    /// `{ &old_check }`, and a fix that puts `new_check` where `old_check` was: the words are
    /// equal, and what they lead to is not. So these, too, must lead to the same, unless they
    /// cannot be addresses at all ([`Meaning::is_number`]). A table of numbers that look like
    /// addresses of data then costs a hot function too many; a share of words that look like
    /// addresses proves nothing, because a large structure may have a single pointer.
    fn same_words(&self, base: LinkAddr, one: &[u8], fixed: LinkAddr, other: &[u8]) -> bool {
        let c = self.comparison();
        let lead = usize::try_from(base.0.wrapping_neg() & 7)
            .expect("less than 8")
            .min(one.len());
        // A word is only a pointer where it is aligned, which differs for constants that moved.
        if (base.0 ^ fixed.0) & 7 != 0 {
            return one == other;
        }
        one[..lead] == other[..lead]
            && one[lead..]
                .chunks(8)
                .zip(other[lead..].chunks(8))
                .all(|(a, b)| {
                    if let (Ok(x), Ok(y)) = (a.try_into(), b.try_into()) {
                        let at = |bytes| LinkAddr(u64::from_le_bytes(bytes));
                        let (x, y): (LinkAddr, LinkAddr) = (at(x), at(y));
                        let pointers =
                            c.base.section_at(x).is_some() && c.fixed.section_at(y).is_some();
                        let place = Referred::pointer;
                        if pointers {
                            return x == y && self.is_number(base, x, fixed)
                                || self.same(place(x), place(y)).is_ok();
                        }
                    }
                    a == b
                })
    }
}

/// True for a pointer to a table of a trait's functions (drop, size, alignment, the functions)
/// for a type without bytes: the pointer before it reads nothing.
fn is_table_of_empty(image: &Image, slot: &Slot) -> bool {
    let Slot::Pointer(table) = slot else {
        return false;
    };
    let word = |index: u64| -> Option<u64> {
        let at = table.checked_add(index * image.pointer_size())?;
        let word = image.word(at)?;
        (!image.slots.contains_key(&at)).then_some(word)
    };
    word(1) == Some(0) && word(2).is_some_and(u64::is_power_of_two)
}

/// True if the object at `at` is one of Rust; `None` if it has no symbol.
fn of_rust(image: &Image, at: LinkAddr) -> Option<bool> {
    let holder = image.entity(image.entity_at(at)?).name();
    Some(is_rust(holder) || is_anonymous(holder))
}

/// The number behind a pointer at `offset` of an object of Rust: the length of what it
/// points to, if it points to a text.
fn length(
    image: &Image,
    object: LinkAddr,
    of_rust: Option<bool>,
    offset: u64,
    slot: &Slot,
) -> Vec<u64> {
    let read = || {
        let Slot::Pointer(to) = slot else { return None };
        if of_rust == Some(false) {
            return None;
        }
        let behind = object.checked_add(offset)?;
        let behind = behind.checked_add(image.pointer_size())?;
        let word = image.word(behind)?;
        let number = (!image.slots.contains_key(&behind)).then_some(word)?;
        // What has no symbol may be a constant of C, unless it names a file of Rust.
        let names_file = || text(image, *to, number).is_some_and(|text| text.ends_with(".rs"));
        of_rust.unwrap_or_else(names_file).then_some(number)
    };
    read().into_iter().collect()
}

impl Meaning<'_, '_> {
    /// True if the word `value`, which tables at `base` and `fixed` both hold, is no address:
    /// it would lead into the middle of a function in both images, and only code of that very
    /// function takes addresses there (`&&label`, `switch`). Such a function gets at the table
    /// by its own instructions, or by objects that point to it.
    fn is_number(&self, base: LinkAddr, value: LinkAddr, fixed: LinkAddr) -> bool {
        let c = self.comparison();
        let nobodys = |image: &Image, usage: &Usage, table: LinkAddr| {
            let Place::In(function, offset) = image.place(value) else {
                return false;
            };
            let entity = image.entity(function);
            offset > 0
                && entity.kind == EntityKind::Function
                && !entity
                    .names
                    .iter()
                    .any(|name| whole_of(&name.name).is_some())
                && image
                    .entity_at(table)
                    .is_some_and(|table| !gets_at(image, usage, function, table))
        };
        nobodys(c.base, &c.base_usage, base) && nobodys(c.fixed, &c.fixed_usage, fixed)
    }
}

/// True if `function` refers to `table`, or to what leads there by pointers, or if that is
/// not known.
fn gets_at(image: &Image, usage: &Usage, function: EntityId, table: EntityId) -> bool {
    const MOST: usize = 64;
    let mut seen = BTreeSet::from([table]);
    let mut waiting = vec![table];
    while let Some(object) = waiting.pop() {
        let mut uses = usage.uses.get(&object).into_iter().flatten();
        if seen.len() > MOST || uses.any(|user| user.by == function) {
            return true;
        }
        for place in usage.pointed.get(&object).into_iter().flatten() {
            match image.entity_at(*place) {
                Some(holder) if seen.insert(holder) => waiting.push(holder),
                Some(_) => {}
                None => return true,
            }
        }
    }
    false
}

/// Relocated words of a range, by offset; `None` if one reaches over its start or end.
fn slots(image: &Image, at: LinkAddr, size: u64) -> Option<Vec<(u64, Slot)>> {
    let end = at.checked_add(size)?;
    // A copied variable has any size; all else that the loader writes is as large as an address.
    let word = |slot: &Slot| !matches!(slot, Slot::Copy(_));
    let pointer = image.pointer_size();
    let reach = LinkAddr(at.0.saturating_sub(pointer - 1));
    let mut before = image.slots.range(reach..at);
    if size > 0 && before.any(|(_, slot)| word(slot)) {
        return None;
    }
    let inside = image.slots.range(at..end);
    let inside = inside.map(|(place, slot)| (*place, slot.clone()));
    // Addresses in sections with code are kept apart where they may be operands: here they are none.
    let rebased = image.link == Link::Rebased;
    let in_code = image.code_relocations.range(at..end).filter(|_| rebased);
    let in_code = in_code.map(|(place, to)| (*place, Slot::Pointer(LinkAddr(to.cast_unsigned()))));
    let mut found: Vec<(LinkAddr, Slot)> = inside.chain(in_code).collect();
    found.sort_by_key(|(place, _)| *place);
    let within = found.into_iter().map(|(place, slot)| {
        let whole = !word(&slot) || end.0 - place.0 >= pointer;
        whole.then(|| (place.0 - at.0, slot))
    });
    within.collect()
}
