//! What can be wrong with a file.

/// Why a file is not an image that we can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The bytes are not an ELF file at all.
    #[error("not an ELF file")]
    NotElf,
    /// An ELF file, but not one of the kind that is read here.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A structure of the file is broken.
    #[error("broken ELF file: {what}: {source}")]
    Broken {
        /// The structure that was being read.
        what: &'static str,
        /// What the reader of the format says.
        source: object::read::Error,
    },
    /// A structure of the file contradicts another one.
    #[error("broken ELF file: {0}")]
    Inconsistent(String),
    /// The debug file belongs to another build.
    #[error("the debug file has build id {found}, the image has {expected}")]
    ForeignDebugFile {
        /// The image's build id, in hex.
        expected: String,
        /// The debug file's build id, in hex.
        found: String,
    },
}
