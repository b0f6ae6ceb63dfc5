//! How a base stands in a process, and on disk.

use invivo_format::hotp1::cold_mark;
use invivo_image::pe::PeImage;

use super::host::{Host, HostImage, identity, list};
use crate::ApplyError;
use crate::pe::{Instance, file_of, parse};

/// A base of a patch, loaded in a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concerned {
    /// Its file.
    pub path: String,
    /// The sequence number of the patch that is live; 0 where none is.
    pub sequence: u32,
    /// True if the file that has its name now was made of it by Invivo, or is the patch itself: who
    /// starts next runs a fixed one.
    pub fixed_on_disk: bool,
}

/// The images of a process that `patch`, a final image for the build `of` (its time stamp and its
/// checksum), is for.
///
/// # Errors
/// When the process is gone or may not be looked at.
pub fn standing(
    host: &dyn Host,
    patch: &PeImage,
    of: (u32, u32),
) -> Result<Vec<Concerned>, ApplyError> {
    let records = list(host)?;
    let images = host.images()?.into_iter();
    let bases = images.filter(|image| identity(host, image.range.start) == Some(of));
    Ok(bases
        .map(|image| {
            let at = image.range.start.0;
            let mut known = records.iter().filter(|one| one.record.at == at);
            let known = known.find(|one| one.instance == Instance::Same);
            Concerned {
                sequence: known.map_or(0, |one| one.record.sequence),
                fixed_on_disk: is_fixed(host, &image, patch, of),
                path: image.path,
            }
        })
        .collect())
}

fn is_fixed(host: &dyn Host, base: &HostImage, patch: &PeImage, of: (u32, u32)) -> bool {
    let file = host.file(&base.path).ok();
    let Some(file) = file.and_then(|bytes| parse(&base.path, bytes).ok()) else {
        return false;
    };
    let now = (file.time_stamp, file.checksum);
    now == (patch.time_stamp, patch.checksum)
        || cold_mark(&file) == Ok(of.1.into())
        // It was exchanged, and the one that runs lies beside it.
        || (now != of && file_of(host, base).is_ok())
}
