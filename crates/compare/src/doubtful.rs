//! Numbers that may be addresses, where nothing tells.
//!
//! An image with fixed addresses does not say which numbers in its code and its tables are
//! addresses, unless the linker kept its relocations. A number that is the same in both images
//! and looks like an address must then lead to the same, or what has it is replaced: it may be
//! the address of something that the fix put where something else was. That is a true reason,
//! but another one than a change, and it is told as what it is.

use std::sync::{Arc, Mutex};

use invivo_image::x86_64::{Line, Reference, ReferenceKind};
use invivo_image::{Image, Link, LinkAddr};

use crate::describe::describe;
use crate::meaning::{Meaning, Referred};
use crate::told::is_immediate;
use crate::{Comparison, Difference};

/// Words that are compared at once.
const PIECE: usize = 512;

type Words<'w> = &'w [[u8; 8]];

/// In which pieces large tables differ. Hundreds of functions refer to one table of tens of
/// megabytes, and the answer for each of them rests on the same bytes.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    kept: Mutex<Vec<Table>>,
}

#[derive(Debug)]
struct Table {
    base: LinkAddr,
    fixed: LinkAddr,
    /// In words.
    size: usize,
    differing: Arc<[usize]>,
}

impl Tables {
    /// A smaller one is compared as soon as found.
    const SMALL: usize = 16 * PIECE;
    /// How many are kept.
    const KEPT: usize = 32;

    /// The numbers of the pieces in which `one`, which stands at `base`, and `other`, which
    /// stands at `fixed` and is as long, are not the same.
    fn differing(
        &self,
        (base, one): (LinkAddr, Words<'_>),
        (fixed, other): (LinkAddr, Words<'_>),
    ) -> Arc<[usize]> {
        let find = || {
            let pieces = one.chunks(PIECE).zip(other.chunks(PIECE)).enumerate();
            let differing = pieces.filter(|(_, (x, y))| x != y);
            differing.map(|(number, _)| number).collect()
        };
        let size = one.len();
        if size < Tables::SMALL {
            return find();
        }
        // Who comes second waits for the first and need not look.
        let Ok(mut kept) = self.kept.lock() else {
            return find();
        };
        let known = kept
            .iter()
            .find(|table| (table.base, table.fixed, table.size) == (base, fixed, size));
        if let Some(table) = known {
            return Arc::clone(&table.differing);
        }
        let differing: Arc<[usize]> = find();
        if kept.len() < Tables::KEPT {
            kept.push(Table {
                base,
                fixed,
                size,
                differing: Arc::clone(&differing),
            });
        }
        differing
    }
}

/// True if numbers of both images may be addresses.
fn in_doubt(c: &Comparison<'_>) -> bool {
    let doubt = |image: &Image| image.link == Link::Fixed && !image.relocations_kept;
    doubt(c.base) && doubt(c.fixed)
}

/// What to say of a number in code that is the same in both images, if one of them or both
/// would lead elsewhere as addresses.
pub(crate) fn of_code(
    c: &Comparison<'_>,
    (a, b): (&Line, &Line),
    (from, to): (Option<Reference>, Option<Reference>),
) -> Option<Difference> {
    let absolute = |to: &Reference| to.kind == ReferenceKind::Absolute;
    let number = from.or(to).filter(absolute)?;
    let same = match (from, to) {
        (Some(from), Some(to)) => absolute(&to) && from.target == to.target,
        _ => {
            let (one, other) = (&a.instruction, &b.instruction);
            let mut numbers = (0..one.op_count()).filter(|op| is_immediate(one.op_kind(*op)));
            numbers.all(|op| one.immediate(op) == other.immediate(op))
                && one.memory_displacement64() == other.memory_displacement64()
        }
    };
    (same && in_doubt(c)).then(|| Difference::Doubt {
        number: Some(number.target.0),
        base: describe(c.base, number.target),
        fixed: describe(c.fixed, number.target),
    })
}

impl Meaning<'_, '_> {
    /// What to say of two objects or constants of these sizes in which nothing differs but what
    /// equal numbers would mean as addresses.
    pub(crate) fn doubt(
        &self,
        (a, b): (LinkAddr, LinkAddr),
        sizes: [u64; 2],
    ) -> Option<Difference> {
        let c = self.comparison();
        let filled = |image: &Image, at: LinkAddr, size: u64| {
            let range = at..LinkAddr(at.0.saturating_add(size));
            image.slots.range(range).next().is_some()
        };
        let [size, its_size] = sizes;
        if !in_doubt(c)
            || size != its_size
            || filled(c.base, a, size)
            || filled(c.fixed, b, size)
            || (a.0 ^ b.0) & 7 != 0
        {
            return None;
        }
        let (one, other) = (c.base.bytes(a, size)?, c.fixed.bytes(b, size)?);
        let lead = usize::try_from(a.0.wrapping_neg() & 7).ok()?.min(one.len());
        let (words, its) = (
            one[lead..].as_chunks::<8>().0,
            other[lead..].as_chunks::<8>().0,
        );
        let tail = lead + (one.len() - lead) / 8 * 8;
        let as_address = |(x, y): (&[u8; 8], &[u8; 8])| {
            let place = |at: &[u8; 8]| Referred::pointer(LinkAddr(u64::from_le_bytes(*at)));
            x == y || self.same(place(x), place(y)).is_ok()
        };
        let piece = |number: usize| {
            let range = number * PIECE..((number + 1) * PIECE).min(words.len());
            words[range.clone()].iter().zip(&its[range])
        };
        let same = one[..lead] == other[..lead] && one[tail..] == other[tail..] && {
            // Tables of tens of megabytes are the same in nearly all pieces.
            let differing = c.tables_in_doubt.differing((a, words), (b, its));
            differing
                .iter()
                .all(|number| piece(*number).all(as_address))
        };
        same.then(|| Difference::Doubt {
            number: None,
            base: describe(c.base, a),
            fixed: describe(c.fixed, b),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{LinkAddr, PIECE, Tables};

    #[test]
    fn pieces_of_a_table_are_known_again_and_those_of_another_are_not_taken_for_them() {
        let tables = Tables::default();
        let at = |place| LinkAddr(place);
        for size in [Tables::SMALL - 1, Tables::SMALL + 7] {
            let one = vec![[1; 8]; size];
            let mut other = one.clone();
            other[PIECE][3] = 2;
            other[size - 1][0] = 2;
            let last = (size - 1) / PIECE;
            for _ in 0..2 {
                let found = tables.differing((at(8), &one), (at(16), &other));
                assert_eq!(found[..], [1, last]);
                // Elsewhere, and shorter.
                assert!(tables.differing((at(8), &one), (at(24), &one)).is_empty());
                let found = tables.differing((at(8), &one[1..]), (at(16), &other[1..]));
                assert_eq!(found[..], [0, (size - 2) / PIECE]);
            }
        }
        // More than are kept.
        let one = vec![[1; 8]; Tables::SMALL];
        for place in 0..2 * Tables::KEPT as u64 {
            let mut other = one.clone();
            other[place as usize] = [3; 8];
            for _ in 0..2 {
                let found = tables.differing((at(place), &one), (at(place), &other));
                assert_eq!(found[..], [0]);
            }
        }
    }
}
