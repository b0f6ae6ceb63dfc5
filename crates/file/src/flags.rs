//! What `chattr` sets on a file.

use std::fs::File;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

/// Those that a new file gets as the old one has them. What forbids to change the file at all
/// forbids to exchange it, too, and the others are the file system's own.
const KEPT: IFlags = IFlags::NOATIME
    .union(IFlags::NODUMP)
    .union(IFlags::SYNC)
    .union(IFlags::COMPRESSED)
    .union(IFlags::NOCOW);

/// `FS_VERITY_FL`: the kernel holds what is read against a hash of the contents.
const VERITY: IFlags = IFlags::from_bits_retain(0x0010_0000);

/// Gives `to`, which is still empty, those of `from`.
pub(crate) fn copy(from: &File, to: &File) -> Result<(), Errno> {
    let (wanted, own) = (of(from)?, of(to)?);
    if (wanted ^ own).intersects(KEPT) {
        ioctl_setflags(to, (own - KEPT) | (wanted & KEPT))?;
    }
    Ok(())
}

/// True if the kernel knows a hash of the contents.
pub(crate) fn is_sealed(file: &File) -> Result<bool, Errno> {
    Ok(of(file)?.contains(VERITY))
}

fn of(file: &File) -> Result<IFlags, Errno> {
    match ioctl_getflags(file) {
        // A file system without any.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(IFlags::empty()),
        found => found,
    }
}
