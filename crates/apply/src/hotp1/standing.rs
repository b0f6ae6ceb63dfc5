//! How a module stands in a process, and on disk.

use invivo_format::hotp1::LegacyPatch;
use invivo_image::pe::PeImage;

use super::checks;
use super::host::{blocks, has_name, model};
use crate::ApplyError;
use crate::hpat::{Host, HostImage};
use crate::pe::{Instance, Loaded, OnDisk, file_of, parse};

/// A module that a patch is for, in a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concerned {
    /// Its file.
    pub path: String,
    /// True if this patch's hooks are in it.
    pub active: bool,
    /// True if the patch was applied and removed.
    pub removed: bool,
    /// True if the module that runs was patched on disk to the same end.
    pub cold: bool,
    /// What has its name now, and starts next.
    pub on_disk: OnDisk,
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
    let checksum = checks::wanted(&model);
    let on_disk = |file: &PeImage| (file.checksum == checksum).then_some(OnDisk::Old);
    let mut all = Vec::new();
    for module in images.into_iter().filter(|image| has_name(image, &model)) {
        let Some(flags) = flags_of(host, &module, &model)? else {
            continue;
        };
        let record = known.iter().find(|one| one.at == module.range.start.0);
        let mut patches = record.iter().flat_map(|record| &record.patches);
        let known = patches
            .find(|one| (one.time_stamp, one.checksum) == (patch.time_stamp, patch.checksum));
        all.push(Concerned {
            active: known.is_some_and(|one| one.active),
            removed: known.is_some_and(|one| !one.active),
            cold: flags != 0,
            on_disk: OnDisk::of(host, &module, checksum, &on_disk),
            path: module.path,
        });
    }
    Ok(all)
}

/// The flags of a patch for a loaded module; `None` where the patch is for another build. Where the module
/// is the very base its headers in memory tell that, whatever became of its file.
fn flags_of(
    host: &dyn Host,
    module: &HostImage,
    model: &LegacyPatch,
) -> Result<Option<u32>, ApplyError> {
    let seen = Loaded::seen(host, module.range.start);
    let flags = seen.and_then(|seen| checks::identity(&seen.image, model).ok());
    if flags.is_some() {
        return Ok(flags);
    }
    let image = file_of(host, module)?;
    Ok(checks::identity(&image, model).ok())
}
