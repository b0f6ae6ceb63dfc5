//! How a base stands in a process, and on disk.

use invivo_format::final_image::WindowsBuild;
use invivo_image::pe::PeImage;

use super::HotPatchRecord;
use super::host::{Host, list};
use crate::ApplyError;
use crate::pe::{Instance, OnDisk, identity};

/// A base of a patch, loaded in a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concerned {
    /// Its file.
    pub path: String,
    /// The sequence number of the patch that is live; 0 where none is.
    pub sequence: u32,
    /// True if that is the patch in question, and not another one with the same number.
    pub is_live: bool,
    /// What has its name now, and starts next.
    pub on_disk: OnDisk,
    /// What that calls itself, where it was patched on disk.
    pub on_disk_name: Option<String>,
}

/// True if what is live is this patch: it is in memory, and the base's functions lead into it. One that was
/// taken back stays in memory, whatever came after it.
fn is_live(record: &HotPatchRecord, patch: &PeImage) -> bool {
    let mut live = record.entries.iter().filter(|entry| entry.live);
    let into = live.next().map(|entry| entry.to);
    let size = u64::from(patch.size);
    record.patches.iter().any(|one| {
        let is_it = (one.time_stamp, one.checksum) == (patch.time_stamp, patch.checksum)
            && one.led
            && one.sequence == record.sequence;
        let inside = |to: u64| to.checked_sub(one.at).is_some_and(|from| from < size);
        is_it && into.is_none_or(inside)
    })
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
        _ => None,
    };
    let bases = images.filter(|image| identity(host, image.range.start) == Some(of));
    Ok(bases
        .map(|image| {
            let at = image.range.start.0;
            let mut known = records.iter().filter(|one| one.record.at == at);
            let known = known.find(|one| one.instance == Instance::Same);
            let (on_disk, on_disk_name) = OnDisk::of(host, &image, (of.1, &code), &known_file);
            Concerned {
                sequence: known.map_or(0, |one| one.record.sequence),
                is_live: known.is_some_and(|one| is_live(&one.record, patch)),
                on_disk,
                on_disk_name,
                path: image.path,
            }
        })
        .collect())
}
