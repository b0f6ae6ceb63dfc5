//! Tables of places in a function that its code jumps through, seen to be the same without
//! decoding it.

use invivo_image::{Image, Link, LinkAddr, Slot};

use crate::Parts;
use crate::meaning::Meaning;

impl Meaning<'_, '_> {
    /// True if two tables of `count` entries, and of as many more as lead into the function,
    /// lead to the same places in it, and what stands behind them is the same.
    pub(crate) fn same_table(
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
}

/// The part of the function that holds `at`, and how far that is into it. A place in the
/// function is the same at the same distance from its start, where its bytes are the same.
pub(crate) fn own(image: &Image, parts: &Parts, at: LinkAddr) -> Option<(usize, u64)> {
    let inside = |id| {
        let part = image.entity(id);
        (part.addr <= at && at < part.end()).then(|| at.0 - part.addr.0)
    };
    // Most functions have one part, and this is asked of each reference.
    if let Some(way) = inside(parts.main) {
        return Some((0, way));
    }
    let mut cold = (1..).zip(&parts.cold);
    cold.find_map(|(number, id)| Some((number, inside(*id)?)))
}

/// Where entry `number` of a table of code places leads: of distances from its start, or of
/// addresses.
fn entry(image: &Image, table: LinkAddr, width: u64, number: u64) -> Option<LinkAddr> {
    let place = table.checked_add(number.checked_mul(width)?)?;
    let raw = image.bytes(place, width)?;
    if width == 4 && image.link != Link::Rebased {
        return table.checked_offset(i32::from_le_bytes(raw.try_into().ok()?).into());
    }
    match image.slots.get(&place) {
        Some(Slot::Pointer(target)) => Some(*target),
        Some(_) => None,
        None if image.link == Link::Rebased => None,
        None => Some(LinkAddr(u64::from_le_bytes(raw.try_into().ok()?))),
    }
}

/// True if what stands at `at`, read as a distance from there or as an address, leads into the
/// function: otherwise the first entry of a jump table there would be none of its own, and so
/// there is no such table.
pub(crate) fn leads_into(image: &Image, parts: &Parts, at: LinkAddr) -> bool {
    let inside = |to: LinkAddr| {
        let mut parts = parts.ids().map(|id| image.entity(id));
        parts.any(|part| (part.addr..part.end()).contains(&to))
    };
    let distance = image.bytes(at, 4).and_then(<[u8]>::first_chunk);
    let near = distance.and_then(|bytes| at.checked_offset(i32::from_le_bytes(*bytes).into()));
    let far = || match image.slots.get(&at) {
        Some(Slot::Pointer(to)) => Some(*to),
        Some(_) => None,
        None if image.link == Link::Rebased => None,
        None => {
            let word = image.bytes(at, 8).and_then(<[u8]>::first_chunk);
            word.map(|bytes| LinkAddr(u64::from_le_bytes(*bytes)))
        }
    };
    near.is_some_and(inside) || far().is_some_and(inside)
}
