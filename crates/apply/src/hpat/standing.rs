//! How a base stands in a process, and on disk.

use invivo_format::final_image::WindowsBuild;
use invivo_image::pe::PeImage;

use super::host::{Host, identity, list};
use crate::ApplyError;
use crate::pe::{Instance, OnDisk};

/// A base of a patch, loaded in a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concerned {
    /// Its file.
    pub path: String,
    /// The sequence number of the patch that is live; 0 where none is.
    pub sequence: u32,
    /// What has its name now, and starts next.
    pub on_disk: OnDisk,
    /// What that calls itself, where it was patched on disk.
    pub on_disk_name: Option<String>,
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
    let code = WindowsBuild::of(patch);
    let known_file = |file: &PeImage| match (file.time_stamp, file.checksum) {
        now if now == of => Some(OnDisk::Old),
        now if now == (patch.time_stamp, patch.checksum) => Some(OnDisk::Fixed),
        _ => None,
    };
    let bases = images.filter(|image| identity(host, image.range.start) == Some(of));
    Ok(bases
        .map(|image| {
            let at = image.range.start.0;
            let mut known = records.iter().filter(|one| one.record.at == at);
            let known = known.find(|one| one.instance == Instance::Same);
            let (on_disk, on_disk_name) =
                OnDisk::of(host, &image, (of.1, code.as_ref()), &known_file);
            Concerned {
                sequence: known.map_or(0, |one| one.record.sequence),
                on_disk,
                on_disk_name,
                path: image.path,
            }
        })
        .collect())
}
