//! The folder and the name of a file, held so that nobody slips another one in.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, Stat, flock, fsync, openat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::FileError;
use crate::attributes::Missing;
use crate::error::errno;

/// A name in a folder that no other tool of this kind works in meanwhile: the lock on the
/// folder ends with the process that holds it.
#[derive(Debug)]
pub(crate) struct Place {
    folder: OwnedFd,
    pub(crate) name: OsString,
    path: PathBuf,
}

impl Place {
    /// The file that `path` leads to; symbolic links are followed, for it is the file at
    /// their end that is exchanged.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let system = |doing, path: &Path, errno| FileError::System {
            doing,
            path: path.to_owned(),
            errno,
        };
        let found = std::fs::canonicalize(path);
        let path = found.map_err(|error| system("find", path, errno(&error)))?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(FileError::NotAFile(path));
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(rustix::fs::CWD, parent, flags, Mode::empty());
        let folder = folder.map_err(|errno| system("open", parent, errno))?;
        lock(&folder).map_err(|errno| match errno {
            Errno::WOULDBLOCK => FileError::Busy(parent.to_owned()),
            errno => system("lock", parent, errno),
        })?;
        let name = name.to_owned();
        Ok(Place { folder, name, path })
    }

    pub(crate) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    /// The whole path of `name` in this folder.
    pub(crate) fn path_of(&self, name: &OsStr) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// The path of the file itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// An error of a system call about `name`.
    pub(crate) fn failed<'a>(
        &'a self,
        doing: &'static str,
        name: &'a OsStr,
    ) -> impl Fn(Errno) -> FileError + 'a {
        move |errno| FileError::System {
            doing,
            path: self.path_of(name),
            errno,
        }
    }

    /// An error about the rights of the old file, which is at `hidden`.
    pub(crate) fn rights(
        &self,
        doing: &'static str,
        hidden: &OsStr,
        missing: Missing,
    ) -> FileError {
        FileError::Rights {
            doing,
            what: missing.what,
            path: self.path_of(hidden),
            errno: missing.errno,
        }
    }

    /// Opens an ordinary file, not what a symbolic link leads to; `None` if there is none.
    pub(crate) fn file(&self, name: &OsStr) -> Result<Option<std::fs::File>, FileError> {
        // A named pipe would make the call wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.folder, name, flags, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(FileError::NotAFile(self.path_of(name))),
            Err(errno) => return Err(self.failed("open", name)(errno)),
        };
        let is_file = file.metadata().is_ok_and(|data| data.is_file());
        if is_file {
            Ok(Some(file))
        } else {
            Err(FileError::NotAFile(self.path_of(name)))
        }
    }

    /// Which file has `name` now.
    pub(crate) fn stat(&self, name: &OsStr) -> Result<Stat, FileError> {
        statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(self.failed("look at", name))
    }

    pub(crate) fn remove(&self, name: &OsStr) -> Result<(), FileError> {
        match unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("remove", name)(errno)),
        }
    }

    /// Waits until the names are on the disk.
    pub(crate) fn settle(&self) -> Result<(), FileError> {
        fsync(&self.folder).map_err(self.failed("write to disk the folder of", &self.name))
    }
}

/// Locks a folder; waits for a moment if somebody else has it.
fn lock(folder: &OwnedFd) -> Result<(), Errno> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let begin = Instant::now();
    loop {
        match flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// True if both are one file, and it was not written in between.
pub(crate) fn same_contents(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino, a.st_size) == (b.st_dev, b.st_ino, b.st_size)
        && (a.st_mtime, a.st_mtime_nsec) == (b.st_mtime, b.st_mtime_nsec)
}

/// True if both are one file, and nothing of it was changed in between: neither contents nor owner,
/// mode, attributes and names.
pub(crate) fn same_file(a: &Stat, b: &Stat) -> bool {
    same_contents(a, b) && (a.st_ctime, a.st_ctime_nsec) == (b.st_ctime, b.st_ctime_nsec)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::stat;

    use super::*;

    /// Who changes the mode between copy and exchange would see it lost.
    #[test]
    fn another_mode_is_another_file() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("file");
        std::fs::write(&path, b"contents").expect("the folder is ours");
        let before = stat(&path).expect("it is there");
        assert!(same_file(&before, &stat(&path).expect("it is there")));
        // Clocks of file systems are as coarse as their kernel's.
        std::thread::sleep(Duration::from_millis(20));
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&path, mode).expect("it is ours");
        let after = stat(&path).expect("it is there");
        assert!(same_contents(&before, &after) && !same_file(&before, &after));
    }
}
