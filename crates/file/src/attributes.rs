//! What a file has beside its contents: owner, mode, and extended attributes, in which access
//! control lists, capabilities and security labels are kept.

use std::ffi::{CStr, CString};
use std::fs::File;

use rustix::fs::{
    Gid, Mode, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr,
    fstat,
};
use rustix::io::Errno;

use crate::flags;

/// The longest list of names, and the longest value, that the kernel gives out.
const LONGEST: usize = 64 << 10;

/// An attribute that a file could not get.
pub(crate) struct Missing {
    pub(crate) what: String,
    pub(crate) errno: Errno,
}

/// What makes an error of a system call into one about `what`.
pub(crate) fn missing(what: &str) -> impl FnOnce(Errno) -> Missing + use<> {
    let what = what.to_owned();
    move |errno| Missing { what, errno }
}

/// Gives `to` all of them as `from` has them.
pub(crate) fn copy(from: &File, to: &File) -> Result<(), Missing> {
    let (old, new) = (
        fstat(from).map_err(missing("owner"))?,
        fstat(to).map_err(missing("owner"))?,
    );
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) {
        let (user, group) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
        fchown(to, Some(user), Some(group)).map_err(missing("owner"))?;
    }
    // A new owner takes set-user-ID and capabilities away, so these come after it; and a mode
    // is part of an access control list, so the list comes last.
    set_mode(to, Mode::from_raw_mode(old.st_mode)).map_err(missing("mode"))?;
    let wanted = names(from).map_err(missing("extended attributes"))?;
    for name in names(to).map_err(missing("extended attributes"))? {
        // A folder's default list, for one, is given to each file that is made in it.
        if !wanted.contains(&name) {
            let what = name.to_string_lossy();
            fremovexattr(to, &*name).map_err(missing(&what))?;
        }
    }
    for name in wanted {
        let what = name.to_string_lossy();
        let value = value(from, &name).map_err(missing(&what))?;
        if self::value(to, &name).ok().as_ref() != Some(&value) {
            fsetxattr(to, &*name, &value, XattrFlags::empty()).map_err(missing(&what))?;
        }
    }
    Ok(())
}

/// Gives a file a mode. The kernel leaves set-group-ID out, and says nothing, where the caller is
/// not in the file's group.
pub(crate) fn set_mode(file: &File, mode: Mode) -> Result<(), Errno> {
    fchmod(file, mode)?;
    if Mode::from_raw_mode(fstat(file)?.st_mode) == mode {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// What a file is sealed by: something that is right for its present contents alone, and that
/// somebody holds against them when it is run.
pub(crate) fn seal(of: &File) -> Result<Option<&'static str>, Errno> {
    const SEALS: [&CStr; 2] = [c"security.ima", c"security.evm"];
    if flags::is_sealed(of)? {
        return Ok(Some("fs-verity"));
    }
    let names = names(of)?;
    let mut seals = SEALS
        .iter()
        .filter(|seal| names.iter().any(|name| name.as_c_str() == **seal));
    Ok(seals.next().and_then(|seal| seal.to_str().ok()))
}

fn names(of: &File) -> Result<Vec<CString>, Errno> {
    let mut list = vec![0; LONGEST];
    let size = match flistxattr(of, &mut list[..]) {
        Ok(size) => size,
        // A file system without any.
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let names = list[..size].split_inclusive(|byte| *byte == 0);
    Ok(names
        .filter_map(|name| Some(CStr::from_bytes_with_nul(name).ok()?.to_owned()))
        .collect())
}

pub(crate) fn value(of: &File, name: &CStr) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; LONGEST];
    let size = fgetxattr(of, name, &mut value[..])?;
    value.truncate(size);
    Ok(value)
}
