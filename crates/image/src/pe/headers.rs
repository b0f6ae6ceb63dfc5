//! Headers, data directories and the section table.

use std::sync::Arc;

use object::LittleEndian as LE;
use object::pe;
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader};

use super::error::broken;
use super::memory::read_sections;
use super::{PeError, PeImage, PeMachine};
use crate::Rva;

/// The data directories that are used here, by index.
pub mod directory {
    /// Exported symbols.
    pub const EXPORT: usize = 0;
    /// Imported symbols.
    pub const IMPORT: usize = 1;
    /// Unwind data of functions (`.pdata`).
    pub const EXCEPTION: usize = 3;
    /// Certificates; its address is an offset in the file.
    pub const SECURITY: usize = 4;
    /// Base relocations.
    pub const BASE_RELOCATION: usize = 5;
    /// Debug directory.
    pub const DEBUG: usize = 6;
    /// Thread-local storage.
    pub const TLS: usize = 9;
    /// Load configuration.
    pub const LOAD_CONFIG: usize = 10;
    /// Bound imports; lies behind the section table.
    pub const BOUND_IMPORT: usize = 11;
    /// Delay-loaded imports.
    pub const DELAY_IMPORT: usize = 13;
}

/// A data directory: where a structure is and how long it is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Its address; 0 where there is none. For certificates an offset in the file.
    pub at: Rva,
    /// Bytes.
    pub size: u32,
}

/// Where fields of the headers stand in the file, for those who change a copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderPlaces {
    /// `NumberOfSections`, two bytes.
    pub section_count: usize,
    /// `TimeDateStamp`.
    pub time_stamp: usize,
    /// `SizeOfInitializedData`.
    pub initialized_data: usize,
    /// `AddressOfEntryPoint`.
    pub entry_point: usize,
    /// `ImageBase`: four bytes on x86, eight elsewhere.
    pub image_base: usize,
    /// `SizeOfImage`.
    pub image_size: usize,
    /// `CheckSum`.
    pub checksum: usize,
    /// The first data directory.
    pub directories: usize,
    /// The first section header.
    pub section_table: usize,
}

impl PeImage {
    /// Where fields of the headers stand in the file.
    #[must_use]
    pub fn header_places(&self) -> HeaderPlaces {
        let common = self.signature_at + 4;
        let optional = common + 20;
        HeaderPlaces {
            section_count: common + 2,
            time_stamp: common + 4,
            initialized_data: optional + 8,
            entry_point: optional + 16,
            image_base: optional
                + if self.machine == PeMachine::I386 {
                    28
                } else {
                    24
                },
            image_size: optional + 56,
            checksum: optional + 64,
            directories: optional
                + if self.machine == PeMachine::I386 {
                    96
                } else {
                    112
                },
            section_table: self.section_table_at,
        }
    }
}

/// Windows maps whole pages, so smaller alignments mean another kind of mapping.
const PAGE: u32 = 0x1000;
/// The loader rounds places in the file down to sectors.
const SECTOR: u32 = 0x200;

/// Where the PE signature stands, if there is one.
pub(super) fn signature_at(file: &[u8]) -> Option<usize> {
    let header = pe::ImageDosHeader::parse(file).ok()?;
    let at = usize::try_from(header.nt_headers_offset()).ok()?;
    let signature = file.get(at..at.checked_add(4)?)?;
    (signature == b"PE\0\0").then_some(at)
}

pub(super) fn read(file: Arc<[u8]>) -> Result<PeImage, PeError> {
    let at = signature_at(&file).ok_or(PeError::NotPe)?;
    let magic = object::read::pe::optional_header_magic(&file[..]).map_err(broken("headers"))?;
    match magic {
        pe::IMAGE_NT_OPTIONAL_HDR32_MAGIC => read_as::<pe::ImageNtHeaders32>(file, at),
        pe::IMAGE_NT_OPTIONAL_HDR64_MAGIC => read_as::<pe::ImageNtHeaders64>(file, at),
        other => Err(PeError::Unsupported(format!(
            "a PE file with optional header {other:#x}"
        ))),
    }
}

fn read_as<Pe: ImageNtHeaders>(file: Arc<[u8]>, at: usize) -> Result<PeImage, PeError> {
    let data = &file[..];
    let mut behind = at as u64;
    let (headers, table) = Pe::parse(data, &mut behind).map_err(broken("headers"))?;
    let section_table = headers
        .sections(data, behind)
        .map_err(broken("section table"))?;
    let (common, optional) = (headers.file_header(), headers.optional_header());
    let machine = match (common.machine.get(LE), headers.is_type_64()) {
        (pe::IMAGE_FILE_MACHINE_I386, false) => PeMachine::I386,
        (pe::IMAGE_FILE_MACHINE_AMD64, true) => PeMachine::Amd64,
        (pe::IMAGE_FILE_MACHINE_ARM64, true) => PeMachine::Arm64,
        (other, _) => {
            return Err(PeError::Unsupported(format!(
                "a PE file for machine {:#x} (x86 is 0x14c, x86-64 0x8664, ARM64 0xaa64)",
                other.0
            )));
        }
    };
    let flags = common.characteristics.get(LE);
    if !flags.contains(pe::IMAGE_FILE_EXECUTABLE_IMAGE) {
        return Err(PeError::Inconsistent(
            "it is not marked as linked (IMAGE_FILE_EXECUTABLE_IMAGE)".to_owned(),
        ));
    }
    let (section_alignment, file_alignment) =
        (optional.section_alignment(), optional.file_alignment());
    if !section_alignment.is_power_of_two() || section_alignment < PAGE {
        return Err(PeError::Unsupported(format!(
            "a section alignment of {section_alignment:#x} (a page, {PAGE:#x}, is the least)"
        )));
    }
    if !file_alignment.is_power_of_two() || !(SECTOR..=0x10000).contains(&file_alignment) {
        return Err(PeError::Inconsistent(format!(
            "file alignment {file_alignment:#x}"
        )));
    }
    let directories = table.iter().map(|entry| Directory {
        at: Rva(entry.virtual_address.get(LE).into()),
        size: entry.size.get(LE),
    });
    let mut image = PeImage {
        file: Arc::clone(&file),
        machine,
        time_stamp: common.time_date_stamp.get(LE),
        checksum: optional.check_sum(),
        image_base: optional.image_base(),
        size: optional.size_of_image(),
        headers_size: optional.size_of_headers(),
        section_alignment,
        file_alignment,
        entry_point: Rva(optional.address_of_entry_point().into()),
        is_library: flags.contains(pe::IMAGE_FILE_DLL),
        is_fixed: flags.contains(pe::IMAGE_FILE_RELOCS_STRIPPED),
        dll_characteristics: optional.dll_characteristics().0,
        signature_at: at,
        section_table_at: usize::try_from(behind)
            .map_err(|_| PeError::Inconsistent("the section table".to_owned()))?,
        // The loader looks at sixteen, whatever the header says.
        directories: directories.take(16).collect(),
        sections: Vec::new(),
        load_config: None,
        imports: Vec::new(),
        exports: Vec::new(),
        relocations: Vec::new(),
        functions: Vec::new(),
        debug: Vec::new(),
        tls: None,
    };
    image.sections = read_sections(&image, &section_table)?;
    Ok(image)
}
