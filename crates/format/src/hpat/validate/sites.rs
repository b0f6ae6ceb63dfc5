//! Rules about the places that are written: what is there, and whether they
//! get in each other's way.

use std::ops::Range;

use invivo_image::pe::{PeImage, PeMachine};

use super::super::Rule;
use super::super::model::{Base, Chunk, ChunkKind, Record};
use super::Report;
use super::records::{Look, place, rva};

/// A place that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Site {
    start: u32,
    end: u32,
    /// Chunk and record.
    of: (usize, usize),
}

pub(super) fn check(report: &mut Report, look: &Look<'_>, base: &Base) {
    for inverse in [false, true] {
        let mut sites = Vec::new();
        let mut functions = Vec::new();
        for (number, chunk) in base.chunks.iter().enumerate() {
            if chunk.inverse != inverse {
                continue;
            }
            let writes = matches!(
                chunk.kind,
                ChunkKind::Function
                    | ChunkKind::Absolute
                    | ChunkKind::Indirect
                    | ChunkKind::DynamicValue
            );
            let (before, behind) = look.extent(chunk.kind);
            for (index, record) in chunk.records.iter().enumerate().filter(|_| writes) {
                let of = (number, index);
                let (start, end) = (
                    record.source.saturating_sub(before),
                    record.source.saturating_add(behind),
                );
                if chunk.kind == ChunkKind::Function {
                    functions.push((record.source, of));
                    check_function(report, look, (number, chunk), (index, record));
                }
                sites.push(Site { start, end, of });
            }
        }
        check_overlaps(report, look, base, &mut sites, &mut functions);
        let image = if inverse { Some(look.patch) } else { look.base };
        if let Some(image) = image {
            check_relocations(report, look, base, image, &sites);
        }
        let fresh = functions.len();
        if fresh > look.capacity as usize {
            let side = if inverse { "patch" } else { "base" };
            let text = format!(
                "{fresh} functions of the {side} are redirected, its address table has {} entries",
                look.capacity
            );
            report.strict(Rule::A27, text);
        }
    }
}

/// A24 to A26: what is at the function.
fn check_function(
    report: &mut Report,
    look: &Look<'_>,
    chunk: (usize, &Chunk),
    (index, record): (usize, &Record),
) {
    let at = || place(look, chunk, index);
    let source = record.source;
    let intel = look.patch.machine != PeMachine::Arm64;
    if intel && source % 8 == 7 {
        let text = format!(
            "{}: the function at {source:#x} straddles an 8-byte boundary",
            at()
        );
        report.warn(Rule::A26, text);
    }
    if !intel && !source.is_multiple_of(4) {
        let text = format!("{}: no instruction can be at {source:#x}", at());
        report.strict(Rule::A23, text);
    }
    let Some(image) = look.source(chunk.1) else {
        return;
    };
    check_expected(report, image, record, &at);
    if !intel {
        return;
    }
    let pad = source
        .checked_sub(5)
        .and_then(|start| image.bytes(rva(start), 5));
    let is_pad = |byte: &u8| matches!(byte, 0xcc | 0x90 | 0);
    if pad.is_none_or(|pad| !pad.iter().all(is_pad)) {
        let text = format!("{}: no padding before the function at {source:#x}", at());
        report.strict(Rule::A25, text);
    }
}

fn check_expected(report: &mut Report, image: &PeImage, record: &Record, at: &dyn Fn() -> String) {
    let source = record.source;
    let Some(expected) = record.extra.first().map(|word| word.to_le_bytes()) else {
        let text = format!("{}: no bytes are expected at {source:#x}", at());
        report.warn(Rule::A24, text);
        return;
    };
    let found: Option<[u8; 4]> = image.array(rva(source));
    // A relocation in the first four bytes changes all but the two that the kernel compares.
    let moves = |width: u64| touched(image, u64::from(source)..u64::from(source) + width);
    let compared = if moves(4) && !moves(2) { 2 } else { 4 };
    if found.is_none_or(|found| found[..compared] != expected[..compared]) {
        let text = format!(
            "{}: the function at {source:#x} begins with {:02x?}, expected are {expected:02x?}",
            at(),
            found.unwrap_or_default()
        );
        report.strict(Rule::A24, text);
    }
}

/// True if a base relocation changes one of these bytes.
fn touched(image: &PeImage, bytes: Range<u64>) -> bool {
    reach(image, &bytes).next().is_some()
}

/// The relocations that change one of these bytes, as ranges.
fn reach<'a>(image: &'a PeImage, bytes: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<'a> {
    let (start, end) = (bytes.start, bytes.end);
    let first = image
        .relocations
        .partition_point(|relocation| relocation.at.0 + 8 <= start);
    image.relocations[first..]
        .iter()
        .take_while(move |relocation| relocation.at.0 < end)
        .map(|relocation| relocation.at.0..relocation.at.0 + relocation.kind.width())
        .filter(move |range| range.end > start)
}

fn check_overlaps(
    report: &mut Report,
    look: &Look<'_>,
    base: &Base,
    sites: &mut [Site],
    functions: &mut [(u32, (usize, usize))],
) {
    let named = |(chunk, record): (usize, usize)| place(look, (chunk, &base.chunks[chunk]), record);
    functions.sort_unstable();
    for pair in functions.windows(2) {
        if pair[0].0 == pair[1].0 {
            let text = format!(
                "{} and {} redirect the function at {:#x}",
                named(pair[0].1),
                named(pair[1].1),
                pair[0].0
            );
            report.strict(Rule::A21, text);
        }
    }
    sites.sort_unstable();
    for pair in sites.windows(2) {
        // The same function twice was told already.
        let same = pair[0].start == pair[1].start
            && [pair[0], pair[1]]
                .iter()
                .all(|site| base.chunks[site.of.0].kind == ChunkKind::Function);
        if pair[1].start < pair[0].end && !same {
            let text = format!(
                "{} and {} both write at {:#x}",
                named(pair[0].of),
                named(pair[1].of),
                pair[1].start
            );
            report.strict(Rule::A22, text);
        }
    }
}

/// A30: a relocation that covers exactly what is written is overwritten as a
/// whole, and serves the image when it is loaded alone; any other is in the way.
fn check_relocations(
    report: &mut Report,
    look: &Look<'_>,
    base: &Base,
    image: &PeImage,
    sites: &[Site],
) {
    for site in sites {
        let chunk = &base.chunks[site.of.0];
        let bytes = u64::from(site.start)..u64::from(site.end);
        let mut wrong = reach(image, &bytes)
            .filter(|range| chunk.kind == ChunkKind::Function || *range != bytes);
        if let Some(range) = wrong.next() {
            let text = format!(
                "{}: a base relocation changes {:#x}..{:#x}, which the site {:#x}..{:#x} shares",
                place(look, (site.of.0, chunk), site.of.1),
                range.start,
                range.end,
                site.start,
                site.end
            );
            report.strict(Rule::A30, text);
        }
    }
}
