//! The one step after which a name leads to another file.

use std::ffi::{OsStr, OsString};

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat, renameat_with};
use rustix::io::Errno;

use crate::FileError;
use crate::place::Place;

/// The file that waits under the name `hidden` gets the place's name, and the one that had it
/// gets the hidden one.
///
/// Wherever this is interrupted, the place's name leads to one of the two.
pub(crate) fn exchange(place: &Place, hidden: &OsStr) -> Result<(), FileError> {
    let (folder, name) = (place.folder(), &place.name);
    let failed = place.failed("exchange", name);
    match renameat_with(folder, hidden, folder, name, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // A file system that cannot (NFS, some in user space): the old file gets its second
        // name first, then the new one takes the place's name, which is one step as well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            let aside = aside(hidden);
            renameat(folder, hidden, folder, &aside).map_err(&failed)?;
            linkat(folder, name, folder, hidden, AtFlags::empty()).map_err(&failed)?;
            renameat(folder, &aside, folder, name).map_err(failed)
        }
        Err(errno) => Err(failed(errno)),
    }
}

/// Where the new file waits on a file system that cannot exchange names.
pub(crate) fn aside(hidden: &OsStr) -> OsString {
    let mut aside = hidden.to_owned();
    aside.push(".new");
    aside
}

/// The file that has the hidden name gets the place's name again; the one that had it is gone.
pub(crate) fn put_back(place: &Place, hidden: &OsStr) -> Result<(), FileError> {
    let folder = place.folder();
    renameat(folder, hidden, folder, &place.name).map_err(place.failed("exchange", &place.name))
}
