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
        let leads = Leads::of(image, usage, parts)?;
        let main = image.entity(parts.main);
        Some(Entry {
            clear: clear(image, parts, &leads)?,
            pads: pads(image, main.addr),
            tail: tail(image, main.end()),
            steps: Step::all(image.bytes(main.addr, main.size)?),
            again: leads.back_to(main.addr),
        })
    }
}

/// Bytes from the entry on which nothing leads to but to the first one.
fn clear(image: &Image, parts: &Parts, leads: &Leads) -> Option<u32> {
    let main = image.entity(parts.main);
    let inside = |at: LinkAddr| main.addr <= at && at < main.end();
    let mut clear = main.size;
    let mut lands = |at: LinkAddr| {
        if inside(at) && at > main.addr {
            clear = clear.min(at.0 - main.addr.0);
        }
    };
    let told = leads.told.iter().map(|(at, _)| *at);
    told.chain(leads.tabled.iter().copied())
        .for_each(&mut lands);
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

/// Where the code of a function leads.
struct Leads {
    /// Places that its instructions refer to, and whether that is by a jump.
    told: Vec<(LinkAddr, bool)>,
    /// Places that its tables of jumps hold.
    tabled: Vec<LinkAddr>,
}

impl Leads {
    /// `None` if the function is not all instructions.
    fn of(image: &Image, usage: &Usage, parts: &Parts) -> Option<Leads> {
        let pieces = pieces(image, parts)?;
        let lines = pieces.iter().flatten();
        let references = lines.flat_map(Line::references);
        let told = references.map(|to| (to.target, to.kind == ReferenceKind::Jump));
        Some(Leads {
            told: told.collect(),
            tabled: tabled(image, usage, &pieces),
        })
    }

    /// True if a jump leads to `start`. A call does not count: that is another frame. Whether a
    /// jump is a loop or a call at its end nobody can tell.
    fn back_to(&self, start: LinkAddr) -> bool {
        self.tabled.contains(&start) || self.told.contains(&(start, true))
    }
}

/// The instructions of each part of a function; `None` if it is not all instructions.
pub(crate) fn pieces(image: &Image, parts: &Parts) -> Option<Vec<Vec<Line>>> {
    let pieces = parts.ids().map(|id| decode(image, image.entity(id)));
    pieces.collect()
}

/// Where the jump tables of a function lead, in order.
pub(crate) fn tabled(image: &Image, usage: &Usage, pieces: &[Vec<Line>]) -> Vec<LinkAddr> {
    let starts: HashSet<LinkAddr> = pieces.iter().flatten().map(Line::at).collect();
    let mut found = Vec::new();
    for piece in pieces {
        for (index, line) in piece.iter().enumerate() {
            for reference in line.references() {
                let inside = |at| starts.contains(&at);
                let table = jump_table(image, usage, piece, index, reference.target, &inside);
                found.extend(table.into_iter().flatten().map(|entry| entry.target));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// True if a jump of the function leads to its own first byte; `None` if it is not all instructions.
pub(crate) fn leads_back(image: &Image, usage: &Usage, parts: &Parts) -> Option<bool> {
    let leads = Leads::of(image, usage, parts)?;
    Some(leads.back_to(image.entity(parts.main).addr))
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
