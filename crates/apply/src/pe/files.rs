//! The files of images that are loaded in a process.

use invivo_format::final_image;
use invivo_image::pe::PeImage;

use super::{identity, parse};
use crate::hpat::{Host, HostImage};
use crate::{ApplyError, refused};

/// The file that a module was loaded from. Where it was patched on disk meanwhile, another file has
/// its name, which says how the old one is known; that lies beside it.
pub(crate) fn file_of(host: &dyn Host, module: &HostImage) -> Result<PeImage, ApplyError> {
    let file = host.file(&module.path)?;
    let image = parse(&module.path, file)?;
    let running = identity(host, module.range.start);
    if running == Some((image.time_stamp, image.checksum)) {
        return Ok(image);
    }
    let kept = final_image::read(image.file()).ok().and_then(|file| {
        let split = module.path.rfind(['\\', '/']).map_or(0, |at| at + 1);
        let (folder, name) = module.path.split_at(split);
        let base = final_image::base_name(name, &file.manifest.base.sha256);
        let path = format!("{folder}{base}");
        parse(&path, host.file(&path).ok()?).ok()
    });
    let kept = kept.filter(|kept| running == Some((kept.time_stamp, kept.checksum)));
    kept.map_or_else(
        || {
            refused(format!(
                "{} is not the file any more that the module was loaded from",
                module.path
            ))
        },
        Ok,
    )
}

/// Refuses a patch that the process has loaded already and no record tells of: its own code may run,
/// and its variables are in use. The loader would give it again instead of a new one.
pub(crate) fn refuse_loaded(images: &[HostImage], path: &str) -> Result<(), ApplyError> {
    let loaded = images
        .iter()
        .find(|image| image.path.eq_ignore_ascii_case(path));
    match loaded {
        None => Ok(()),
        Some(image) => refused(format!(
            "{path} is loaded in the process already, at {}; copy it to another name and apply that",
            image.range.start
        )),
    }
}
