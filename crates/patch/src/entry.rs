//! What the entry of a base function allows to a hook.

use std::collections::HashSet;

use invivo_compare::{Parts, Usage, jump_table};
use invivo_image::x86_64::{Line, ReferenceKind, decode, decode_bytes};
use invivo_image::{Image, LinkAddr, Lsda};
use serde::{Deserialize, Serialize};

use crate::prologue::Step;

/// The longest padding that is looked at, in bytes.
const LONGEST_PADDING: u64 = 64;

/// The room that an entry leaves to a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Bytes from the entry on which no branch leads to but to the first one.
    pub clear: u32,
    /// Padding near the entry that control never reaches: offset from the entry and size.
    pub pads: Vec<(i64, u32)>,
    /// Bytes of padding behind the function that control never reaches.
    pub tail: u32,
    /// Its first instructions.
    pub steps: Vec<Step>,
    /// True if the function itself jumps to its first byte: a frame that is in such a loop when the
    /// hook appears would go on in the new function, half-way through the old one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

impl Entry {
    /// Looks at the entry of a function; `None` if its code is not all instructions.
    #[must_use]
    pub fn of(image: &Image, usage: &Usage, parts: &Parts) -> Option<Entry> {
        Some(Entry {
            clear: clear(image, usage, parts)?,
            pads: pads(image, image.entity(parts.main).addr),
            tail: tail(image, image.entity(parts.main).end()),
            steps: {
                let main = image.entity(parts.main);
                Step::all(image.bytes(main.addr, main.size)?)
            },
            again: leads_back(image, usage, parts)?,
        })
    }
}

/// Bytes from the entry on which nothing leads to but to the first one.
fn clear(image: &Image, usage: &Usage, parts: &Parts) -> Option<u32> {
    let main = image.entity(parts.main);
    let inside = |at: LinkAddr| main.addr <= at && at < main.end();
    let mut clear = main.size;
    let mut lands = |at: LinkAddr| {
        if inside(at) && at > main.addr {
            clear = clear.min(at.0 - main.addr.0);
        }
    };
    references(image, usage, parts, |at, _| lands(at))?;
    for id in parts.ids() {
        let at = image.entity(id).addr;
        if let Some(lsda) = image.unwind.fde_at(at).and_then(|fde| fde.lsda) {
            let lsda = Lsda::parse(image, lsda).ok()?;
            let pads = lsda.landing_pads.iter();
            pads.filter_map(|pad| at.checked_add(*pad))
                .chain(lsda.elsewhere)
                .for_each(&mut lands);
        }
    }
    // Other functions do not jump into this one, but a second entry point may exist.
    let next = image
        .entities
        .partition_point(|other| other.addr <= main.addr);
    let others = image.entities[next..].iter().map(|other| other.addr);
    others.take_while(|at| inside(*at)).for_each(lands);
    u32::try_from(clear).ok()
}

/// Tells `told` each place that the code refers to or that its tables of jumps lead to, and whether
/// that is by a jump; `None` if it is not all instructions.
fn references(
    image: &Image,
    usage: &Usage,
    parts: &Parts,
    mut told: impl FnMut(LinkAddr, bool),
) -> Option<()> {
    let bodies: Vec<Vec<Line>> = parts
        .ids()
        .map(|id| decode(image, image.entity(id)))
        .collect::<Option<_>>()?;
    let starts: HashSet<LinkAddr> = bodies.iter().flatten().map(Line::at).collect();
    for body in &bodies {
        for (index, line) in body.iter().enumerate() {
            for reference in line.references() {
                told(reference.target, reference.kind == ReferenceKind::Jump);
                let table = jump_table(image, usage, body, index, reference.target, &|at| {
                    starts.contains(&at)
                });
                let entries = table.into_iter().flatten();
                entries.for_each(|entry| told(entry.target, true));
            }
        }
    }
    Some(())
}

/// True if a jump of the function leads to its own first byte. A call does not count: that is
/// another frame. Whether a jump is a loop or a call at its end nobody can tell.
pub(crate) fn leads_back(image: &Image, usage: &Usage, parts: &Parts) -> Option<bool> {
    let start = image.entity(parts.main).addr;
    let mut back = false;
    references(image, usage, parts, |at, jump| back |= jump && at == start)?;
    Some(back)
}

/// Padding that a short jump from the entry can reach.
fn pads(image: &Image, entry: LinkAddr) -> Vec<(i64, u32)> {
    const REACH: u64 = 128 + LONGEST_PADDING;
    let from = image
        .entities
        .partition_point(|entity| entity.addr.0 + REACH < entry.0);
    let near = image.entities[from..]
        .iter()
        .take_while(|entity| entity.addr.0 < entry.0 + REACH);
    near.filter_map(|entity| {
        let size = padding(image, entity.addr);
        let at =
            i64::try_from(entity.addr.0).ok()? - i64::from(size) - i64::try_from(entry.0).ok()?;
        (size > 0).then_some((at, size))
    })
    .collect()
}

/// Padding from `end`, where a function ends, to the next function or object.
fn tail(image: &Image, end: LinkAddr) -> u32 {
    let next = image.entities.partition_point(|entity| entity.addr < end);
    let next = image.entities.get(next).map(|entity| entity.addr);
    // A gap that is not all of one section is not padding between two functions.
    let section = image.section_at(end);
    next.filter(|next| section.is_some_and(|section| section.range.contains(next)))
        .map_or(0, |next| padding(image, next))
}

/// How many bytes before `at` are padding that control never reaches.
fn padding(image: &Image, at: LinkAddr) -> u32 {
    let Some(before) = at.checked_offset(-1) else {
        return 0;
    };
    let after = image.entities.partition_point(|entity| entity.addr < at);
    let Some(previous) = image.entities[..after].last() else {
        return 0;
    };
    // What ends behind `before` is no padding but code, and what has no size may go on.
    if previous.size == 0 || previous.end() > before || at.0 - previous.end().0 > LONGEST_PADDING {
        return 0;
    }
    let falls_through = decode(image, previous)
        .and_then(|lines| lines.last().copied())
        .is_none_or(|last| !last.ends_flow());
    let gap = at.0 - previous.end().0;
    let bytes = image.bytes(previous.end(), gap).unwrap_or_default();
    let lines = decode_bytes(image, previous.end(), bytes);
    let whole = lines.last().is_some_and(|last| last.end() == at);
    if falls_through || !whole || !lines.iter().all(Line::is_padding) {
        return 0;
    }
    u32::try_from(gap).unwrap_or(0)
}
