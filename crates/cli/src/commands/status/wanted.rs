//! What `invivo status` is asked about.

use std::path::Path;
use std::sync::Arc;

use invivo_format::final_image::Manifest;
use invivo_image::Image;
use invivo_linux::{Access, Process, processes};
use invivo_patch::Hex;

use crate::arguments::Status;
use crate::commands::xen::Standings;
use crate::failure::{Failure, REFUSED, USAGE};
use crate::images::read_file;
use crate::patch_file::{
    PatchFile, PayloadFile, final_of, is_patch, not_of_windows, parse, payload_of,
};

/// An image that is asked about.
pub(super) struct Wanted {
    pub(super) build_id: Hex,
    pub(super) patch: Option<PatchFile>,
    /// What a final image that is asked about says of itself.
    pub(super) installed_as: Option<Manifest>,
}

/// All that is asked about: images in processes, and payloads in the hypervisor below.
pub(super) struct Asked {
    pub(super) images: Vec<Wanted>,
    /// None where no payload was named.
    pub(super) xen: Option<Standings>,
}

impl Asked {
    pub(super) fn of(asked: &Status) -> Result<Asked, Failure> {
        let (mut images, mut payloads) = (Vec::new(), Vec::new());
        for file in &asked.files {
            let bytes = read_file(file)?;
            match payload_of(file, &bytes)? {
                Some(payload) => payloads.push(payload),
                None => images.push(about(file, &bytes)?),
            }
        }
        let xen = of_xen(asked, &payloads)?;
        images.extend(asked.selectors.build_id.iter().map(|id| Wanted {
            build_id: Hex(id.0.clone()),
            patch: None,
            installed_as: None,
        }));
        if images.is_empty() && xen.is_none() {
            images = everything_patched()?;
        }
        Ok(Asked { images, xen })
    }
}

/// How these payloads stand in the hypervisor below; nothing where there is none of them.
fn of_xen(asked: &Status, payloads: &[PayloadFile]) -> Result<Option<Standings>, Failure> {
    let Some(first) = payloads.first() else {
        return Ok(None);
    };
    if asked.selectors.are_given() {
        return Err(first.in_no_process());
    }
    if asked.watch.is_some() {
        let text = "--watch looks at processes, not at the hypervisor";
        return Err(Failure::new(USAGE, text).hint("leave --watch or the payloads out"));
    }
    Standings::of(payloads).map(Some)
}

/// The image that a patch or a program file is about.
fn about(file: &Path, bytes: &Arc<[u8]>) -> Result<Wanted, Failure> {
    not_of_windows(file, bytes)?;
    if let Some(found) = final_of(file, bytes)? {
        let name = file.display();
        let base = found.manifest.base.build_id.clone();
        return Ok(Wanted {
            build_id: base.ok_or_else(|| {
                Failure::new(REFUSED, format!("{name}: its base has no build id"))
            })?,
            patch: found.patch.map(|patch| parse(file, patch)).transpose()?,
            installed_as: Some(found.manifest),
        });
    }
    if is_patch(bytes) {
        let patch = parse(file, bytes)?;
        return Ok(Wanted {
            build_id: patch.patch.target.build_id.clone(),
            patch: Some(patch),
            installed_as: None,
        });
    }
    let name = file.display();
    let refuse = |text: String| {
        Failure::new(REFUSED, text)
            .hint("give a patch, the program or library that processes run, or a payload for Xen")
    };
    let image = Image::parse(Arc::clone(bytes), None)
        .map_err(|error| refuse(format!("{name}: {error}")))?;
    let id = image
        .build_id
        .ok_or_else(|| refuse(format!("{name} has no build id")))?;
    Ok(Wanted {
        build_id: Hex(id.0),
        patch: None,
        installed_as: None,
    })
}

/// Every image for which some process has a patch.
fn everything_patched() -> Result<Vec<Wanted>, Failure> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for pid in processes()? {
        let patches = Process::open(pid, Access::Read).and_then(|p| invivo_apply::list(&p));
        for patch in patches.unwrap_or_default() {
            if wanted.iter().all(|other| other.build_id != patch.build_id) {
                wanted.push(Wanted {
                    build_id: patch.build_id,
                    patch: None,
                    installed_as: None,
                });
            }
        }
    }
    Ok(wanted)
}
