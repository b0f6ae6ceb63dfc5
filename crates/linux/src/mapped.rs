//! Files that a process has mapped, opened by names that the process chose.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, fstatfs};
use procfs::process::{MMapPath, MemoryMap};

use crate::Process;

/// Larger than any image. A file that says to be larger may be all holes.
const LARGEST: u64 = 2 << 30;

/// All of the file with this name, if it is a regular one, and not too large to be an image.
///
/// The name may be another's choice: to open a pipe is to wait for somebody who writes, and to
/// open a device may set something going. So what it is is looked at before it is opened.
#[must_use]
pub fn read_regular(path: &Path) -> Option<Vec<u8>> {
    read_all(&open_if(path, |_, _| true)?)
}

/// Opens a file to be read, if it is what it shall be.
fn open_if(path: &Path, is_it: impl Fn(&File, &Metadata) -> bool) -> Option<File> {
    let open = |path: &Path, flags| {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags).open(path).ok()
    };
    let named = open(path, libc::O_PATH)?;
    let data = named.metadata().ok()?;
    if !data.is_file() || !is_it(&named, &data) {
        return None;
    }
    let same = format!("/proc/self/fd/{}", named.as_raw_fd());
    open(Path::new(&same), libc::O_NONBLOCK | libc::O_NOCTTY)
}

/// All of a file, unless it is too large to be an image.
pub(crate) fn read_all(file: &File) -> Option<Vec<u8>> {
    let size = file.metadata().ok()?.len();
    let mut bytes = Vec::new();
    let room = usize::try_from(size).ok().filter(|_| size <= LARGEST)?;
    bytes.try_reserve_exact(room).ok()?;
    // It may grow meanwhile.
    let read = file.take(LARGEST + 1).read_to_end(&mut bytes).ok()?;
    (read as u64 <= LARGEST).then_some(bytes)
}

/// True if the file of a mapping is this one.
fn is_behind(map: &MemoryMap, file: &File, data: &Metadata) -> bool {
    let device = (libc::major(data.dev()), libc::minor(data.dev()));
    let same = device == (map.dev.0.cast_unsigned(), map.dev.1.cast_unsigned());
    data.ino() == map.inode && (same || has_other_devices(file))
}

/// True for file systems that tell programs another device than the one in the list of mappings, so that
/// the number of the file alone has to do.
fn has_other_devices(file: &File) -> bool {
    let kind = fstatfs(file).map(|kind| kind.filesystem_type());
    kind.is_ok_and(|kind| [BTRFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC].contains(&kind))
}

impl Process {
    /// The file behind a mapping, if it is still the one that was mapped.
    pub(crate) fn open_mapped(&self, map: &MemoryMap) -> Option<File> {
        let MMapPath::Path(path) = &map.pathname else {
            return None;
        };
        let inside = self.root().join(path.strip_prefix("/").ok()?);
        let exe = PathBuf::from(format!("/proc/{}/exe", self.first));
        let is_mapped = |file: &File, data: &Metadata| is_behind(map, file, data);
        [exe, inside]
            .into_iter()
            .find_map(|path| open_if(&path, is_mapped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Access;

    #[test]
    fn a_file_with_the_same_number_on_another_device_is_another() {
        let own = Process::open(std::process::id().cast_signed(), Access::Read).unwrap();
        let exe = MMapPath::Path(own.exe().unwrap());
        let maps = own.maps().unwrap();
        let mut map = maps.iter().find(|map| map.pathname == exe).unwrap().clone();
        let file = own.open_mapped(&map).unwrap();
        map.dev.1 += 1;
        assert_eq!(own.open_mapped(&map).is_some(), has_other_devices(&file));
        map.inode += 1;
        assert!(own.open_mapped(&map).is_none());
    }

    #[test]
    fn only_a_regular_file_is_opened() {
        let folder = std::env::temp_dir().join(format!("invivo-mapped-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (pipe, file) = (folder.join("pipe"), folder.join("file"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(&file, "text").unwrap();
        // Nobody writes: a plain open would never return.
        for other in [&pipe, Path::new("/dev/null"), &folder] {
            assert_eq!(read_regular(other), None);
        }
        assert_eq!(read_regular(&file).unwrap(), b"text");
        let large = File::options().write(true).open(&file).unwrap();
        large.set_len(LARGEST + 1).unwrap();
        assert_eq!(read_regular(&file), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
