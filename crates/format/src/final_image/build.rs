//! Which build it is that things were made of.

use invivo_image::pe::PeImage;
use invivo_patch::Hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hotp1::made_of;

/// One build of a Windows image. All that is made of one fixed build (a patch module, a final image, a
/// file that was patched on disk) is known by this to be the same fix.
///
/// Time stamps have seconds, and may be the same for all builds (`/Brepro`); what names debug data may be
/// the same for two builds that differ in a constant. So what the sections hold is compared, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowsBuild {
    /// `TimeDateStamp`.
    pub time_stamp: u32,
    /// Which debug data belong to it, as symbol servers name them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug_data: Option<String>,
    /// SHA-256 of what its sections hold; none where an older version wrote this, which is no build
    /// that is known then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Hex>,
}

impl WindowsBuild {
    /// The build that `image` is, or was made of.
    #[must_use]
    pub fn of(image: &PeImage) -> WindowsBuild {
        WindowsBuild {
            time_stamp: image.time_stamp,
            debug_data: image.code_view().map(ToString::to_string),
            contents: Some(made_of(image).unwrap_or_else(|| contents(image))),
        }
    }
}

/// SHA-256 of all that the sections of a Windows image hold in its file, and where. What a final image has
/// more than the build that it is a copy of does not count: the metadata, which are a section of their
/// own, and the word that leads to them. Nor do headers and certificates.
pub(crate) fn contents(image: &PeImage) -> Hex {
    let (mut digest, file) = (Sha256::new(), image.file());
    let config = image.load_config;
    let metadata = config.and_then(|config| config.hot_patch);
    let metadata = metadata.filter(|at| at.0 != 0);
    let field = config.and_then(|config| image.file_place(config.hot_patch_field(image.machine)));
    let field = field.map_or(0..0, |place| place.start..place.start + 4);
    for section in &image.sections {
        if Some(section.range.start) == metadata {
            continue;
        }
        let start = section.file_start().unwrap_or(0);
        let end = start + section.file_size() as usize;
        digest.update(section.range.start.0.to_le_bytes());
        digest.update((end - start).to_le_bytes());
        let mut rest = start..end;
        if rest.start <= field.start && field.end <= rest.end {
            digest.update(&file[rest.start..field.start]);
            rest.start = field.end;
        }
        digest.update(&file[rest]);
    }
    Hex(digest.finalize().to_vec())
}
