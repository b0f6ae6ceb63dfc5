//! Rules about INFO, BASE and where the parts are.

use std::ops::Range;

use invivo_image::pe::{PeImage, PeMachine};

use super::super::Rule;
use super::super::model::{Base, Integrity, base_flags};
use super::super::read::Parsed;
use super::{Options, Report};

/// Further words that a record may have.
pub(super) const MOST_WORDS: u32 = 16;

pub(super) fn check(report: &mut Report, image: &PeImage, parsed: &Parsed, options: &Options<'_>) {
    let (patch, places) = (&parsed.patch, &parsed.places);
    if patch.sequence == 0 {
        report.kernel(Rule::A05, "the sequence number is 0".to_owned());
    }
    if patch.bases.len() != 1 {
        let text = format!(
            "there are {} bases; every kernel that is known wants exactly one",
            patch.bases.len()
        );
        report.kernel(Rule::A06, text);
    }
    if patch.extra_words > MOST_WORDS {
        let text = format!(
            "each record has {} further words; {MOST_WORDS} are the most",
            patch.extra_words
        );
        report.strict(Rule::A29, text);
    }
    if patch.buffer_offset >= places.size {
        let text = format!(
            "the buffer at {:#x} is not in the metadata",
            patch.buffer_offset
        );
        report.strict(Rule::A31, text);
    }
    for (number, base) in patch.bases.iter().enumerate() {
        check_base(report, image, number, base, places.size);
    }
    check_places(report, parsed);
    if let Some(given) = options.base {
        check_identity(report, image, &patch.bases, given);
    }
}

fn machine_flag(machine: PeMachine) -> u32 {
    match machine {
        PeMachine::I386 => base_flags::I386,
        PeMachine::Amd64 => base_flags::AMD64,
        PeMachine::Arm64 => base_flags::ARM64,
    }
}

fn check_base(report: &mut Report, image: &PeImage, number: usize, base: &Base, size: u32) {
    let machines = base.flags & base_flags::MACHINES;
    let own = machine_flag(image.machine);
    if machines != 0 && machines & own == 0 {
        let text = format!(
            "base {number} is for another machine (flags {:#x}), the image is for {}",
            base.flags,
            image.machine.name()
        );
        report.kernel(Rule::A08, text);
    } else if machines.count_ones() > 1 {
        let text = format!(
            "base {number} names several machines (flags {:#x})",
            base.flags
        );
        report.strict(Rule::A08, text);
    }
    if base.buffer_offset >= size {
        let text = format!(
            "the buffer of base {number} at {:#x} is not in the metadata",
            base.buffer_offset
        );
        report.strict(Rule::A31, text);
    }
    if let Integrity::Unknown {
        offset,
        size: bytes,
    } = base.integrity
    {
        let inside = offset != 0 && u64::from(offset) + u64::from(bytes) <= u64::from(size);
        let what = if inside {
            "are no digests (52 bytes)"
        } else {
            "are not in the metadata"
        };
        let text = format!("the {bytes} bytes at {offset:#x} of base {number} {what}");
        report.strict(Rule::A31, text);
    }
}

/// A10: each part is aligned, and no two overlap.
fn check_places(report: &mut Report, parsed: &Parsed) {
    let places = &parsed.places;
    for (number, table) in places.tables.iter().enumerate() {
        match table {
            None => report.strict(Rule::A10, format!("base {number} has no patch table")),
            Some(table) if !table.start.is_multiple_of(4) => {
                let text = format!(
                    "the patch table of base {number} at {:#x} is not aligned",
                    table.start
                );
                report.strict(Rule::A10, text);
            }
            Some(_) => {}
        }
    }
    let named = |what: &'static str| move |range: &Range<u32>| (range.start, range.end, what);
    let mut parts = vec![
        named("the header")(&places.info),
        named("the list of bases")(&places.list),
    ];
    parts.extend(places.bases.iter().map(named("a base")));
    parts.extend(places.hashes.iter().map(named("digests")));
    parts.extend(places.tables.iter().flatten().map(named("a patch table")));
    parts.retain(|(start, end, _)| start < end);
    parts.sort_unstable();
    for pair in parts.windows(2) {
        let ((_, end, what), (start, _, other)) = (pair[0], pair[1]);
        if start < end {
            let text = format!("{other} at {start:#x} overlaps {what} that ends at {end:#x}");
            report.strict(Rule::A10, text);
        }
    }
}

/// True if the entry is for exactly this build.
pub(super) fn is_of(base: &Base, image: &PeImage) -> bool {
    (base.time_stamp, base.checksum) == (image.time_stamp, image.checksum)
}

/// A28, and that both images are for one machine.
fn check_identity(report: &mut Report, image: &PeImage, bases: &[Base], given: &PeImage) {
    if image.machine != given.machine {
        let text = format!(
            "the base is for {}, the patch for {}",
            given.machine.name(),
            image.machine.name()
        );
        report.kernel(Rule::A08, text);
    }
    if bases.iter().any(|base| is_of(base, given)) && given.checksum == 0 {
        let text = "the base has no checksum (0): its time stamp alone tells it from other builds; link the \
                    base with /release, or at least the next one";
        report.warn(Rule::A28, text.to_owned());
    }
    if bases.is_empty() || bases.iter().any(|base| is_of(base, given)) {
        return;
    }
    let wanted: Vec<String> = bases
        .iter()
        .take(4)
        .map(|base| format!("{:08x}, {:08x}", base.time_stamp, base.checksum))
        .collect();
    let text = format!(
        "the base has time stamp {:08x} and checksum {:08x}; the patch is for {}",
        given.time_stamp,
        given.checksum,
        wanted.join(" or ")
    );
    report.kernel(Rule::A28, text);
}
