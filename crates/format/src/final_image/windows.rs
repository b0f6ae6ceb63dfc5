//! Windows images: what a final image says of itself, in a section of theirs.
//!
//! ```text
//! digest, 32 bytes │ length, 4 bytes │ manifest
//! ```

use std::ops::Range;

use invivo_image::pe::{PeImage, checksum, directory, section_flags};
use invivo_patch::Hex;

use super::{FinalError, Manifest};
use crate::digest;
use crate::section::{self, Section};

/// The section's name.
pub const SECTION: &str = ".invivo";
/// Bytes before the manifest.
const HEAD: usize = digest::SIZE + 4;

/// Writes a final image: `image`, a Windows image that was patched on disk, with what `manifest`
/// says. The same input gives the same bytes.
///
/// # Errors
/// When the image is a final image already, or has no room for a section.
pub fn write_windows(image: &PeImage, manifest: &Manifest) -> Result<Vec<u8>, FinalError> {
    if image.sections.iter().any(|s| s.name == SECTION) {
        return Err(FinalError::Unfit("it is a final image already"));
    }
    let json = serde_json::to_vec(manifest);
    let json = json.map_err(|error| FinalError::Broken(format!("manifest: {error}")))?;
    let unfit = |text: String| FinalError::UnfitImage(text);
    let length = u32::try_from(json.len()).map_err(|_| unfit("too much is said".to_owned()))?;
    let mut contents = vec![0; digest::SIZE];
    contents.extend(length.to_le_bytes());
    contents.extend(json);
    let mut name = [0; 8];
    name[..SECTION.len()].copy_from_slice(SECTION.as_bytes());
    // Nobody needs it in memory.
    let flags = section_flags::INITIALIZED_DATA | section_flags::READ | section_flags::DISCARDABLE;
    let new = Section::new(name, flags, contents).map_err(unfit)?;
    let grown = section::append(image, &[new]).map_err(unfit)?;
    let start = grown.places[0].1 as usize;
    let (mut file, place) = (grown.file, start..start + digest::SIZE);
    let digest = digest_of(&file, image, &place).expect("the place is in the file");
    section::bytes_of(&mut file)[place].copy_from_slice(&digest.0);
    Ok(section::finish(image, file).to_vec())
}

/// The digest of the file with its checksum as zeros.
///
/// Whoever signs it afterwards puts certificates at its end and says in the headers where: neither counts,
/// as for the signature itself.
fn digest_of(file: &[u8], image: &PeImage, place: &Range<usize>) -> Option<Hex> {
    let signed = section::certificates(image).ok()?;
    let end = signed.map_or(file.len(), |certificates| certificates.start);
    let mut file = file.get(..end)?.to_vec();
    let places = image.header_places();
    file.get_mut(places.checksum..places.checksum + 4)?.fill(0);
    if image.directories.len() > directory::SECURITY {
        let security = places.directories + 8 * directory::SECURITY;
        file.get_mut(security..security + 8)?.fill(0);
    }
    digest::of(&file, place)
}

/// The manifest of a file that begins as a Windows image does; its digest and checksum are right.
pub(super) fn manifest(file: &[u8]) -> Result<&[u8], FinalError> {
    let image = PeImage::parse(file.into());
    let image = image.map_err(|error| FinalError::NotFinal(error.to_string()))?;
    let section = image.sections.iter().find(|s| s.name == SECTION);
    let Some(section) = section else {
        return Err(FinalError::NotFinal(format!("it has no section {SECTION}")));
    };
    let broken = || FinalError::Broken(format!("section {SECTION} is too short"));
    let start = section.file_start().ok_or_else(broken)?;
    let rest = file.get(start..).ok_or_else(broken)?;
    let (head, rest) = rest.split_first_chunk::<HEAD>().ok_or_else(broken)?;
    let place = start..start + digest::SIZE;
    section::certificates(&image).map_err(FinalError::Broken)?;
    let expected = digest_of(file, &image, &place).ok_or_else(broken)?;
    let found = Hex(head[..digest::SIZE].to_vec());
    if expected != found {
        return Err(FinalError::Damaged { expected, found });
    }
    if image.checksum != checksum(file, image.header_places().checksum) {
        return Err(FinalError::Broken("its checksum is not right".to_owned()));
    }
    told(head, rest).ok_or_else(broken)
}

/// What the section holds, as far as it stands there.
pub(super) fn told_in(section: &[u8]) -> Option<&[u8]> {
    let (head, rest) = section.split_first_chunk::<HEAD>()?;
    told(head, rest)
}

fn told<'f>(head: &[u8; HEAD], rest: &'f [u8]) -> Option<&'f [u8]> {
    let mut length = [0; 4];
    length.copy_from_slice(&head[digest::SIZE..]);
    rest.get(..u32::from_le_bytes(length) as usize)
}
