//! Metadata → a copy of an image that has them: the final image, which runs
//! alone or patches a running base.

use std::fmt;
use std::sync::Arc;

use invivo_image::Rva;
use invivo_image::pe::{LoadConfig, PeError, PeImage, section_flags};

use super::{HotPatch, HpatError, write};
use crate::section::{self, Section};

/// The name of the section that is added. That of Microsoft's own files is not known, and
/// nothing looks for it by name.
const SECTION: &[u8; 8] = b".hpat\0\0\0";

/// Why metadata cannot be placed in an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The model cannot be written.
    #[error(transparent)]
    Metadata(#[from] HpatError),
    /// The image lacks room or a structure; the text tells how to link it.
    #[error("{0}")]
    Image(String),
    /// The image that was made cannot be read back: a defect here.
    #[error("the new image cannot be read: {0}")]
    Result(#[from] PeError),
}

/// An image with metadata.
#[derive(Clone)]
pub struct Placed {
    /// The new file.
    pub file: Arc<[u8]>,
    /// Where INFO is.
    pub at: Rva,
    /// Bytes of certificates that were left out: they are not right for the new file.
    pub certificates: u64,
    /// Bytes behind the sections that belong to none; they stay where they are in the file.
    pub overlay: u64,
}

impl fmt::Debug for Placed {
    /// Without the file's bytes, of which there may be millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.file.len();
        write!(f, "Placed {{ {length} bytes, metadata at {} }}", self.at)
    }
}

/// Puts the metadata into a copy of `image`, as its last section.
///
/// All that is in the file keeps its place, since other structures may hold
/// offsets: what lies behind the sections (an overlay) is followed by the new
/// section. Certificates are left out, and the checksum is made anew.
///
/// # Errors
/// When the metadata cannot be written, or the image has no load configuration
/// that could name them, names some already, or has no room for a section header.
pub fn place(image: &PeImage, patch: &HotPatch) -> Result<Placed, PlaceError> {
    let metadata = write(patch)?;
    let field = entry_place(image)?;
    let flags = section_flags::INITIALIZED_DATA | section_flags::READ;
    let new = Section::new(*SECTION, flags, metadata).map_err(PlaceError::Image)?;
    let grown = section::append(image, &[new]).map_err(PlaceError::Image)?;
    let (mut file, at) = (grown.file, grown.places[0].0);
    section::set(section::bytes_of(&mut file), field, at);
    let file = section::finish(image, file);
    PeImage::parse(Arc::clone(&file))?;
    Ok(Placed {
        file,
        at: Rva(at.into()),
        certificates: grown.certificates,
        overlay: grown.overlay,
    })
}

/// Where in the file the load configuration names the metadata.
fn entry_place(image: &PeImage) -> Result<usize, PlaceError> {
    let least = LoadConfig::least_size(image.machine);
    let remedy = format!(
        "link it with a _load_config_used of {least:#x} bytes or more, as the C runtime of \
         current Visual C++ has it"
    );
    let Some(config) = image.load_config else {
        let text = format!("the image has no load configuration; {remedy}");
        return Err(PlaceError::Image(text));
    };
    match config.hot_patch {
        None => {
            let text = format!(
                "the load configuration has {:#x} bytes; {remedy}",
                config.size
            );
            return Err(PlaceError::Image(text));
        }
        Some(at) if at.0 != 0 => {
            let text = format!("the image has hot-patch metadata already, at {at}");
            return Err(PlaceError::Image(text));
        }
        Some(_) => {}
    }
    if config.directory.size != config.size {
        let text = format!(
            "the load configuration says that it has {:#x} bytes, its directory {:#x}",
            config.size, config.directory.size
        );
        return Err(PlaceError::Image(text));
    }
    let place = image.file_place(config.hot_patch_field(image.machine));
    let place = place.filter(|held| held.len() >= 4);
    place.map(|held| held.start).ok_or_else(|| {
        let text = "the load configuration is not in initialised data";
        PlaceError::Image(text.to_owned())
    })
}
