//! Numbers that may be addresses, where nothing tells.
//!
//! An image with fixed addresses does not say which numbers in its code and its tables are
//! addresses, unless the linker kept its relocations. A number that is the same in both images
//! and looks like an address must then lead to the same, or what has it is replaced: it may be
//! the address of something that the fix put where something else was. That is a true reason,
//! but another one than a change, and it is told as what it is.

use invivo_image::x86_64::{Line, Reference, ReferenceKind};
use invivo_image::{Image, Link, LinkAddr};

use crate::describe::describe;
use crate::matching::is_immediate;
use crate::meaning::{Meaning, Referred};
use crate::{Comparison, Difference};

/// Words that are compared at once.
const PIECE: usize = 512;

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
        // Tables of tens of megabytes are the same in nearly all pieces.
        let pieces = words.chunks(PIECE).zip(its.chunks(PIECE));
        let mut differing = pieces.filter(|(x, y)| x != y);
        let same = one[..lead] == other[..lead]
            && one[tail..] == other[tail..]
            && differing.all(|(x, y)| x.iter().zip(y).all(as_address));
        same.then(|| Difference::Doubt {
            number: None,
            base: describe(c.base, a),
            fixed: describe(c.fixed, b),
        })
    }
}
