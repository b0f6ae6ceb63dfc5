//! Rules about single chunks and records.

use std::collections::BTreeSet;

use invivo_image::Rva;
use invivo_image::pe::{PeImage, PeMachine, guard_flags, section_flags};

use super::super::Rule;
use super::super::model::{Base, Chunk, ChunkKind, Record};
use super::Report;

/// One base of a patch, and the images on both sides.
pub(super) struct Look<'a> {
    pub(super) patch: &'a PeImage,
    pub(super) base: Option<&'a PeImage>,
    /// The number of the BASE entry.
    pub(super) number: usize,
    /// Entries of each image's address table.
    pub(super) capacity: u32,
}

impl<'a> Look<'a> {
    /// The image in which a chunk's sources are, where it is known.
    pub(super) fn source(&self, chunk: &Chunk) -> Option<&'a PeImage> {
        if chunk.inverse {
            Some(self.patch)
        } else {
            self.base
        }
    }

    /// The image in which a chunk's targets are, where it is known.
    pub(super) fn target(&self, chunk: &Chunk) -> Option<&'a PeImage> {
        if chunk.inverse {
            self.base
        } else {
            Some(self.patch)
        }
    }

    /// How many bytes before and behind word 0 may be written for a record of
    /// that kind.
    pub(super) fn extent(&self, kind: ChunkKind) -> (u32, u32) {
        let pointer = self.patch.machine.pointer_size();
        match kind {
            ChunkKind::Function if self.patch.machine == PeMachine::Arm64 => (0, 8),
            ChunkKind::Function => (6, 2),
            ChunkKind::Rel32 => (0, 4),
            _ => (0, pointer),
        }
    }
}

/// Where a record stands, in words.
pub(super) fn place(look: &Look<'_>, chunk: (usize, &Chunk), record: usize) -> String {
    let (number, chunk) = chunk;
    let base = if look.number == 0 {
        String::new()
    } else {
        format!("base {}, ", look.number)
    };
    format!("{base}chunk {number} ({}), record {record}", chunk.title())
}

pub(super) fn check(report: &mut Report, look: &Look<'_>, base: &Base) {
    check_guard(report, look, base);
    for (number, chunk) in base.chunks.iter().enumerate() {
        let what = || format!("chunk {number} ({})", chunk.title());
        if chunk.reserved != 0 {
            let text = format!("{} has reserved bits {:#x}", what(), chunk.reserved);
            report.kernel(Rule::A12, text);
        }
        if chunk.obligatory {
            report.kernel(Rule::A13, format!("{} is obligatory", what()));
        }
        if let ChunkKind::Unknown(code) = chunk.kind {
            report.strict(Rule::A14, format!("{} has kind {code:#x}", what()));
        }
        if !chunk.inverse && chunk.kind != ChunkKind::Function {
            report.kernel(Rule::A15, format!("{} is not of functions", what()));
        }
        for (index, record) in chunk.records.iter().enumerate() {
            let at = || place(look, (number, chunk), index);
            check_bounds(report, look, chunk, record, &at);
            check_kind(report, look, chunk, record, &at);
        }
    }
}

/// A20: where calls through pointers are checked, each function that the patch's own table allows is
/// told, since nothing else of it may be called so once it is applied.
fn check_guard(report: &mut Report, look: &Look<'_>, base: &Base) {
    /// `IMAGE_GUARD_FLAG_FID_SUPPRESSED`.
    const SUPPRESSED: u8 = 1;
    if look.patch.guard_flags() & guard_flags::INSTRUMENTED == 0 {
        return;
    }
    let targets = match look.patch.guard_targets() {
        Ok(targets) => targets,
        Err(error) => return report.strict(Rule::A20, error.to_string()),
    };
    let chunks = base
        .chunks
        .iter()
        .filter(|chunk| chunk.kind == ChunkKind::CallTarget);
    let told: BTreeSet<u64> = chunks
        .flat_map(|chunk| &chunk.records)
        .map(|record| record.source.into())
        .collect();
    for target in targets {
        if target.flags & SUPPRESSED == 0 && !told.contains(&target.at.0) {
            let text = format!(
                "the function at {} may be called through pointers where the image runs alone, and \
                 no CALL_TARGET tells it",
                target.at
            );
            report.strict(Rule::A20, text);
        }
    }
}

fn check_bounds(
    report: &mut Report,
    look: &Look<'_>,
    chunk: &Chunk,
    record: &Record,
    at: &dyn Fn() -> String,
) {
    if let Some(image) = look.target(chunk).filter(|_| chunk.kind.has_target()) {
        let room = match chunk.kind {
            ChunkKind::Function => 8,
            _ => look.patch.machine.pointer_size(),
        };
        if u64::from(record.target) + u64::from(room) > u64::from(image.size) {
            let text = format!(
                "{}: the target {:#x} is not in the image, which ends at {:#x}",
                at(),
                record.target,
                image.size
            );
            report.kernel(Rule::A16, text);
        }
    }
    if let Some(image) = look.source(chunk).filter(|_| chunk.kind.has_source()) {
        let (before, behind) = look.extent(chunk.kind);
        let end = u64::from(record.source) + u64::from(behind);
        let text = |what: &str| format!("{}: the source {:#x} {what}", at(), record.source);
        // The kernel compares the number of the last page, and not its address.
        if record.source < before || (end - 1) >> 12 > u64::from(image.size) >> 12 {
            report.kernel(Rule::A17, text("is not in the image"));
        } else if end > u64::from(image.size) {
            report.strict(Rule::A17, text("is in the page behind the image"));
        }
    }
}

fn check_kind(
    report: &mut Report,
    look: &Look<'_>,
    chunk: &Chunk,
    record: &Record,
    at: &dyn Fn() -> String,
) {
    let source = look.source(chunk);
    let target = look.target(chunk);
    match chunk.kind {
        ChunkKind::Function => {
            if record.source < 0x10 {
                let text = format!("{}: the function is at {:#x}", at(), record.source);
                report.kernel(Rule::A18, text);
            }
            for (image, place, what) in [
                (source, record.source, "source"),
                (target, record.target, "target"),
            ] {
                let wrong = image.filter(|image| !is_code(image, place));
                if let Some(image) = wrong {
                    let section = image.section_name(rva(place));
                    let text = format!(
                        "{}: the {what} {place:#x} is in {section}, not in code",
                        at()
                    );
                    report.strict(Rule::A23, text);
                }
            }
        }
        ChunkKind::Absolute | ChunkKind::Indirect | ChunkKind::DynamicValue => {
            let size = u64::from(look.patch.machine.pointer_size());
            let wrong = source.filter(|image| !is_data(image, record.source, size));
            if let Some(image) = wrong {
                let section = image.section_name(rva(record.source));
                let text = format!(
                    "{}: the source {:#x} is in {section}, not in initialised data",
                    at(),
                    record.source
                );
                report.strict(Rule::A23, text);
            }
            let unmapped = |image: &&PeImage| image.section_at(rva(record.target)).is_none();
            if chunk.kind.has_target() && target.is_some_and(|image| unmapped(&image)) {
                let text = format!("{}: the target {:#x} is in no section", at(), record.target);
                report.strict(Rule::A23, text);
            }
            if chunk.kind == ChunkKind::DynamicValue && record.target == u32::MAX {
                report.kernel(Rule::A19, format!("{}: the index is 0xffffffff", at()));
            }
        }
        ChunkKind::CallTarget => {
            if !record.source.is_multiple_of(16) {
                let text = format!("{}: {:#x} is not aligned to 16 bytes", at(), record.source);
                report.kernel(Rule::A20, text);
            } else if source.is_some_and(|image| !is_code(image, record.source)) {
                let text = format!("{}: {:#x} is not in code of the patch", at(), record.source);
                report.strict(Rule::A20, text);
            }
        }
        ChunkKind::None | ChunkKind::Rel32 | ChunkKind::NoCallTarget | ChunkKind::Unknown(_) => {}
    }
}

pub(super) fn rva(place: u32) -> Rva {
    Rva(place.into())
}

/// True if there is code at `place`, in the file too.
fn is_code(image: &PeImage, place: u32) -> bool {
    let section = image.section_at(rva(place));
    section.is_some_and(|section| section.is_executable()) && image.bytes(rva(place), 2).is_some()
}

/// True if `size` bytes of initialised data are at `place`.
fn is_data(image: &PeImage, place: u32, size: u64) -> bool {
    const DROPPED: u32 = section_flags::DISCARDABLE | section_flags::SHARED;
    image.section_at(rva(place)).is_some_and(|section| {
        let inside = rva(place)
            .checked_add(size)
            .is_some_and(|end| end <= section.range.end);
        inside && !section.is_executable() && section.flags & DROPPED == 0
    }) && image.bytes(rva(place), size).is_some()
}
