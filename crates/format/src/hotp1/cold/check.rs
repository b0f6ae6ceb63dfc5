//! A file that was patched on disk, held against the file that it was.

use std::collections::{BTreeMap, BTreeSet};

use invivo_image::pe::{BaseRelocation, PeExport, PeImage, checksum, directory};

use super::{CODE, COLD, MARK, MARK_SIZE, TABLES, contents};
use crate::hotp1::{Finding, Rule};

/// Directories that a cold patch may move.
const MOVED: [usize; 7] = [
    directory::EXPORT,
    directory::IMPORT,
    directory::EXCEPTION,
    directory::SECURITY,
    directory::BASE_RELOCATION,
    directory::DEBUG,
    directory::BOUND_IMPORT,
];
/// Holds a file with the mark of a cold patch against B17: whether the mark is whole, and, where the
/// base is given, whether the file is the base but for headers, hooks, and what is behind it.
#[must_use]
pub fn validate_cold(image: &PeImage, base: Option<&PeImage>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |text: String| found.push(Finding::new(Rule::B17, text));
    let before = match cold_mark(image) {
        Ok(before) => Some(before),
        Err(text) => {
            add(text);
            None
        }
    };
    let sum = checksum(image.file(), image.header_places().checksum);
    if image.checksum != sum {
        let written = image.checksum;
        add(format!(
            "the checksum is {sum:#x}, the header says {written:#x}"
        ));
    }
    let code = image.sections.iter();
    let name = CODE.map(char::from).iter().collect::<String>();
    if !code
        .into_iter()
        .any(|s| s.name == name && s.is_executable())
    {
        add(format!("there is no section {name} with code"));
    }
    if let Some(base) = base {
        if let Some(before) = before.filter(|before| *before != u64::from(base.checksum)) {
            let own = base.checksum;
            add(format!(
                "it was made of a file with the checksum {before:#x}, not {own:#x}"
            ));
        }
        for text in [
            headers(image, base),
            tables(image, base),
            contents::differ(image, base),
        ] {
            text.into_iter().for_each(&mut add);
        }
    }
    found
}

/// True for a file that says it was patched on disk, or has something else of one.
#[must_use]
pub fn is_cold(image: &PeImage) -> bool {
    let tables = TABLES.map(char::from).iter().collect::<String>();
    let marks = image.debug.iter().filter(|entry| entry.kind == MARK);
    let mut words = marks.filter_map(|entry| image.word(entry.at));
    words.any(|word| word >> 16 == u32::from(COLD))
        || image.sections.iter().any(|section| section.name == tables)
}

/// The checksum that a file had before it was patched on disk (`ChecksumData`).
///
/// # Errors
/// When there is no such mark, or it is broken; the text is for a person.
pub fn cold_mark(image: &PeImage) -> Result<u64, String> {
    let mut marks = image.debug.iter().filter(|entry| entry.kind == MARK);
    let (Some(entry), None) = (marks.next(), marks.next()) else {
        return Err("the debug directory has no mark, or several".to_owned());
    };
    let size = entry.size;
    let bytes = image.array::<{ MARK_SIZE as usize }>(entry.at);
    match bytes.filter(|_| size == MARK_SIZE) {
        Some(bytes) => cold_mark_of(&bytes),
        None => Err(format!("the mark has {size} bytes, {MARK_SIZE} are wanted")),
    }
}

/// The same of the bytes of a mark, wherever they are.
///
/// # Errors
/// When they are none of a cold patch.
pub fn cold_mark_of(bytes: &[u8; MARK_SIZE as usize]) -> Result<u64, String> {
    let signature = u16::from_le_bytes([bytes[2], bytes[3]]);
    if signature != COLD {
        return Err(format!(
            "the mark is {signature:#x}, that of a cold patch {COLD:#x}"
        ));
    }
    let mut sum = [0; 8];
    sum.copy_from_slice(&bytes[12..]);
    Ok(u64::from_le_bytes(sum))
}

fn headers(image: &PeImage, base: &PeImage) -> Option<String> {
    let of = |image: &PeImage| {
        let flags = image.dll_characteristics;
        (
            (image.machine, image.image_base, image.entry_point),
            (image.time_stamp, image.is_library, flags),
            (image.section_alignment, image.directories.len()),
        )
    };
    if of(image) != of(base) {
        return Some("the headers are not those of the base".to_owned());
    }
    let same = image.sections.len() >= base.sections.len()
        && image
            .sections
            .iter()
            .zip(&base.sections)
            .all(|(one, other)| {
                (&one.name, &one.range, one.flags) == (&other.name, &other.range, other.flags)
                    && one.file_size() == other.file_size()
            });
    if !same {
        return Some("the base's sections are not the first ones".to_owned());
    }
    let directories = image.directories.iter().zip(&base.directories).enumerate();
    let other = directories
        .filter(|(index, _)| !MOVED.contains(index))
        .find(|(_, (one, other))| one != other);
    other.map(|(index, _)| format!("data directory {index} is not that of the base"))
}

fn tables(image: &PeImage, base: &PeImage) -> Option<String> {
    let numbered: BTreeMap<u16, &PeExport> =
        image.exports.iter().map(|one| (one.ordinal, one)).collect();
    let has = |one: &PeExport| {
        numbered
            .get(&one.ordinal)
            .is_some_and(|found| *found == one)
    };
    if !base.exports.iter().all(has) {
        return Some("it does not export all that the base does".to_owned());
    }
    let names = |image: &PeImage| -> usize { image.exports.iter().map(|e| e.names.len()).sum() };
    let told: BTreeSet<&String> = image.exports.iter().flat_map(|one| &one.names).collect();
    if told.len() != names(image) {
        return Some("it exports two things by one name".to_owned());
    }
    if !image.imports.starts_with(&base.imports) && !base.imports.is_empty() {
        return Some("the base's imports are not the first ones".to_owned());
    }
    if !image.functions.starts_with(&base.functions) {
        return Some("the base's unwind data are not the first ones".to_owned());
    }
    let all: BTreeSet<&BaseRelocation> = image.relocations.iter().collect();
    let lost = base.relocations.iter().find(|one| !all.contains(one));
    lost.map(|lost| format!("the loader would not move the address at {}", lost.at))
}
