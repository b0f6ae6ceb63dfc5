//! Windows images: PE files for x86, x86-64 and ARM64.
//!
//! The view is that of the loader: what is read at an address is what the
//! loader would map there. A file that different loaders may map differently
//! (sections out of order, overlapping, or not on sector boundaries) is refused.
//!
//! Source of the layouts: the PE format as published with the Windows SDK.

mod checksum;
mod class_tables;
mod debug_directory;
mod error;
mod frame4;
mod functions;
mod handlers;
mod handling;
mod headers;
mod load_config;
mod memory;
mod names;
mod object_file;
mod pdb;
mod relocations;
mod tls;
mod view;

use std::fmt;
use std::sync::Arc;

pub use checksum::checksum;
pub use debug_directory::{CodeView, DebugEntry};
pub use error::PeError;
pub use functions::UnwindFunction;
pub use handlers::{Handled, Handler};
pub use handling::{Handling, HandlingWord};
pub use headers::{Directory, HeaderPlaces, directory};
pub use load_config::{GuardTarget, LoadConfig, guard_flags};
pub use memory::{PeSection, section_flags};
pub use names::{ImportedLibrary, ImportedSymbol, PeExport, Thunk};
pub use object_file::{HotPatchObject, WeakReference};
pub use pdb::{InlinedFunction, Pdb, PdbFacts, PdbSymbol};
pub use relocations::{BaseRelocation, BaseRelocationKind};
pub use tls::TlsDirectory;
pub use view::referenced;

use crate::Rva;

/// The instruction set of a Windows image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeMachine {
    /// `IMAGE_FILE_MACHINE_I386`, 32-bit.
    I386,
    /// `IMAGE_FILE_MACHINE_AMD64`.
    Amd64,
    /// `IMAGE_FILE_MACHINE_ARM64`.
    Arm64,
}

impl PeMachine {
    /// Bytes of a pointer.
    #[must_use]
    pub fn pointer_size(self) -> u32 {
        match self {
            PeMachine::I386 => 4,
            PeMachine::Amd64 | PeMachine::Arm64 => 8,
        }
    }

    /// The field's own name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PeMachine::I386 => "x86",
            PeMachine::Amd64 => "x86-64",
            PeMachine::Arm64 => "ARM64",
        }
    }
}

/// One linked Windows program, library or driver.
#[derive(Clone)]
pub struct PeImage {
    file: Arc<[u8]>,
    /// The instruction set.
    pub machine: PeMachine,
    /// `TimeDateStamp`: when it was linked, or a digest of it; part of its identity.
    pub time_stamp: u32,
    /// `CheckSum` as the header has it; the other part of its identity.
    pub checksum: u32,
    /// Where the linker placed it; [`Rva`] 0 is there.
    pub image_base: u64,
    /// `SizeOfImage`: bytes that it takes in memory.
    pub size: u32,
    /// `SizeOfHeaders`: bytes of the file that are mapped before the first section.
    pub headers_size: u32,
    /// `SectionAlignment`, in bytes.
    pub section_alignment: u32,
    /// `FileAlignment`, in bytes.
    pub file_alignment: u32,
    /// The first instruction, 0 if it has none.
    pub entry_point: Rva,
    /// `IMAGE_FILE_DLL`.
    pub is_library: bool,
    /// `IMAGE_FILE_RELOCS_STRIPPED`: it can be loaded at its own base alone, and nothing tells which
    /// of its words are addresses.
    pub is_fixed: bool,
    /// `DllCharacteristics`.
    pub dll_characteristics: u16,
    /// Where the PE signature stands in the file.
    pub(crate) signature_at: usize,
    /// Where the first section header stands in the file.
    pub(crate) section_table_at: usize,
    /// The data directories, as far as the file has them.
    pub directories: Vec<Directory>,
    /// The sections, in order of address.
    pub sections: Vec<PeSection>,
    /// The load configuration, where there is one.
    pub load_config: Option<LoadConfig>,
    /// Libraries that it imports from, delay-loaded ones too.
    pub imports: Vec<ImportedLibrary>,
    /// What it exports.
    pub exports: Vec<PeExport>,
    /// Places that the loader changes where the image is not at its own base, in order of address.
    pub relocations: Vec<BaseRelocation>,
    /// `.pdata`: functions with unwind data, in order of address.
    pub functions: Vec<UnwindFunction>,
    /// The debug directory.
    pub debug: Vec<DebugEntry>,
    /// Thread-local storage.
    pub tls: Option<TlsDirectory>,
}

impl fmt::Debug for PeImage {
    /// Without the file's bytes, of which there may be millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stamp, sum) = (self.time_stamp, self.checksum);
        let length = self.file.len();
        write!(
            f,
            "PeImage({length} bytes, time stamp {stamp:08x}, checksum {sum:08x})"
        )
    }
}

impl PeImage {
    /// Reads a Windows image.
    ///
    /// # Errors
    /// When the bytes are no such image, are broken, or belong to a machine
    /// that is not known.
    pub fn parse(file: Arc<[u8]>) -> Result<PeImage, PeError> {
        let mut image = headers::read(file)?;
        image.load_config = load_config::read(&image)?;
        image.imports = names::read_imports(&image)?;
        image.exports = names::read_exports(&image)?;
        image.relocations = relocations::read(&image)?;
        image.functions = functions::read(&image)?;
        image.debug = debug_directory::read(&image)?;
        image.tls = tls::read(&image)?;
        Ok(image)
    }

    /// True if the bytes begin as those of a PE file do.
    #[must_use]
    pub fn is_pe(file: &[u8]) -> bool {
        headers::signature_at(file).is_some()
    }

    /// The whole file.
    #[must_use]
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// A data directory that is there, by its index (`IMAGE_DIRECTORY_ENTRY_…`).
    #[must_use]
    pub fn directory(&self, index: usize) -> Option<Directory> {
        let found = self.directories.get(index).copied();
        found.filter(|directory| directory.at.0 != 0)
    }

    /// The debug data that belong to it, where it says which.
    #[must_use]
    pub fn code_view(&self) -> Option<&CodeView> {
        self.debug.iter().find_map(|entry| entry.code_view.as_ref())
    }

    /// True if its linker marked it as made for hot patching
    /// (`IMAGE_DLLCHARACTERISTICS_EX_HOTPATCH_COMPATIBLE`).
    #[must_use]
    pub fn is_hot_patch_compatible(&self) -> bool {
        const HOTPATCH_COMPATIBLE: u32 = 0x80;
        let marks = self.debug.iter().filter_map(|entry| entry.characteristics);
        marks
            .into_iter()
            .any(|mark| mark & HOTPATCH_COMPATIBLE != 0)
    }
}
