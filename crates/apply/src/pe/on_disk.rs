//! What starts next where a process runs an image: what its name leads to now.

use std::fmt;
use std::io::ErrorKind;

use invivo_format::hotp1::cold_mark;
use invivo_image::pe::PeImage;
use serde::Serialize;

use super::{file_of, parse};
use crate::TargetError;
use crate::hpat::{Host, HostImage, identity};

/// The file that has the name now from which a process has loaded an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDisk {
    /// The build that the patch is for: who starts next is not fixed.
    Old,
    /// It was made of that build by Invivo, or is the patch itself: who starts next is fixed.
    Fixed,
    /// Another build, as a package brings it.
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
    /// What has the name of `module` now. The patch is for the build with this checksum; `known` tells what
    /// is known of a file by its headers alone.
    pub(crate) fn of(
        host: &dyn Host,
        module: &HostImage,
        checksum: u32,
        known: &dyn Fn(&PeImage) -> Option<OnDisk>,
    ) -> OnDisk {
        let bytes = match host.file(&module.path) {
            Ok(bytes) => bytes,
            Err(TargetError::System { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return OnDisk::Gone;
            }
            Err(_) => return OnDisk::Unknown,
        };
        let Ok(file) = parse(&module.path, bytes) else {
            return OnDisk::Other;
        };
        if let Some(known) = known(&file) {
            return known;
        }
        // Where the file was exchanged, the one that runs lies beside it.
        let now = Some((file.time_stamp, file.checksum));
        let exchanged =
            || identity(host, module.range.start) != now && file_of(host, module).is_ok();
        match cold_mark(&file) == Ok(checksum.into()) || exchanged() {
            true => OnDisk::Fixed,
            false => OnDisk::Other,
        }
    }
}
