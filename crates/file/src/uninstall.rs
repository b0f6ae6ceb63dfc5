//! The old file comes back.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use invivo_format::final_image::{self, FinalError, Manifest};

use crate::error::errno;
use crate::exchange::put_back;
use crate::install::sha256;
use crate::place::Place;
use crate::{FileError, base_name, privileges};

/// What was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uninstalled {
    /// The file.
    pub path: PathBuf,
    /// What the final image said of itself.
    pub manifest: Manifest,
}

/// Gives the file that a final image took the place of its name back.
///
/// # Errors
/// When `path` leads to no final image, or the old file is not beside it or is not what it was;
/// `path` then leads to what it led to before.
pub fn uninstall(path: &Path) -> Result<Uninstalled, FileError> {
    let place = Place::open(path)?;
    let installed = place.file(&place.name)?;
    let mut installed = installed.ok_or_else(|| FileError::NotAFile(place.path().to_owned()))?;
    let manifest = manifest(&place, &mut installed)?;
    let hidden = base_name(&place.name, &manifest.base.sha256);
    let Some(mut base) = place.file(&hidden)? else {
        return Err(FileError::NoBase {
            path: place.path().to_owned(),
            base: place.path_of(&hidden),
        });
    };
    let found = sha256(&mut base).map_err(place.failed("read", &hidden))?;
    if found != manifest.base.sha256 {
        return Err(FileError::InTheWay(place.path_of(&hidden)));
    }
    // First, so that the name never leads to a file that lacks them.
    let given = privileges::give_back(&installed, &base);
    given.map_err(|missing| place.rights("get back", &hidden, missing))?;
    put_back(&place, &hidden).inspect_err(|_| {
        // It is hidden still.
        let _ = privileges::take(&base);
    })?;
    place.settle()?;
    Ok(Uninstalled {
        path: place.path().to_owned(),
        manifest,
    })
}

fn manifest(place: &Place, installed: &mut File) -> Result<Manifest, FileError> {
    let mut bytes = Vec::new();
    if let Err(error) = installed.read_to_end(&mut bytes) {
        return Err(place.failed("read", &place.name)(errno(&error)));
    }
    match final_image::read(&bytes) {
        Ok(found) => Ok(found.manifest),
        Err(FinalError::NotFinal(_)) => Err(FileError::NotInstalled(place.path().to_owned())),
        Err(error) => Err(FileError::Final {
            path: place.path().to_owned(),
            error,
        }),
    }
}
