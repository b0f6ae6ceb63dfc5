//! A file of Windows is exchanged for one that was patched on disk, and back.
//!
//! A library that a process has mapped can get another name, and cannot be written or replaced. So
//! the new file waits beside the old one, and gets its name. Where nobody has the old one mapped
//! that is one step, and the old one has its second name before. Where somebody has, it is two, and
//! between them the name leads nowhere: the next [`install`] or [`uninstall`] begins with making up
//! for a tool that died there.

mod place;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::windows::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use invivo_apply::TargetError;
use invivo_format::final_image::{self, FinalError, Manifest};
use invivo_patch::Hex;
use sha2::{Digest as _, Sha256};

use crate::security;
use place::Place;

/// Why a file was not exchanged. In every case its name leads to what it led to before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Windows refused a step.
    #[error("cannot {doing} {}: {source}", path.display())]
    System {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It is not the file that the new one was made for.
    #[error(
        "{} is not the file that this was made for: its SHA-256 is {found}, that of the base {wanted}",
        path.display()
    )]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: Hex,
        /// What it should have.
        wanted: Hex,
    },
    /// It cannot be read as a file that was patched on disk.
    #[error("{}: {error}", path.display())]
    Final {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: FinalError,
    },
    /// The old file is not beside it, or is not what it was.
    #[error("the old file of {} is not at {}", path.display(), base.display())]
    NoBase {
        /// The file.
        path: PathBuf,
        /// Where the old one should be.
        base: PathBuf,
    },
    /// Something lies where the old file is to be kept, and can neither be removed nor get another name.
    #[error(
        "{} lies where the old file of {} is to be kept, and cannot be moved away: {source}",
        kept.display(), path.display()
    )]
    InTheWay {
        /// The file.
        path: PathBuf,
        /// What is in the way.
        kept: PathBuf,
        /// Why it cannot be moved.
        source: io::Error,
    },
    /// A tool died, and which of several old files has to get the name again is not known.
    #[error(
        "{} is not there, and which of the old files beside it was it is not known: {}",
        path.display(),
        list(kept)
    )]
    Nowhere {
        /// The file.
        path: PathBuf,
        /// The old files.
        kept: Vec<PathBuf>,
    },
    /// Another tool is at work with the file.
    #[error("another tool is at work with {}", .0.display())]
    Busy(PathBuf),
    /// Whether another tool is at work with the file cannot be known.
    #[error("{}: {error}", path.display())]
    Turn {
        /// The file.
        path: PathBuf,
        /// Why it cannot.
        error: TargetError,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

/// What became of a file.
#[derive(Clone, Debug)]
pub struct Exchanged {
    /// The file.
    pub path: PathBuf,
    /// Where the old one is; `None` where that has its name again.
    pub base: Option<PathBuf>,
    /// False if the new file was there already.
    pub changed: bool,
    /// What the new file says of itself.
    pub manifest: Manifest,
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ExchangeError {
    let path = path.to_owned();
    move |source| ExchangeError::System {
        doing,
        path: path.clone(),
        source,
    }
}

fn exists(path: &Path) -> Result<bool, ExchangeError> {
    path.try_exists().map_err(failed("look at", path))
}

fn rename(from: &Path, to: &Path) -> Result<(), ExchangeError> {
    fs::rename(from, to).map_err(failed("rename", from))
}

fn sha256(bytes: &[u8]) -> Hex {
    Hex(Sha256::digest(bytes).to_vec())
}

fn manifest(path: &Path, bytes: &[u8]) -> Result<Manifest, ExchangeError> {
    let found = final_image::read(bytes).map_err(|error| ExchangeError::Final {
        path: path.to_owned(),
        error,
    })?;
    Ok(found.manifest)
}

/// Exchanges the file at `path` for the one at `image`, which was made of it.
///
/// # Errors
/// When `path` is another file than that, or a step fails; `path` then leads to what it led to before.
pub fn install(path: &Path, image: &Path) -> Result<Exchanged, ExchangeError> {
    let new = fs::read(image).map_err(failed("read", image))?;
    let manifest = manifest(image, &new)?;
    let place = Place::new(path)?;
    let _turn = place.turn()?;
    place.settle()?;
    let old = fs::read(&place.path).map_err(failed("read", &place.path))?;
    let (found, hidden) = (sha256(&old), place.base(&manifest.base.sha256));
    let mut done = Exchanged {
        path: place.path.clone(),
        base: Some(hidden.clone()),
        changed: false,
        manifest,
    };
    if old == new {
        return Ok(done);
    }
    let wanted = &done.manifest.base.sha256;
    if found != *wanted {
        return Err(ExchangeError::OtherFile {
            path: done.path,
            found,
            wanted: wanted.clone(),
        });
    }
    if exists(&hidden)? {
        place.clear(&hidden)?;
    }
    let waits = place.aside();
    let staged = stage(&place.path, &waits, &new).and_then(|()| place.exchange(&waits, &hidden));
    if let Err(error) = staged {
        let _ = fs::remove_file(&waits);
        return Err(error);
    }
    done.changed = true;
    Ok(done)
}

/// Writes the new file with the access list of the old one, and waits until it is on the disk. Nobody
/// else opens it before it has that list: who may write what is new in the folder could still write it
/// when it has the name.
fn stage(path: &Path, waits: &Path, bytes: &[u8]) -> Result<(), ExchangeError> {
    let mut alone = OpenOptions::new();
    alone.write(true).create_new(true).share_mode(0);
    let mut file: File = alone.open(waits).map_err(failed("create", waits))?;
    security::copy(path, waits).map_err(failed("give its access list to", waits))?;
    file.write_all(bytes).map_err(failed("write", waits))?;
    file.sync_all().map_err(failed("write to disk", waits))
}

/// Gives the name back to the old file.
///
/// # Errors
/// When `path` is no file that was patched on disk, the old one is not beside it, or a step fails;
/// `path` then leads to what it led to before.
pub fn uninstall(path: &Path) -> Result<Exchanged, ExchangeError> {
    let place = Place::new(path)?;
    let _turn = place.turn()?;
    place.settle()?;
    let bytes = fs::read(&place.path).map_err(failed("read", &place.path))?;
    let manifest = manifest(&place.path, &bytes)?;
    let hidden = place.base(&manifest.base.sha256);
    let old = fs::read(&hidden).ok();
    if old.is_none_or(|old| sha256(&old) != manifest.base.sha256) {
        return Err(ExchangeError::NoBase {
            path: place.path,
            base: hidden,
        });
    }
    let aside = place.aside();
    place.exchange(&hidden, &aside)?;
    // Where a process has it mapped it stays for as long as that, and the next one takes it away.
    let _ = fs::remove_file(&aside);
    Ok(Exchanged {
        path: place.path,
        base: None,
        changed: true,
        manifest,
    })
}
