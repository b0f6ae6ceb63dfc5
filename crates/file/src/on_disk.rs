//! What starts next, where a process still runs an old file?

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use invivo_format::elf;
use invivo_format::final_image::{self, Manifest};
use invivo_image::Image;
use invivo_patch::{Hex, Patch};

use crate::name_of_base;

/// What the name leads to from which a process has mapped its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnDisk {
    /// The same build: a restart changes nothing.
    Same,
    /// The final image of some fix of that build: which one, it says.
    Final(Arc<FinalFile>),
    /// Another build, as a package brings it.
    Other,
    /// Nothing.
    Gone,
}

/// A final image that has the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalFile {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The same fix for running processes.
    pub carried: Carried,
}

/// What a final image carries for running processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Nothing: it was refused when the image was built.
    Nothing,
    /// This patch.
    Patch(Box<Patch>),
    /// Something that cannot be read, as a newer version may have written it.
    Unreadable,
}

/// What is on disk; remembers what it has read and what that means, for many processes run one file.
#[derive(Debug)]
pub struct Disk {
    read: fn(&Path) -> Option<Vec<u8>>,
    known: HashMap<(Version, Hex), OnDisk>,
}

/// One version of one file: device, inode, when it was changed last.
type Version = (u64, u64, i64, i64);

impl Disk {
    /// Nothing is known yet; `read` reads a file whose name a process chose, and which may be a pipe.
    #[must_use]
    pub fn new(read: fn(&Path) -> Option<Vec<u8>>) -> Disk {
        let known = HashMap::new();
        Disk { read, known }
    }

    /// What is at the name that the image `build_id` has been mapped from, which the kernel
    /// calls `mapped` now; `root` is where the process sees `/`.
    ///
    /// The kernel follows the file, not the name: after an exchange it tells the name that the
    /// old file has now.
    pub fn look(&mut self, root: &Path, mapped: &Path, build_id: &Hex) -> OnDisk {
        let path = inside(root, &started_as(mapped));
        let Ok(data) = path.metadata() else {
            return OnDisk::Gone;
        };
        let version = (data.dev(), data.ino(), data.ctime(), data.ctime_nsec());
        let known = self.known.entry((version, build_id.clone()));
        known
            .or_insert_with(|| told(&path, self.read, build_id))
            .clone()
    }
}

fn told(path: &Path, read: fn(&Path) -> Option<Vec<u8>>, build_id: &Hex) -> OnDisk {
    let Some(bytes) = read(path) else {
        return OnDisk::Gone;
    };
    if let Ok(found) = final_image::read(&bytes)
        && found.manifest.base.build_id.as_ref() == Some(build_id)
    {
        let carried = match found.patch.map(elf::read) {
            None => Carried::Nothing,
            Some(Ok(patch)) => Carried::Patch(Box::new(patch)),
            Some(Err(_)) => Carried::Unreadable,
        };
        return OnDisk::Final(Arc::new(FinalFile {
            manifest: found.manifest,
            carried,
        }));
    }
    match Image::parse(bytes.into(), None).map(|image| image.build_id) {
        Ok(Some(found)) if found.0 == build_id.0 => OnDisk::Same,
        _ => OnDisk::Other,
    }
}

/// The name from which a file was mapped that the kernel calls `mapped` now.
#[must_use]
pub fn started_as(mapped: &Path) -> PathBuf {
    let bytes = mapped.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    let path = Path::new(OsStr::from_bytes(bytes));
    match path.file_name().and_then(name_of_base) {
        Some(name) => path.with_file_name(name),
        None => path.to_owned(),
    }
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_before_the_exchange_is_found() {
        for (mapped, name) in [
            ("/usr/bin/server", "/usr/bin/server"),
            ("/usr/bin/server (deleted)", "/usr/bin/server"),
            (
                "/usr/bin/.server.invivo-0123456789abcdef",
                "/usr/bin/server",
            ),
            (
                "/usr/bin/.server.invivo-0123456789abcdef (deleted)",
                "/usr/bin/server",
            ),
        ] {
            assert_eq!(started_as(Path::new(mapped)), Path::new(name));
        }
    }
}
