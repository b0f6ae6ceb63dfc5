//! What starts next where a process runs an image: what its name leads to now.

use std::fmt;
use std::io::ErrorKind;

use invivo_format::final_image::{self, WindowsBuild};
use invivo_format::hotp1::cold_mark;
use invivo_image::pe::PeImage;
use serde::Serialize;

use super::parse;
use crate::TargetError;
use crate::hpat::{Host, HostImage};

/// The file that has the name now from which a process has loaded an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDisk {
    /// The build that the patch is for: who starts next is not fixed.
    Old,
    /// It was made of that build and of the one that the patch is of, or is that one itself, or the patch:
    /// who starts next is fixed. Whoever signed it afterwards changed nothing of that.
    Fixed,
    /// Another build, as a package may bring it, or the same with another fix.
    Other,
    /// Nothing.
    Gone,
    /// It cannot be read.
    Unknown,
}

impl fmt::Display for OnDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnDisk::Old => "old",
            OnDisk::Fixed => "fixed",
            OnDisk::Other => "other",
            OnDisk::Gone => "gone",
            OnDisk::Unknown => "not known",
        })
    }
}

impl OnDisk {
    /// What has the name of `module` now, and what that calls itself where it was patched on disk.
    ///
    /// The patch in question is for the build with the checksum `base`, and its code is of the build
    /// `code`: only that very build, and a file with code of it, hold its fix. `known` tells what is known
    /// of a file by its headers alone.
    pub(crate) fn of(
        host: &dyn Host,
        module: &HostImage,
        (base, code): (u32, &WindowsBuild),
        known: &dyn Fn(&PeImage) -> Option<OnDisk>,
    ) -> (OnDisk, Option<String>) {
        let bytes = match host.file(&module.path) {
            Ok(bytes) => bytes,
            Err(TargetError::System { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return (OnDisk::Gone, None);
            }
            Err(_) => return (OnDisk::Unknown, None),
        };
        let Ok(file) = parse(&module.path, bytes) else {
            return (OnDisk::Other, None);
        };
        if let Some(known) = known(&file) {
            return (known, None);
        }
        if WindowsBuild::of(&file) == *code {
            return (OnDisk::Fixed, None);
        }
        let Ok(found) = final_image::read(file.file()) else {
            return (OnDisk::Other, None);
        };
        let manifest = found.manifest;
        let same_code = manifest.code_of.as_ref() == Some(code);
        let now = match cold_mark(&file) == Ok(base.into()) && same_code {
            true => OnDisk::Fixed,
            false => OnDisk::Other,
        };
        (now, Some(manifest.identity.name))
    }
}
