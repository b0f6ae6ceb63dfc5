//! Metadata → a copy of an image that has them: the final image, which runs
//! alone or patches a running base.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use invivo_image::Rva;
use invivo_image::pe::{LoadConfig, PeError, PeImage, checksum, directory, section_flags};

use super::{HotPatch, HpatError, write};

/// The name of the section that is added. That of Microsoft's own files is not known, and
/// nothing looks for it by name.
const SECTION: &[u8; 8] = b".hpat\0\0\0";

/// Why metadata cannot be placed in an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The model cannot be written.
    #[error(transparent)]
    Metadata(#[from] HpatError),
    /// The image lacks room or a structure; the text tells how to link it.
    #[error("{0}")]
    Image(String),
    /// The image that was made cannot be read back: a defect here.
    #[error("the new image cannot be read: {0}")]
    Result(#[from] PeError),
}

/// An image with metadata.
#[derive(Clone)]
pub struct Placed {
    /// The new file.
    pub file: Arc<[u8]>,
    /// Where INFO is.
    pub at: Rva,
    /// Bytes of certificates that were left out: they are not right for the new file.
    pub certificates: u64,
    /// Bytes behind the sections that belong to none; they stay where they are in the file.
    pub overlay: u64,
}

impl fmt::Debug for Placed {
    /// Without the file's bytes, of which there may be millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.file.len();
        write!(f, "Placed {{ {length} bytes, metadata at {} }}", self.at)
    }
}

/// Where fields of the headers stand in the file.
struct Headers {
    section_count: usize,
    initialized_data: usize,
    image_size: usize,
    security: usize,
    table_end: usize,
}

/// Puts the metadata into a copy of `image`, as its last section.
///
/// All that is in the file keeps its place, since other structures may hold
/// offsets: what lies behind the sections (an overlay) is followed by the new
/// section. Certificates are left out, and the checksum is made anew.
///
/// # Errors
/// When the metadata cannot be written, or the image has no load configuration
/// that could name them, names some already, or has no room for a section header.
pub fn place(image: &PeImage, patch: &HotPatch) -> Result<Placed, PlaceError> {
    let refuse = |text: String| PlaceError::Image(text);
    let metadata = write(patch)?;
    let field = entry_place(image)?;
    let headers = headers(image)?;
    let places = image.header_places();

    let mut file = image.file().to_vec();
    let certificates = certificates(image)?;
    let sections_end = sections_end(image);
    if let Some(found) = &certificates {
        file.truncate(found.start);
        file[headers.security..headers.security + 8].fill(0);
    }
    let overlay = file.len().saturating_sub(sections_end) as u64;

    let last = image
        .sections
        .last()
        .map_or(u64::from(image.headers_size), |section| section.range.end.0);
    let align = |value: u64, to: u32| value.next_multiple_of(u64::from(to));
    let at = align(last.max(image.size.into()), image.section_alignment);
    let start = align(file.len() as u64, image.file_alignment);
    let raw_size = align(metadata.len() as u64, image.file_alignment);
    let image_end = align(at + metadata.len() as u64, image.section_alignment);
    let number = |value: u64, what: &str| {
        u32::try_from(value).map_err(|_| PlaceError::Image(format!("{what} would exceed 4 GiB")))
    };
    let end = number(start + raw_size, "the file")?;
    let (at_word, image_size) = (number(at, "the image")?, number(image_end, "the image")?);

    file.resize(start as usize, 0);
    file.extend_from_slice(&metadata);
    file.resize(end as usize, 0);

    let mut header = Vec::from(*SECTION);
    for word in [
        number(metadata.len() as u64, "the metadata")?,
        at_word,
        number(raw_size, "the metadata")?,
        number(start, "the file")?,
        0,
        0,
        0,
        section_flags::INITIALIZED_DATA | section_flags::READ,
    ] {
        header.extend_from_slice(&word.to_le_bytes());
    }
    file[headers.table_end..headers.table_end + 40].copy_from_slice(&header);
    let count = u16::try_from(image.sections.len() + 1)
        .map_err(|_| refuse("the image has too many sections".to_owned()))?;
    file[headers.section_count..headers.section_count + 2].copy_from_slice(&count.to_le_bytes());
    let data = get(&file, headers.initialized_data).wrapping_add(number(raw_size, "the data")?);
    set(&mut file, headers.initialized_data, data);
    set(&mut file, headers.image_size, image_size);
    set(&mut file, field, at_word);
    let sum = checksum(&file, places.checksum);
    set(&mut file, places.checksum, sum);

    let file: Arc<[u8]> = file.into();
    PeImage::parse(Arc::clone(&file))?;
    Ok(Placed {
        file,
        at: Rva(at),
        certificates: certificates.map_or(0, |found| found.len() as u64),
        overlay,
    })
}

fn get(file: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&file[at..at + 4]);
    u32::from_le_bytes(word)
}

fn set(file: &mut [u8], at: usize, value: u32) {
    file[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Where in the file the load configuration names the metadata.
fn entry_place(image: &PeImage) -> Result<usize, PlaceError> {
    let least = LoadConfig::least_size(image.machine);
    let remedy = format!(
        "link it with a _load_config_used of {least:#x} bytes or more, as the C runtime of \
         current Visual C++ has it"
    );
    let Some(config) = image.load_config else {
        let text = format!("the image has no load configuration; {remedy}");
        return Err(PlaceError::Image(text));
    };
    match config.hot_patch {
        None => {
            let text = format!(
                "the load configuration has {:#x} bytes; {remedy}",
                config.size
            );
            return Err(PlaceError::Image(text));
        }
        Some(at) if at.0 != 0 => {
            let text = format!("the image has hot-patch metadata already, at {at}");
            return Err(PlaceError::Image(text));
        }
        Some(_) => {}
    }
    if config.directory.size != config.size {
        let text = format!(
            "the load configuration says that it has {:#x} bytes, its directory {:#x}",
            config.size, config.directory.size
        );
        return Err(PlaceError::Image(text));
    }
    let place = image.file_place(config.hot_patch_field(image.machine));
    let place = place.filter(|held| held.len() >= 4);
    place.map(|held| held.start).ok_or_else(|| {
        let text = "the load configuration is not in initialised data";
        PlaceError::Image(text.to_owned())
    })
}

/// Where the headers are, with room for another section.
fn headers(image: &PeImage) -> Result<Headers, PlaceError> {
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
        return Err(PlaceError::Image(text.to_owned()));
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
fn certificates(image: &PeImage) -> Result<Option<Range<usize>>, PlaceError> {
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
        return Err(PlaceError::Image(text));
    }
    Ok(Some(start..length))
}
