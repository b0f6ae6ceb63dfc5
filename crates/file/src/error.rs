//! What can stand in the way.

use std::path::PathBuf;

use rustix::io::Errno;

/// Why a file was not exchanged. In every case its name leads to what it led to before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A system call failed.
    #[error("cannot {doing} {}: {errno}", path.display())]
    System {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        errno: Errno,
    },
    /// It is a folder, a device, or the like.
    #[error("{} is no ordinary file", .0.display())]
    NotAFile(PathBuf),
    /// It is not the file that the final image was made for.
    #[error(
        "{} is not the file that this was made for: its SHA-256 is {found}, that of the base {wanted}",
        path.display()
    )]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What it should have.
        wanted: String,
    },
    /// Somebody exchanged or wrote the file meanwhile.
    #[error("{} was changed by somebody else just now", .0.display())]
    Changed(PathBuf),
    /// Another tool is at work in the folder.
    #[error("another tool works in {}", .0.display())]
    Busy(PathBuf),
    /// What the old file has beside its contents cannot be given to the new one.
    #[error("the new {} cannot get the {what} of the old one: {errno}", path.display())]
    Attribute {
        /// Which attribute.
        what: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        errno: Errno,
    },
    /// The old file cannot lose what lets it do more than who starts it, or get it back.
    #[error("the old file {} cannot {doing} its {what}: {errno}", path.display())]
    Rights {
        /// `lose` or `get back`.
        doing: &'static str,
        /// Which of it.
        what: String,
        /// Where the old file is.
        path: PathBuf,
        /// Why not.
        errno: Errno,
    },
    /// Something holds the file's contents against a hash or a signature of them.
    #[error("{} is sealed by {by}, which is right for its present contents alone", path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
        /// What it is sealed by.
        by: &'static str,
    },
    /// There is nothing to take back.
    #[error("{} is no final image", .0.display())]
    NotInstalled(PathBuf),
    /// The old file is not beside it any more.
    #[error("the old file of {} is not at {}", path.display(), base.display())]
    NoBase {
        /// The installed file.
        path: PathBuf,
        /// Where the old one should be.
        base: PathBuf,
    },
    /// What stands where the old file should be kept is something else.
    #[error("{} is in the way: it is not the old file", .0.display())]
    InTheWay(PathBuf),
    /// The installed file cannot be read as a final image.
    #[error("{}: {error}", path.display())]
    Final {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: invivo_format::final_image::FinalError,
    },
}

impl FileError {
    /// True where another user, or root, could do it.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let (FileError::System { errno, .. }
        | FileError::Attribute { errno, .. }
        | FileError::Rights { errno, .. }) = self
        else {
            return false;
        };
        [Errno::PERM, Errno::ACCESS].contains(errno)
    }

    /// True where it may work if it is tried again, or elsewhere is made room.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            FileError::Busy(_) | FileError::Changed(_) => true,
            FileError::System { errno, .. } => {
                [Errno::NOSPC, Errno::DQUOT, Errno::TXTBSY].contains(errno)
            }
            _ => false,
        }
    }
}

impl FileError {
    /// True where the file system is mounted for reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.is(Errno::ROFS)
    }

    /// True where the file is a mount point.
    #[must_use]
    pub fn is_mounted(&self) -> bool {
        self.is(Errno::BUSY)
    }

    fn is(&self, wanted: Errno) -> bool {
        matches!(self, FileError::System { errno, .. } if *errno == wanted)
    }
}

/// The number of an error that came through the standard library.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
