//! File → manifest. The file is hostile: its digest is checked before it is believed.

use invivo_image::pe::PeImage;
use invivo_patch::Hex;
use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader, SectionTable};
use serde::Deserialize;

use super::{FinalError, MANIFEST, Manifest, PATCH, VERSION, windows};
use crate::digest;

type Elf = FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// A final image that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final<'f> {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The patch for running processes, as a file of its own.
    pub patch: Option<&'f [u8]>,
}

/// Only the version, to tell a newer form from a broken one.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

/// Reads what a final image says of itself.
///
/// # Errors
/// When `file` is none, or was changed since it was made.
pub fn read(file: &[u8]) -> Result<Final<'_>, FinalError> {
    if PeImage::is_pe(file) {
        let manifest = parse(windows::manifest(file)?)?;
        return Ok(Final {
            manifest,
            patch: None,
        });
    }
    let header = Elf::parse(file).map_err(|error| FinalError::NotFinal(error.to_string()))?;
    let sections = header.sections(LE, file);
    let sections = sections.map_err(|error| FinalError::NotFinal(error.to_string()))?;
    let manifest = contents(&sections, file, MANIFEST)?;
    let manifest =
        manifest.ok_or_else(|| FinalError::NotFinal(format!("it has no section {MANIFEST}")))?;
    let digest = sections.section_by_name(LE, digest::NAME.as_bytes());
    let place = digest.and_then(|(_, header)| digest::place(file, header.file_range(LE)?));
    let place =
        place.ok_or_else(|| FinalError::Broken(format!("it has no section {}", digest::NAME)))?;
    let expected = digest::of(file, &place).expect("the place is in the file");
    let found = Hex(file[place].to_vec());
    if expected != found {
        return Err(FinalError::Damaged { expected, found });
    }
    Ok(Final {
        manifest: parse(manifest)?,
        patch: contents(&sections, file, PATCH)?,
    })
}

/// Reads what a Windows image that is loaded says of itself in its section
/// [`WINDOWS_SECTION`](super::WINDOWS_SECTION). The digest is not held against anything: the loader
/// changed other bytes of the image.
///
/// # Errors
/// When the section is too short, or holds something else.
pub fn read_loaded(section: &[u8]) -> Result<Manifest, FinalError> {
    let told = windows::told_in(section);
    parse(told.ok_or_else(|| FinalError::Broken("the section is too short".to_owned()))?)
}

fn parse(manifest: &[u8]) -> Result<Manifest, FinalError> {
    let json = |error: serde_json::Error| FinalError::Broken(format!("manifest: {error}"));
    let form: Form = serde_json::from_slice(manifest).map_err(json)?;
    if form.version != VERSION {
        return Err(FinalError::Version(form.version));
    }
    serde_json::from_slice(manifest).map_err(json)
}

fn contents<'f>(
    sections: &SectionTable<'f, Elf>,
    file: &'f [u8],
    name: &str,
) -> Result<Option<&'f [u8]>, FinalError> {
    let section = sections.section_by_name(LE, name.as_bytes());
    let bytes = section.map(|(_, header)| header.data(LE, file));
    bytes
        .transpose()
        .map_err(|error| FinalError::Broken(format!("section {name}: {error}")))
}
