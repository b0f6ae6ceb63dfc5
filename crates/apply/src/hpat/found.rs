//! The base of a final image in a process.

use invivo_format::hpat::{self, HotPatch};
use invivo_image::pe::PeImage;

use super::host::{Host, HostImage};
use crate::pe::{file_of, identity, parse};
use crate::{ApplyError, TargetError, refused};

/// A final image, and what it is for.
pub(super) struct Found {
    pub(super) patch: PeImage,
    pub(super) metadata: HotPatch,
    /// The base, as it is loaded.
    pub(super) base: HostImage,
    /// Its file.
    pub(super) image: PeImage,
}

/// Reads the final image in `path`, and finds its base.
///
/// # Errors
/// When it is none, or when no image or more than one is its base.
pub(super) fn find(host: &dyn Host, path: &str) -> Result<Found, ApplyError> {
    let patch = parse(path, host.file(path)?)?;
    let metadata = hpat::read(&patch)
        .or_else(|error| refused(format!("{path}: {error}")))?
        .patch;
    let [of] = &metadata.bases[..] else {
        return refused("A06: the patch is not for exactly one base");
    };
    let wanted = (of.time_stamp, of.checksum);
    let images = host.images()?;
    let mut bases = images
        .iter()
        .filter(|image| identity(host, image.range.start) == Some(wanted));
    let (base, None) = (bases.next(), bases.next()) else {
        return refused("the base is loaded more than once");
    };
    let Some(base) = base else {
        return Err(TargetError::Unsupported(format!(
            "no image of {} is the build that the patch is for (time stamp {:#x}, checksum {:#x})",
            host.describe(),
            wanted.0,
            wanted.1
        ))
        .into());
    };
    Ok(Found {
        image: file_of(host, base)?,
        base: base.clone(),
        patch,
        metadata,
    })
}
