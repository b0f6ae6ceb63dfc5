//! The debug sections of a file, uncompressed.

use std::borrow::Cow;

use gimli::{Dwarf, DwarfPackageSections, DwarfSections, EndianSlice, LittleEndian};
use object::{CompressedData, CompressionFormat, Object, ObjectSection};

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
    /// Files with the units that were left outside (`.dwo`).
    split: Vec<Sections<'a>>,
    /// Files into which such files were put together (`.dwp`).
    packages: Vec<DwarfPackageSections<Cow<'a, [u8]>>>,
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
                let mut sections = DebugSections {
                    main: load(&file)?,
                    supplementary,
                    split: Vec::new(),
                    packages: Vec::new(),
                };
                for file in &image.split_files {
                    sections.add_split(&object::File::parse(&file[..])?)?;
                }
                return Ok(Some(sections));
            }
        }
        Ok(None)
    }

    fn add_split(&mut self, file: &object::File<'a>) -> Result<(), DebugError> {
        let name = |id: gimli::SectionId| id.dwo_name().unwrap_or(id.name());
        let load = |id| section(file, name(id));
        if file.section_by_name(".debug_cu_index").is_some() {
            self.packages.push(DwarfPackageSections::load(load)?);
        } else {
            self.split.push(DwarfSections::load(load)?);
        }
        Ok(())
    }

    /// Looks at all units from outside.
    ///
    /// # Errors
    /// When the list of units is broken.
    pub fn open(&self) -> Result<DebugData<'_>, DebugError> {
        let slice = |bytes| EndianSlice::new(bytes, LittleEndian);
        let mut main = open(&self.main);
        let supplementary = self.supplementary.as_ref().map(open);
        if let Some(supplementary) = &self.supplementary {
            main.set_sup(open(supplementary));
        }
        let mut packages = Vec::new();
        for package in &self.packages {
            packages.push(package.borrow(|bytes| slice(&bytes[..]), slice(&[]))?);
        }
        let split = self.split.iter().map(|sections| {
            let mut dwarf = open(sections);
            dwarf.make_dwo(&main);
            dwarf
        });
        let split = split.collect();
        DebugData::new(main, supplementary, split, &packages)
    }
}

fn open<'s>(sections: &'s Sections<'_>) -> Dwarf<Bytes<'s>> {
    sections.borrow(|bytes| EndianSlice::new(bytes, LittleEndian))
}

/// True for debug data that nobody asks for: macros, and lists of what another section says as well.
pub(crate) fn is_needless(name: &str) -> bool {
    let needless = [".debug_aranges", ".debug_macinfo", ".debug_macro"];
    needless.contains(&name)
}

fn load<'a>(file: &object::File<'a>) -> Result<Sections<'a>, DebugError> {
    DwarfSections::load(|id| match id.name() {
        name if is_needless(name) => Ok(Cow::Borrowed(&[][..])),
        name => section(file, name),
    })
}

/// True if a section may well have the size that it says. That stands in the file, and memory
/// of that size is taken before the first byte is unpacked.
pub(crate) fn is_plausible(data: &CompressedData<'_>) -> bool {
    const LARGEST: u64 = 8 << 30;
    const LARGEST_RATIO: u64 = 2_000;
    let packed = data.data.len() as u64;
    data.format == CompressionFormat::None
        || data.uncompressed_size <= LARGEST.min(packed.saturating_mul(LARGEST_RATIO))
}

fn section<'a>(file: &object::File<'a>, name: &str) -> Result<Cow<'a, [u8]>, DebugError> {
    let Some(section) = file.section_by_name(name) else {
        return Ok(Cow::Borrowed(&[]));
    };
    let compressed = section.compressed_data()?;
    if !is_plausible(&compressed) {
        return Err(DebugError(format!("section {name} unpacks to too much")));
    }
    Ok(compressed.decompress()?)
}
