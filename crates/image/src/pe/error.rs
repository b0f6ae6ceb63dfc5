//! What can be wrong with a Windows image.

/// Why a file is not a Windows image that we can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeError {
    /// The bytes are not a PE file at all.
    #[error("not a PE file")]
    NotPe,
    /// A PE file, but not one of the kind that is read here.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A structure of the file is broken.
    #[error("broken PE file: {what}: {source}")]
    Broken {
        /// The structure that was being read.
        what: &'static str,
        /// What the reader of the format says.
        source: object::read::Error,
    },
    /// A structure of the file contradicts another one.
    #[error("broken PE file: {0}")]
    Inconsistent(String),
}

/// Turns a reader's error into ours, with the structure that was being read.
pub(super) fn broken(what: &'static str) -> impl Fn(object::read::Error) -> PeError {
    move |source| PeError::Broken { what, source }
}

/// A structure that lies outside the image.
pub(super) fn outside(what: &str, at: crate::Rva) -> PeError {
    PeError::Inconsistent(format!("{what} at {at} is not in the image"))
}
