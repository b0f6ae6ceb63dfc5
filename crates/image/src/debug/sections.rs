//! The debug sections of a file, uncompressed.

use std::borrow::Cow;

use gimli::{Dwarf, DwarfSections, EndianSlice, LittleEndian};
use object::{CompressionFormat, Object, ObjectSection};

use super::{Bytes, DebugData};
use crate::Image;

/// Why debug data cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("broken debug data: {0}")]
pub struct DebugError(String);

impl From<gimli::Error> for DebugError {
    fn from(error: gimli::Error) -> Self {
        DebugError(error.to_string())
    }
}

impl From<object::read::Error> for DebugError {
    fn from(error: object::read::Error) -> Self {
        DebugError(error.to_string())
    }
}

type Sections<'a> = DwarfSections<Cow<'a, [u8]>>;

/// The debug sections of one image.
#[derive(Debug)]
pub struct DebugSections<'a> {
    main: Sections<'a>,
    supplementary: Option<Sections<'a>>,
}

impl<'a> DebugSections<'a> {
    /// The sections of the image or of its debug file; `None` if neither has any.
    ///
    /// # Errors
    /// When a file or a compressed section is broken.
    pub fn of(image: &'a Image) -> Result<Option<Self>, DebugError> {
        for file in std::iter::once(&image.file).chain(&image.debug_file) {
            let file = object::File::parse(&file[..])?;
            if file.section_by_name(".debug_info").is_some() {
                let supplementary = image.supplementary_file.as_ref();
                let supplementary = supplementary
                    .map(|file| load(&object::File::parse(&file[..])?))
                    .transpose()?;
                return Ok(Some(DebugSections {
                    main: load(&file)?,
                    supplementary,
                }));
            }
        }
        Ok(None)
    }

    /// Looks at all units from outside.
    ///
    /// # Errors
    /// When the list of units is broken.
    pub fn open(&self) -> Result<DebugData<'_>, DebugError> {
        let mut files = vec![open(&self.main)];
        if let Some(supplementary) = &self.supplementary {
            files[0].set_sup(open(supplementary));
            files.push(open(supplementary));
        }
        DebugData::new(files)
    }
}

fn open<'s>(sections: &'s Sections<'_>) -> Dwarf<Bytes<'s>> {
    sections.borrow(|bytes| EndianSlice::new(bytes, LittleEndian))
}

fn load<'a>(file: &object::File<'a>) -> Result<Sections<'a>, DebugError> {
    gimli::DwarfSections::load(|id: gimli::SectionId| {
        let Some(section) = file.section_by_name(id.name()) else {
            return Ok(Cow::Borrowed(&[][..]));
        };
        let compressed = section.compressed_data()?;
        // The size stands in the file, and memory of that size is taken before the first
        // byte is unpacked.
        const LARGEST: u64 = 8 << 30;
        const LARGEST_RATIO: u64 = 2_000;
        let packed = compressed.data.len() as u64;
        if compressed.format != CompressionFormat::None
            && (compressed.uncompressed_size > LARGEST
                || compressed.uncompressed_size > packed.saturating_mul(LARGEST_RATIO))
        {
            let name = id.name();
            return Err(DebugError(format!("section {name} unpacks to too much")));
        }
        Ok(compressed.decompress()?)
    })
}
