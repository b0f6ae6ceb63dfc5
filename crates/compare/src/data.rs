//! Comparison of data by meaning: bytes are equal, pointers mean the same.

use invivo_image::{Image, Link, LinkAddr, Slot};

use crate::Comparison;
use crate::meaning::{Meaning, Referred};

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
        let mut pairs = slots.iter().zip(&others);
        if !pairs.all(|((at, slot), (there, other))| at == there && self.same_slot(slot, other)) {
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
        let mut expected = one.to_vec();
        for (at, _) in &slots {
            // What the file holds below a relocation is replaced when the image is loaded.
            let at = usize::try_from(*at).expect("an offset inside a slice");
            let end = (at + 8).min(expected.len());
            expected[at..end].copy_from_slice(&other[at..end]);
        }
        expected == other
    }

    /// Words of an image with fixed addresses: equal numbers, or addresses that mean the same.
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
                            return self.same(place(x), place(y)).is_ok();
                        }
                    }
                    a == b
                })
    }
}

/// Relocated words of a range, by offset; `None` if one reaches over its start or end.
fn slots(image: &Image, at: LinkAddr, size: u64) -> Option<Vec<(u64, Slot)>> {
    let end = at.checked_add(size)?;
    // A copied variable has any size; all else that the loader writes has eight bytes.
    let word = |slot: &Slot| !matches!(slot, Slot::Copy(_));
    let mut before = image.slots.range(LinkAddr(at.0.saturating_sub(7))..at);
    if size > 0 && before.any(|(_, slot)| word(slot)) {
        return None;
    }
    let inside = image.slots.range(at..end);
    inside
        .map(|(place, slot)| {
            let whole = !word(slot) || end.0 - place.0 >= 8;
            whole.then(|| (place.0 - at.0, slot.clone()))
        })
        .collect()
}
