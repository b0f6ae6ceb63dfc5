//! A file is exchanged for its final image.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use invivo_format::final_image::Manifest;
use invivo_patch::Hex;
use rustix::fs::{Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::error::errno;
use crate::exchange::{aside, exchange, put_back};
use crate::place::{Place, same_contents, same_file};
use crate::{FileError, attributes, base_name, flags, privileges};

/// What became of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The file that was exchanged.
    pub path: PathBuf,
    /// Where the old one is now.
    pub base: PathBuf,
    /// False if the final image was there already.
    pub changed: bool,
    /// How many other names (hard links) lead to the old file still.
    pub other_names: u64,
    /// True if set-user-ID, set-group-ID or capabilities were taken from the old file.
    pub rights_taken: bool,
}

/// Exchanges the file at `path` for `image`, the bytes of the final image that says `manifest`.
///
/// # Errors
/// When the file is not the base of that image, or something stands in the way; `path` then
/// leads to what it led to before.
pub fn install(path: &Path, image: &[u8], manifest: &Manifest) -> Result<Installed, FileError> {
    let place = Place::open(path)?;
    let hidden = base_name(&place.name, &manifest.base.sha256);
    let mut old = place
        .file(&place.name)?
        .ok_or_else(|| FileError::NotAFile(place.path().to_owned()))?;
    let looked = |file: &File| fstat(file).map_err(place.failed("look at", &place.name));
    let read = looked(&old)?;
    let found = sha256(&mut old).map_err(place.failed("read", &place.name))?;
    let mut done = Installed {
        path: place.path().to_owned(),
        base: place.path_of(&hidden),
        changed: false,
        other_names: 0,
        rights_taken: false,
    };
    if found != manifest.base.sha256 {
        if found == Hex(Sha256::digest(image).to_vec()) {
            // A tool may have died when it had exchanged them.
            done.rights_taken = disarm_left(&place, &hidden, manifest)?;
            return Ok(done);
        }
        return Err(FileError::OtherFile {
            path: done.path,
            found: found.to_string(),
            wanted: manifest.base.sha256.to_string(),
        });
    }
    not_sealed(&place, &old)?;
    clear(&place, &hidden)?;
    // What was cleared away may have been a second name of this one, which is a change of it.
    let before = looked(&old)?;
    if !same_contents(&read, &before) {
        return Err(FileError::Changed(done.path));
    }
    let staged = stage(&place, &hidden, &old, image)
        .and_then(|()| still_there(&place, &before))
        .and_then(|()| exchange(&place, &hidden));
    if let Err(error) = staged {
        // What is left of it is hidden, and the next one clears it away.
        let _ = clear(&place, &hidden);
        return Err(error);
    }
    place.settle()?;
    done.rights_taken = disarm(&place, &hidden, &old)?;
    done.changed = true;
    done.other_names = before.st_nlink.saturating_sub(1);
    Ok(done)
}

/// What holds the contents against a hash would refuse the new ones.
fn not_sealed(place: &Place, old: &File) -> Result<(), FileError> {
    let seal = attributes::seal(old).map_err(place.failed("look at", &place.name))?;
    let Some(by) = seal else { return Ok(()) };
    let path = place.path().to_owned();
    Err(FileError::Sealed { path, by })
}

/// Takes set-user-ID, set-group-ID and capabilities from the old file, which is at `hidden` now;
/// gives whether it had any.
fn disarm(place: &Place, hidden: &OsStr, old: &File) -> Result<bool, FileError> {
    privileges::take(old).map_err(|missing| {
        // One that keeps them is no better than before, so the exchange is undone.
        let new = place.file(&place.name).ok().flatten();
        if new.is_some_and(|new| privileges::give_back(&new, old).is_ok()) {
            let _ = put_back(place, hidden).and_then(|()| place.settle());
        }
        place.rights("lose", hidden, missing)
    })
}

/// The same for one that an earlier installation left as it was.
fn disarm_left(place: &Place, hidden: &OsStr, manifest: &Manifest) -> Result<bool, FileError> {
    let Some(mut old) = place.file(hidden)? else {
        return Ok(false);
    };
    let found = sha256(&mut old).map_err(place.failed("read", hidden))?;
    if found != manifest.base.sha256 {
        return Ok(false);
    }
    place.settle()?;
    privileges::take(&old).map_err(|missing| place.rights("lose", hidden, missing))
}

/// Removes what an installation that did not end left. The place's name leads to the base, so
/// nothing else is lost: a second name of it at most.
fn clear(place: &Place, hidden: &OsStr) -> Result<(), FileError> {
    place.remove(hidden)?;
    place.remove(&aside(hidden))
}

/// Writes the new file under the hidden name, with all that the old one has beside its
/// contents, and waits until it is on the disk.
fn stage(place: &Place, hidden: &OsStr, old: &File, image: &[u8]) -> Result<(), FileError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    // Nobody may run it or read it before it has its true mode.
    let file = openat(place.folder(), hidden, flags, Mode::RUSR | Mode::WUSR);
    let mut file = File::from(file.map_err(place.failed("create", hidden))?);
    // Some can be given to an empty file only.
    flags::copy(old, &file).map_err(|errno| FileError::Attribute {
        what: "flags (chattr)".to_owned(),
        path: place.path().to_owned(),
        errno,
    })?;
    let written = file.write_all(image).map_err(|error| errno(&error));
    written.map_err(place.failed("write", hidden))?;
    attributes::copy(old, &file).map_err(|missing| FileError::Attribute {
        what: missing.what,
        path: place.path().to_owned(),
        errno: missing.errno,
    })?;
    let on_disk = file.sync_all().map_err(|error| errno(&error));
    on_disk.map_err(place.failed("write to disk", hidden))
}

/// The file that was read must be the one that is exchanged.
fn still_there(place: &Place, before: &Stat) -> Result<(), FileError> {
    if same_file(before, &place.stat(&place.name)?) {
        Ok(())
    } else {
        Err(FileError::Changed(place.path().to_owned()))
    }
}

/// The SHA-256 of a whole file.
pub(crate) fn sha256(file: &mut File) -> Result<Hex, Errno> {
    const PIECE: usize = 1 << 16;
    file.rewind().map_err(|error| errno(&error))?;
    let mut whole = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).map_err(|error| errno(&error))? {
            0 => return Ok(Hex(whole.finalize().to_vec())),
            size => whole.update(&piece[..size]),
        }
    }
}
