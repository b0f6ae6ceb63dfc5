//! What a file may do beyond the user who starts it: set-user-ID, set-group-ID, and capabilities.
//!
//! The old file lies beside the new one, and whoever knows its name may start it. With its rights
//! it would be as open to an attacker as before, so they are taken from it when the new file has its
//! name. Where they stand meanwhile is the new file, which got the same: there [`give_back`] takes
//! them from, so that nothing else has to be kept, nor can be lost or forged. Who took them from the
//! new file meanwhile wanted them gone.

use std::ffi::CStr;
use std::fs::File;

use rustix::fs::{Mode, XattrFlags, fremovexattr, fsetxattr, fstat, fsync};
use rustix::io::Errno;

use crate::attributes::{Missing, missing, set_mode, value};

/// The attribute with a file's capabilities.
const CAPABILITIES: &CStr = c"security.capability";
/// In the words of a person.
const NAME: &str = "capabilities";
const MODE: &str = "mode";

/// Takes them from a file, and waits until that is on the disk; gives whether it had any.
pub(crate) fn take(from: &File) -> Result<bool, Missing> {
    let mode = fstat(from).map_err(missing(MODE))?.st_mode;
    let mode = Mode::from_raw_mode(mode);
    let has_bits = mode.intersects(Mode::SUID | Mode::SGID);
    let has_capabilities = held(from)?.is_some();
    if has_capabilities {
        fremovexattr(from, CAPABILITIES).map_err(missing(NAME))?;
    }
    if has_bits {
        set_mode(from, mode - (Mode::SUID | Mode::SGID)).map_err(missing(MODE))?;
    }
    let had_any = has_bits || has_capabilities;
    if had_any {
        fsync(from).map_err(missing(MODE))?;
    }
    Ok(had_any)
}

/// Gives `to` what `from` has of them, and waits until that is on the disk. Files of two owners have
/// nothing to do with each other.
pub(crate) fn give_back(from: &File, to: &File) -> Result<(), Missing> {
    let one = fstat(from).map_err(missing(MODE))?;
    let other = fstat(to).map_err(missing(MODE))?;
    if (one.st_uid, one.st_gid) != (other.st_uid, other.st_gid) {
        return Ok(());
    }
    let bits = Mode::from_raw_mode(one.st_mode) & (Mode::SUID | Mode::SGID);
    let mode = Mode::from_raw_mode(other.st_mode);
    let mut given = false;
    if !mode.contains(bits) {
        set_mode(to, mode | bits).map_err(missing(MODE))?;
        given = true;
    }
    if let Some(capabilities) = held(from)?
        && held(to)?.as_ref() != Some(&capabilities)
    {
        fsetxattr(to, CAPABILITIES, &capabilities, XattrFlags::empty()).map_err(missing(NAME))?;
        given = true;
    }
    if given {
        fsync(to).map_err(missing(MODE))?;
    }
    Ok(())
}

/// The capabilities of a file, if it has any.
fn held(of: &File) -> Result<Option<Vec<u8>>, Missing> {
    match value(of, CAPABILITIES) {
        Ok(value) => Ok(Some(value)),
        // None, or a file system without attributes.
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(missing(NAME)(errno)),
    }
}
