//! The final image: a copy of the fixed build with the metadata inside.
//!
//! It is the fixed build (or the base with the fixed functions behind it), so it runs on its own. Behind everything that was in it stand three
//! sections that are not loaded, and a section table that names them; no byte that is loaded
//! is another one. Whoever installs it in the place of the base reads in it which file that
//! has to be.
//!
//! | section | what it holds |
//! |---|---|
//! | `.invivo.final` | a [`Manifest`], as JSON |
//! | `.invivo.patch` | the patch for running processes, as [`elf`](crate::elf) writes it; none if it was refused |
//! | `.invivo.digest` | SHA-256 of the whole file, with these 32 bytes as zeros |
//!
//! A Windows image that was patched on disk ([`cold`](crate::hotp1::cold)) carries the same in one
//! section `.invivo`; there the checksum of its header counts as zeros, too.

mod build;
mod read;
mod windows;
mod write;

use invivo_patch::{Hex, Identity};
use serde::{Deserialize, Serialize};

pub use build::WindowsBuild;
pub(crate) use build::contents;
pub use read::{Final, read, read_loaded};
pub use windows::{SECTION as WINDOWS_SECTION, write_windows};
pub use write::{carried, write};

/// The section with the manifest.
const MANIFEST: &str = ".invivo.final";
/// The section with the patch.
const PATCH: &str = ".invivo.patch";
/// The form that is written.
const VERSION: u32 = 1;

/// What a final image says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The form; see [`Manifest::new`].
    version: u32,
    /// Name, labels, who made it.
    pub identity: Identity,
    /// The file in whose place it is installed.
    pub base: FileIdentity,
    /// The fixed build that it is a copy of.
    pub fixed: FileIdentity,
    /// True if it is no copy of a build: the base itself, with the fixed functions behind it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept_layout: bool,
    /// Of a Windows file: the build that its new code is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_of: Option<WindowsBuild>,
}

impl Manifest {
    /// One of the form that is written now.
    #[must_use]
    pub fn new(identity: Identity, base: FileIdentity, fixed: FileIdentity) -> Self {
        Manifest {
            version: VERSION,
            identity,
            base,
            fixed,
            kept_layout: false,
            code_of: None,
        }
    }
}

/// How many digits of the base's SHA-256 are in [`base_name`].
pub const BASE_DIGITS: usize = 16;

/// What stands before them.
pub const BASE_MARK: &str = ".invivo-";

/// What a file that was called `name` and has this SHA-256 is called while a final image has its
/// name: `.NAME.invivo-` and the first digits.
#[must_use]
pub fn base_name(name: &str, sha256: &Hex) -> String {
    let digits = sha256.to_string();
    let digits = &digits[..BASE_DIGITS.min(digits.len())];
    format!(".{name}{BASE_MARK}{digits}")
}

/// One exact file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileIdentity {
    /// Its name without a folder; for people, not checked.
    pub file_name: String,
    /// `NT_GNU_BUILD_ID`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<Hex>,
    /// Of all its bytes.
    pub sha256: Hex,
    /// In bytes.
    pub size: u64,
}

/// Why a file is no final image, or cannot become one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FinalError {
    /// Not a final image at all.
    #[error("not a final image: {0}")]
    NotFinal(String),
    /// The file was changed or cut after it was made.
    #[error("the final image is damaged: its digest is {found}, its contents have {expected}")]
    Damaged {
        /// As the contents have it.
        expected: Hex,
        /// As the file says.
        found: Hex,
    },
    /// A structure is broken.
    #[error("broken final image: {0}")]
    Broken(String),
    /// It is a newer form.
    #[error("the final image has form {0}; this program reads form 1")]
    Version(u32),
    /// The fixed build cannot carry the metadata.
    #[error("the fixed build cannot become a final image: {0}")]
    Unfit(&'static str),
    /// A Windows image cannot carry them.
    #[error("the Windows image cannot become a final image: {0}")]
    UnfitImage(String),
}

#[cfg(test)]
mod tests;
