//! The Linux payload: an ELF relocatable file.
//!
//! | in the file | in the model |
//! |---|---|
//! | sections with `SHF_ALLOC` | [`Section`](invivo_patch::Section)s, in order |
//! | local symbols | symbols of the patch, in order |
//! | undefined symbols | bindings; their places in the base are in the manifest |
//! | `SHT_RELA` | relocations |
//! | `.invivo.manifest` | everything else, as JSON |
//! | `.invivo.digest` | SHA-256 of the whole file, with these 32 bytes as zeros |
//!
//! `readelf`, `objdump -dr` and gdb read it like any object file. One model is
//! always written as the same bytes.

mod manifest;
mod read;
mod write;

pub use read::read;
pub use write::write;

/// The section that holds the manifest.
const MANIFEST: &str = ".invivo.manifest";

/// Why a file is not a patch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// Not an Invivo patch at all.
    #[error("not an Invivo patch: {0}")]
    NotAPatch(String),
    /// For another instruction set.
    #[error("a patch for machine {0}; x86-64 is machine 62")]
    Machine(u16),
    /// The file was changed or cut after it was made.
    #[error("the patch is damaged: its digest is {found}, its contents have {expected}")]
    Damaged {
        /// As the contents have it.
        expected: String,
        /// As the file says.
        found: String,
    },
    /// A structure is broken.
    #[error("broken patch: {0}")]
    Broken(String),
    /// It is a newer form of patch.
    #[error("the patch has form {0}; this program reads form 1")]
    Version(u32),
}
