//! Line numbers in constant data.
//!
//! A record of a log call (`Metadata` of Rust's `tracing`) holds its line as a number and
//! in a text, `event src/proto.rs:173`, and live variables point to it. When a fix adds
//! lines above, the record differs and means the same. Each such number is held against the
//! line in which the record itself is declared, and the record has to name its file: a
//! table of numbers is none, whatever happens to its numbers.

use std::collections::{BTreeMap, BTreeSet};

use invivo_image::{
    DebugData, Declared, EntityId, EntityKind, Image, LinkAddr, SectionKind, Slot, is_rust,
};

use crate::line_numbers::{line_in_text, moved};
use crate::meaning::Meaning;
use crate::{Comparison, Difference};

/// Constants in which nothing but line numbers differs, by their place in the base; one of
/// the numbers, before and after. None where nothing differs, which only their types show:
/// what a text ends with.
pub(crate) type MovedRecords = BTreeMap<EntityId, Option<(u64, u64)>>;

/// Finds them.
pub(crate) fn find(
    c: &Comparison<'_>,
    base: Option<&DebugData<'_>>,
    fixed: Option<&DebugData<'_>>,
) -> MovedRecords {
    let (Some(base), Some(fixed)) = (base, fixed) else {
        return MovedRecords::new();
    };
    let meaning = Meaning::new(c);
    let differing: Vec<_> = c
        .pairs
        .iter()
        .filter(|(one, other)| may_be_record(c, *one, *other))
        .filter(|(one, other)| !meaning.same_object(*one, *other))
        .collect();
    let ours = differing.iter().map(|(id, _)| c.base.entity(*id).addr);
    let theirs = differing.iter().map(|(_, id)| c.fixed.entity(*id).addr);
    let before = base.variables_declared(&ours.collect());
    let after = fixed.variables_declared(&theirs.collect());
    let found = differing.into_iter().filter_map(|(one, other)| {
        let declared = (
            before.get(&c.base.entity(one).addr)?,
            after.get(&c.fixed.entity(other).addr)?,
        );
        Some((one, only_lines(&meaning, one, other, declared)?))
    });
    found.collect()
}

impl Meaning<'_, '_> {
    /// What differs, if both are places that a panic of Rust reports (`core::panic::Location`:
    /// file, its length, line, column) and differ at most in the line; none if they are the same.
    pub(crate) fn locations(
        &self,
        a: LinkAddr,
        b: LinkAddr,
        sizes: [u64; 2],
    ) -> Option<Result<(), Difference>> {
        const WHOLE: u64 = 24;
        let c = self.comparison();
        if !sizes.iter().all(|size| (WHOLE..WHOLE + 8).contains(size)) {
            return None;
        }
        let read = |image: &'_ Image, at: LinkAddr| {
            let Some(Slot::Pointer(file)) = image.slots.get(&at) else {
                return None;
            };
            let bytes = image.bytes(at, WHOLE)?;
            let file = text(image, *file, number(bytes, 8)?)?.to_owned();
            let numbers = number(bytes, 16)?;
            let (line, column) = (numbers & u64::from(u32::MAX), numbers >> 32);
            file.ends_with(".rs").then_some((file, line, column))
        };
        let ((one, base, column), (other, fixed, there)) = (read(c.base, a)?, read(c.fixed, b)?);
        (one == other && column == there).then_some(if base == fixed {
            Ok(())
        } else {
            Err(Difference::Line { base, fixed })
        })
    }
}

/// True for two constants of one size that have pointers: a record names its file.
fn may_be_record(c: &Comparison<'_>, base: EntityId, fixed: EntityId) -> bool {
    let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
    let kind = |image: &Image, at| image.section_at(at).map(|s| s.kind);
    one.kind == EntityKind::Object
        && one.size == other.size
        && kind(c.base, one.addr) == Some(SectionKind::ReadOnly)
        && kind(c.fixed, other.addr) == Some(SectionKind::ReadOnly)
        && is_rust(one.name())
        && c.base.slots.range(one.addr..one.end()).next().is_some()
}

/// One of the lines, if nothing but lines differs: none if nothing does.
fn only_lines(
    meaning: &Meaning<'_, '_>,
    base: EntityId,
    fixed: EntityId,
    declared: (&Declared, &Declared),
) -> Option<Option<(u64, u64)>> {
    let (before, after) = (&declared.0.place, &declared.1.place);
    let c = meaning.comparison();
    let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
    let slots: Vec<(&LinkAddr, &Slot)> = c.base.slots.range(one.addr..one.end()).collect();
    let others: Vec<(&LinkAddr, &Slot)> = c.fixed.slots.range(other.addr..other.end()).collect();
    let mut words = c.base.bytes(one.addr, one.size)?.to_vec();
    let mut counterparts = c.fixed.bytes(other.addr, other.size)?.to_vec();
    if slots.len() != others.len() {
        return None;
    }
    let is_line = |(old, new): &(u64, u64)| moved(*old, *new, before, after);
    let mut lines = Vec::new();
    let mut names_file = false;
    for ((at, slot), (there, counterpart)) in slots.into_iter().zip(others) {
        let offset = at.0 - one.addr.0;
        if offset != there.0 - other.addr.0 {
            return None;
        }
        let start = usize::try_from(offset).ok()?;
        let beside = (number(&words, start + 8), number(&counterparts, start + 8));
        let typed = |of: fn(&Declared) -> &BTreeSet<u64>| {
            of(declared.0).contains(&offset) && of(declared.1).contains(&offset)
        };
        let texts = match (slot, counterpart, beside) {
            (Slot::Pointer(a), Slot::Pointer(b), (Some(x), Some(y)))
                if typed(|declared| &declared.texts) =>
            {
                text(c.base, *a, x).zip(text(c.fixed, *b, y))
            }
            _ => None,
        };
        if let Some((one, other)) = texts {
            if one != other {
                lines.push(line_in_text(one.as_bytes(), other.as_bytes()).filter(is_line)?);
            }
            names_file |= one == other && names(one, &before.file);
            blank(&mut words, start + 8);
            blank(&mut counterparts, start + 8);
        } else if !(typed(|declared| &declared.lists) && same_lists(c, (slot, counterpart), beside)
            || meaning.same_slot(slot, counterpart))
        {
            return None;
        }
        blank(&mut words, start);
        blank(&mut counterparts, start);
    }
    let halves = |bytes: &[u8]| -> Vec<Vec<u8>> { bytes.chunks(4).map(<[u8]>::to_vec).collect() };
    for (old, new) in halves(&words).iter().zip(&halves(&counterparts)) {
        if old != new {
            let half = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?).into());
            lines.push(Some((half(old)?, half(new)?)).filter(is_line)?);
        }
    }
    (names_file && before.file == after.file).then_some(())?;
    Some(lines.first().copied())
}

/// True for pointers to lists of as many texts as the number beside them says, all the same.
fn same_lists(
    c: &Comparison<'_>,
    slots: (&Slot, &Slot),
    beside: (Option<u64>, Option<u64>),
) -> bool {
    const MOST: u64 = 1024;
    let (Slot::Pointer(one), Slot::Pointer(other)) = slots else {
        return false;
    };
    let count = beside.0.filter(|n| *n <= MOST && beside.1 == Some(*n));
    let entry = |image: &'_ Image, list: &LinkAddr, index: u64| -> Option<String> {
        let at = list.checked_add(index * 16)?;
        let Some(Slot::Pointer(to)) = image.slots.get(&at) else {
            return None;
        };
        let length = number(image.bytes(at.checked_add(8)?, 8)?, 0)?;
        text(image, *to, length).map(str::to_owned)
    };
    count.is_some_and(|count| {
        (0..count).all(|index| {
            let found = entry(c.base, one, index);
            found.is_some() && found == entry(c.fixed, other, index)
        })
    })
}

/// The word at `at`.
fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(word.try_into().ok()?))
}

/// A word that has been looked at.
fn blank(bytes: &mut [u8], at: usize) {
    let word = bytes.iter_mut().skip(at).take(8);
    word.for_each(|byte| *byte = 0);
}

/// The text of `length` bytes at `at`, if it is one.
pub(crate) fn text(image: &Image, at: LinkAddr, length: u64) -> Option<&str> {
    const LONGEST: u64 = 4096;
    let bytes = image.bytes(at, Some(length).filter(|n| (1..=LONGEST).contains(n))?)?;
    // What the loader fills in is no text, whatever stands there.
    let filled = image.slots.range(at..at.checked_add(length)?).next();
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|_| filled.is_none())?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// True if `text` is the path of `file`, or its end: compilers put the folder before it or not.
fn names(text: &str, file: &str) -> bool {
    let ends = |long: &str, short: &str| {
        let rest = long.strip_suffix(short);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/') || short.starts_with('/'))
    };
    text.contains('.') && (ends(text, file) || ends(file, text))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_file_is_named_by_its_path_or_the_end_of_it() {
        assert!(names("src/proto.rs", "src/proto.rs"));
        assert!(names("src/proto.rs", "/build/src/proto.rs"));
        assert!(names("/build/src/proto.rs", "src/proto.rs"));
        assert!(!names("proto.rs", "src/other_proto.rs"));
        assert!(!names("limits", "src/limits"));
    }
}
