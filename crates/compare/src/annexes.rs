//! Entries of tables beside the code: alternatives, traps that are messages, faults that are
//! expected, calls that become direct.
//!
//! They change what a function does without a bit of its code, so they are compared with it.

use invivo_image::{Annex, EntityId, EntityKind, Image, LinkAddr};

use crate::code::Body;
use crate::meaning::{Meaning, Referred};
use crate::rules::{Finding, Rule};
use crate::{Comparison, Difference, Differing, Parts};

/// All entries about the code of a function, in order of its parts.
pub(crate) fn of<'i>(image: &'i Image, parts: &Parts) -> Vec<&'i Annex> {
    let entities = parts.ids().map(|id| image.entity(id));
    entities
        .flat_map(|entity| image.annexes_of(entity.addr..entity.end()))
        .collect()
}

impl Meaning<'_, '_> {
    /// How the entries about two functions differ, which are decoded as `one` and `other`.
    pub(crate) fn annex_differences(
        &self,
        (base, one): (&Parts, &Body<'_>),
        (fixed, other): (&Parts, &Body<'_>),
        found: &mut Vec<Differing>,
    ) {
        let c = self.comparison();
        let (entries, others) = (of(c.base, base), of(c.fixed, fixed));
        let differ = |table: &str| Difference::Annex {
            table: table.to_owned(),
        };
        if entries.len() != others.len() {
            let longer = if entries.len() > others.len() {
                &entries
            } else {
                &others
            };
            let what = differ(longer.first().map_or("", |entry| &entry.section));
            found.push(Differing { what, at: None });
            return;
        }
        for (a, b) in entries.into_iter().zip(others) {
            let place = |x: LinkAddr, y: LinkAddr| match (one.index(x), other.index(y)) {
                (None, None) => self
                    .same(Referred::pointer(x), Referred::pointer(y))
                    .is_ok(),
                (x, y) => x == y,
            };
            let at = Some((a.owner, b.owner));
            if !same_entry(a, b, place) {
                let what = differ(&a.section);
                found.push(Differing { what, at });
            } else if let Some((base, fixed)) = lines(a, b) {
                let what = Difference::Line { base, fixed };
                found.push(Differing { what, at });
            } else if a
                .fields
                .iter()
                .zip(&b.fields)
                .any(|(a, b)| a.above != b.above)
            {
                let what = differ(&a.section);
                found.push(Differing { what, at });
            }
        }
    }
}

/// True if two entries say the same, but for bits above distances.
fn same_entry(a: &Annex, b: &Annex, place: impl Fn(LinkAddr, LinkAddr) -> bool) -> bool {
    let used = if a.replaces_by_nothing() {
        1
    } else {
        a.fields.len()
    };
    a.section == b.section
        && a.bytes == b.bytes
        && a.fields.len() == b.fields.len()
        && a.fields
            .iter()
            .zip(&b.fields)
            .all(|(a, b)| a.offset == b.offset)
        && a.fields
            .iter()
            .zip(&b.fields)
            .take(used)
            .all(|(a, b)| place(a.target, b.target))
}

/// The lines of two frames of `.bug_frames.N`, if they differ: seven bits of it stand above
/// each of the first two distances.
fn lines(a: &Annex, b: &Annex) -> Option<(u64, u64)> {
    const BITS: u32 = 7;
    let line = |annex: &Annex| match &annex.fields[..] {
        [high, low, ..] if annex.section.starts_with(".bug_frames.") => {
            let (high, low) = (high.above, low.above);
            (high < 1 << BITS && low < 1 << BITS).then_some(u64::from(high << BITS | low))
        }
        _ => None,
    };
    let both = line(a).zip(line(b));
    both.filter(|(one, other)| one != other)
}

/// Refuses where entries differ that are about code of which nobody knows the bounds.
pub(crate) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    fn unowned(image: &Image) -> Vec<&Annex> {
        let is_unowned = |annex: &&Annex| {
            let owner = image.entity_at(annex.owner).map(|id| image.entity(id));
            !owner.is_some_and(|e| e.kind == EntityKind::Function && e.size > 0)
        };
        image.annexes.iter().filter(is_unowned).collect()
    }
    let (one, other) = (unowned(c.base), unowned(c.fixed));
    let meaning = Meaning::new(c);
    let place = |x, y| {
        let pointer = Referred::pointer;
        is_as_far(c, x, y) || meaning.same(pointer(x), pointer(y)).is_ok()
    };
    let same =
        one.len() == other.len() && one.iter().zip(&other).all(|(a, b)| same_entry(a, b, place));
    if !same {
        let first = one.first().or(other.first());
        findings.push(Finding::refuse(
            Rule::Symbols,
            first.map_or("", |annex| &annex.section),
            "has other entries about code that belongs to no function with a size, so nobody \
             knows what to replace",
        ));
    }
}

/// True if two places are as far behind what has a symbol, and that is a pair.
fn is_as_far(c: &Comparison<'_>, a: LinkAddr, b: LinkAddr) -> bool {
    let before = |image: &Image, at: LinkAddr| {
        let section = image.section_at(at)?;
        let after = image.entities.partition_point(|entity| entity.addr <= at);
        let index = after.checked_sub(1)?;
        let entity = &image.entities[index];
        let id = EntityId(u32::try_from(index).ok()?);
        let distance = at.checked_sub(entity.addr)?;
        section
            .range
            .contains(&entity.addr)
            .then_some((id, distance))
    };
    let both = before(c.base, a).zip(before(c.fixed, b));
    both.is_some_and(|((one, x), (other, y))| x == y && c.pairs.fixed_of(one) == Some(other))
}
