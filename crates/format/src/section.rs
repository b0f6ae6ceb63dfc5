//! A copy of a Windows image with more sections.

use std::ops::Range;
use std::sync::Arc;

use invivo_image::pe::{PeImage, checksum, directory, section_flags};

/// A section that is added.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) name: [u8; 8],
    /// `Characteristics`.
    pub(crate) flags: u32,
    pub(crate) contents: Vec<u8>,
    /// Bytes in memory; what the contents lack are zeros.
    pub(crate) size: u32,
}

impl Section {
    /// A section that is as long in memory as its contents.
    pub(crate) fn new(name: [u8; 8], flags: u32, contents: Vec<u8>) -> Result<Section, String> {
        let size = u32::try_from(contents.len());
        let size = size.map_err(|_| "the section would exceed 4 GiB".to_owned())?;
        Ok(Section {
            name,
            flags,
            contents,
            size,
        })
    }
}

/// The copy, before its checksum is made.
pub(crate) struct Grown {
    /// Nobody else has it.
    pub(crate) file: Arc<[u8]>,
    /// Where each new section is in memory, and where it begins in the file.
    pub(crate) places: Vec<(u32, u32)>,
    /// Bytes of certificates that were left out: they are not right for the new file.
    pub(crate) certificates: u64,
    /// Bytes behind the sections that belong to none; they stay where they are in the file.
    pub(crate) overlay: u64,
}

/// Where fields of the headers stand in the file.
struct Headers {
    section_count: usize,
    initialized_data: usize,
    image_size: usize,
    security: usize,
    table_end: usize,
}

/// Bytes of a section header.
const HEADER: usize = 40;

/// Where the next section of an image would be.
pub(crate) fn next(image: &PeImage) -> u64 {
    let last = image.sections.last();
    let last = last.map_or(u64::from(image.headers_size), |section| section.range.end.0);
    last.max(image.size.into())
        .next_multiple_of(image.section_alignment.into())
}

/// Adds sections as the last ones, each right behind the one before it.
///
/// All that is in the file keeps its place, since other structures may hold
/// offsets: what lies behind the sections (an overlay) is followed by the new
/// ones. Certificates are left out. The error is a text for a person.
pub(crate) fn append(image: &PeImage, sections: &[Section]) -> Result<Grown, String> {
    let headers = headers(image, sections.len())?;
    no_hole(image)?;
    let certificates = certificates(image)?;
    let end = certificates.as_ref().map(|found| found.start);
    let held = &image.file()[..end.unwrap_or(image.file().len())];
    let overlay = held.len().saturating_sub(sections_end(image)) as u64;
    let align = |value: u64, to: u32| value.next_multiple_of(u64::from(to));
    let number = |value: u64, what: &str| {
        u32::try_from(value).map_err(|_| format!("{what} would exceed 4 GiB"))
    };
    let length = sections.iter().fold(held.len() as u64, |end, section| {
        let length = section.contents.len() as u64;
        align(end, image.file_alignment) + align(length, image.file_alignment)
    });
    // Where it stays: of the largest images a second copy would be most of what is in memory.
    let more = number(length, "the file")? as usize - held.len();
    let bytes = held.iter().copied();
    let mut grown: Arc<[u8]> = bytes.chain(std::iter::repeat_n(0, more)).collect();
    let file = bytes_of(&mut grown);
    if certificates.is_some() {
        file[headers.security..headers.security + 8].fill(0);
    }
    let mut file_end = held.len() as u64;
    let (mut at, mut places) = (next(image), Vec::new());
    for (index, section) in sections.iter().enumerate() {
        let length = section.contents.len() as u64;
        let start = align(file_end, image.file_alignment);
        let raw_size = align(length, image.file_alignment);
        file_end = start + raw_size;
        let (at_word, start) = (number(at, "the image")?, number(start, "the file")?);
        let raw_size = number(raw_size, "the section")?;
        file[start as usize..][..section.contents.len()].copy_from_slice(&section.contents);
        let mut header = Vec::from(section.name);
        // Nothing in the file is at no place.
        let from = if raw_size == 0 { 0 } else { start };
        for word in [
            section.size,
            at_word,
            raw_size,
            from,
            0,
            0,
            0,
            section.flags,
        ] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        let place = headers.table_end + HEADER * index;
        file[place..place + HEADER].copy_from_slice(&header);
        let field = match section.flags & section_flags::CODE {
            0 => headers.initialized_data,
            // SizeOfCode stands right before it.
            _ => headers.initialized_data - 4,
        };
        let sum = get(file, field).wrapping_add(raw_size);
        set(file, field, sum);
        places.push((at_word, start));
        at = align(at + u64::from(section.size), image.section_alignment);
    }
    let count = u16::try_from(image.sections.len() + sections.len())
        .map_err(|_| "the image has too many sections".to_owned())?;
    file[headers.section_count..headers.section_count + 2].copy_from_slice(&count.to_le_bytes());
    set(file, headers.image_size, number(at, "the image")?);
    Ok(Grown {
        file: grown,
        places,
        certificates: certificates.map_or(0, |found| found.len() as u64),
        overlay,
    })
}

/// The file with its checksum right.
pub(crate) fn finish(image: &PeImage, mut file: Arc<[u8]>) -> Arc<[u8]> {
    let place = image.header_places().checksum;
    let sum = checksum(&file, place);
    set(bytes_of(&mut file), place, sum);
    file
}

/// The bytes of a file that is being made.
pub(crate) fn bytes_of(file: &mut Arc<[u8]>) -> &mut [u8] {
    Arc::get_mut(file).expect("nobody else has it yet")
}

pub(crate) fn get(file: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&file[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn set(file: &mut [u8], at: usize, value: u32) {
    file[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The first new section begins behind all that the image says it has, and Windows wants each right
/// behind the one before it.
fn no_hole(image: &PeImage) -> Result<(), String> {
    let last = image.sections.last().map(|section| section.range.end.0);
    let end = last.map(|end| end.next_multiple_of(image.section_alignment.into()));
    match end.filter(|end| *end < next(image)) {
        Some(end) => Err(format!(
            "the image ends at {:#x} and its last section at {end:#x}; Windows would not load it with \
             more behind that hole; link it again",
            next(image)
        )),
        None => Ok(()),
    }
}

/// Where the headers are, with room for so many sections more.
fn headers(image: &PeImage, more: usize) -> Result<Headers, String> {
    let layout = image.header_places();
    let table_end = layout.section_table + HEADER * image.sections.len();
    let new_end = table_end + HEADER * more;
    let first = image.sections.iter().filter_map(|s| s.file_start()).min();
    let limit = first.unwrap_or(usize::MAX).min(image.headers_size as usize);
    let free = image.file().get(table_end..new_end);
    let free = free.filter(|room| new_end <= limit && room.iter().all(|byte| *byte == 0));
    let bound = image.directory(directory::BOUND_IMPORT);
    let bound = bound.is_some_and(|bound| bound.at.0 < new_end as u64);
    if free.is_none() || bound {
        let another = if more == 1 {
            "another section".to_owned()
        } else {
            format!("{more} more sections")
        };
        let why = match bound {
            true => {
                ", as its list of bound imports is there; take the image as it was linked, or bind it \
                 later"
            }
            false => "; link the image with fewer sections (/merge:.pdata=.rdata)",
        };
        return Err(format!("the headers have no room for {another}{why}"));
    }
    Ok(Headers {
        section_count: layout.section_count,
        initialized_data: layout.initialized_data,
        image_size: layout.image_size,
        security: layout.directories + 8 * directory::SECURITY,
        table_end,
    })
}

/// Where the last section ends in the file.
fn sections_end(image: &PeImage) -> usize {
    let ends = image.sections.iter().map(|section| section.file_end());
    ends.max().unwrap_or(0)
}

/// The certificates, which must be the last thing in the file.
pub(crate) fn certificates(image: &PeImage) -> Result<Option<Range<usize>>, String> {
    let Some(found) = image.directory(directory::SECURITY) else {
        return Ok(None);
    };
    let start = usize::try_from(found.at.0).unwrap_or(usize::MAX);
    let end = start.saturating_add(found.size as usize);
    let length = image.file().len();
    let sections_end = sections_end(image);
    // Signers fill up to eight bytes.
    if end > length || length - end >= 8 || start < sections_end {
        let text = format!(
            "the certificates at {start:#x}, {:#x} bytes, are not the end of the file; take the \
             image before it was signed",
            found.size
        );
        return Err(text);
    }
    Ok(Some(start..length))
}
