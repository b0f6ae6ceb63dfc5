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
    /// An object file cannot be one of a set.
    #[error("{file}: {what}")]
    InObject {
        /// Which file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file with debug data or symbols belongs to another build.
    #[error("the {what} has {found}, the image expects {expected}")]
    ForeignFile {
        /// Which file.
        what: &'static str,
        /// What identifies the right one: a build id, a checksum or a unit.
        expected: String,
        /// The same of the file.
        found: String,
    },
}
