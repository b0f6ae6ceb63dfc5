//! A copy of a Windows image with one section more.

use std::ops::Range;
use std::sync::Arc;

use invivo_image::pe::{PeImage, checksum, directory};

/// The copy, before its checksum is made.
pub(crate) struct Grown {
    pub(crate) file: Vec<u8>,
    /// Where the section is.
    pub(crate) at: u32,
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

/// Where the next section of an image would be.
pub(crate) fn next(image: &PeImage) -> u64 {
    let last = image.sections.last();
    let last = last.map_or(u64::from(image.headers_size), |section| section.range.end.0);
    last.max(image.size.into())
        .next_multiple_of(image.section_alignment.into())
}

/// Adds a section with these contents as the last one.
///
/// All that is in the file keeps its place, since other structures may hold offsets: what lies
/// behind the sections (an overlay) is followed by the new section. Certificates are left out.
/// The error is a text for a person.
pub(crate) fn append(
    image: &PeImage,
    name: [u8; 8],
    flags: u32,
    contents: &[u8],
) -> Result<Grown, String> {
    let headers = headers(image)?;
    let mut file = image.file().to_vec();
    let certificates = certificates(image)?;
    let sections_end = sections_end(image);
    if let Some(found) = &certificates {
        file.truncate(found.start);
        file[headers.security..headers.security + 8].fill(0);
    }
    let overlay = file.len().saturating_sub(sections_end) as u64;

    let align = |value: u64, to: u32| value.next_multiple_of(u64::from(to));
    let at = next(image);
    let start = align(file.len() as u64, image.file_alignment);
    let raw_size = align(contents.len() as u64, image.file_alignment);
    let image_end = align(at + contents.len() as u64, image.section_alignment);
    let number = |value: u64, what: &str| {
        u32::try_from(value).map_err(|_| format!("{what} would exceed 4 GiB"))
    };
    let end = number(start + raw_size, "the file")?;
    let (at_word, image_size) = (number(at, "the image")?, number(image_end, "the image")?);

    file.resize(start as usize, 0);
    file.extend_from_slice(contents);
    file.resize(end as usize, 0);

    let mut header = Vec::from(name);
    for word in [
        number(contents.len() as u64, "the section")?,
        at_word,
        number(raw_size, "the section")?,
        number(start, "the file")?,
        0,
        0,
        0,
        flags,
    ] {
        header.extend_from_slice(&word.to_le_bytes());
    }
    file[headers.table_end..headers.table_end + 40].copy_from_slice(&header);
    let count = u16::try_from(image.sections.len() + 1)
        .map_err(|_| "the image has too many sections".to_owned())?;
    file[headers.section_count..headers.section_count + 2].copy_from_slice(&count.to_le_bytes());
    let data = get(&file, headers.initialized_data).wrapping_add(number(raw_size, "the data")?);
    set(&mut file, headers.initialized_data, data);
    set(&mut file, headers.image_size, image_size);
    Ok(Grown {
        file,
        at: at_word,
        certificates: certificates.map_or(0, |found| found.len() as u64),
        overlay,
    })
}

/// The file with its checksum right.
pub(crate) fn finish(image: &PeImage, mut file: Vec<u8>) -> Arc<[u8]> {
    let place = image.header_places().checksum;
    let sum = checksum(&file, place);
    set(&mut file, place, sum);
    file.into()
}

pub(crate) fn get(file: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&file[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn set(file: &mut [u8], at: usize, value: u32) {
    file[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Where the headers are, with room for another section.
fn headers(image: &PeImage) -> Result<Headers, String> {
    let layout = image.header_places();
    let table_end = layout.section_table + 40 * image.sections.len();
    let first = image.sections.iter().filter_map(|s| s.file_start()).min();
    let limit = first.unwrap_or(usize::MAX).min(image.headers_size as usize);
    let free = image.file().get(table_end..table_end + 40);
    let free = free.filter(|room| table_end + 40 <= limit && room.iter().all(|byte| *byte == 0));
    let bound = image.directory(directory::BOUND_IMPORT);
    let bound = bound.is_some_and(|bound| bound.at.0 < (table_end + 40) as u64);
    if free.is_none() || bound {
        let text = "the headers have no room for another section; link the image with fewer \
                    sections (/merge:.pdata=.rdata)";
        return Err(text.to_owned());
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
fn certificates(image: &PeImage) -> Result<Option<Range<usize>>, String> {
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
