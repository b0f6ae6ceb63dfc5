//! How a module stands in a process, and on disk.

use invivo_format::final_image::WindowsBuild;
use invivo_image::pe::PeImage;

use super::checks;
use super::found::{has_name, model};
use super::host::blocks;
use crate::ApplyError;
use crate::hpat::Host;
use crate::pe::{Instance, Marks, OnDisk, parse};

/// A module that a patch is for, in a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concerned {
    /// Its file.
    pub path: String,
    /// True if this patch's hooks are in it.
    pub active: bool,
    /// True if the patch was applied and removed.
    pub removed: bool,
    /// True if the module that runs was patched on disk to the same end: with code of the build that
    /// the patch is made of.
    pub cold: bool,
    /// What has its name now, and starts next.
    pub on_disk: OnDisk,
    /// What that calls itself, where it was patched on disk.
    pub on_disk_name: Option<String>,
}

/// The modules of a process that the patch in `path` is for, and how they stand.
///
/// # Errors
/// When the patch is none, or the process is gone or may not be looked at.
pub fn standing(host: &dyn Host, path: &str) -> Result<Vec<Concerned>, ApplyError> {
    let patch = parse(path, host.file(path)?)?;
    let model = model(&patch, path)?;
    let mut known = Vec::new();
    let images = host.images()?;
    for (_, _, record) in blocks(host)? {
        if record.instance(host, &images)? == Instance::Same {
            known.push(record);
        }
    }
    let (checksum, code) = (checks::wanted(&model), WindowsBuild::of(&patch));
    let known_file = |file: &PeImage| (file.checksum == checksum).then_some(OnDisk::Old);
    let mut all = Vec::new();
    for module in images.into_iter().filter(|image| has_name(image, &model)) {
        // Whatever became of its file: what runs tells which build it is.
        let marks = Marks::of(host, module.range.start)?;
        if checks::fits(checks::told(&marks, &model)?, &model).is_err() {
            continue;
        }
        let (on_disk, on_disk_name) = OnDisk::of(host, &module, (checksum, &code), &known_file);
        let record = known.iter().find(|one| one.at == module.range.start.0);
        let mut patches = record.iter().flat_map(|record| &record.patches);
        let known = patches
            .find(|one| (one.time_stamp, one.checksum) == (patch.time_stamp, patch.checksum));
        all.push(Concerned {
            active: known.is_some_and(|one| one.active),
            removed: known.is_some_and(|one| !one.active),
            cold: marks.checksum() != checksum && marks.code_of()?.as_ref() == Some(&code),
            on_disk,
            on_disk_name,
            path: module.path,
        });
    }
    Ok(all)
}
