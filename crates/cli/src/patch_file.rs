//! Patches from and to files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use invivo_format::elf;
use invivo_format::final_image::{self, Final, FinalError};
use invivo_format::livepatch::{Read, is_payload, read};
use invivo_image::pe::PeImage;
use invivo_patch::{Hex, Patch};
use invivo_trust::split;
use sha2::{Digest as _, Sha256};

use crate::failure::{Failure, NOT_NOW, REFUSED, TRUST, USAGE};
use crate::images::read_file;

/// A patch and the SHA-256 of its file, by which targets know it.
pub(crate) struct PatchFile {
    pub(crate) patch: Patch,
    pub(crate) id: Hex,
    pub(crate) size: usize,
}

/// A payload for Xen.
pub(crate) struct PayloadFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) read: Read,
}

/// The payload for Xen that these bytes are, if they are one; an error if it has no meaning.
pub(crate) fn payload_of(path: &Path, bytes: &Arc<[u8]>) -> Result<Option<PayloadFile>, Failure> {
    if !is_payload(bytes) {
        return Ok(None);
    }
    let file = path.display();
    let read = read(bytes).map_err(|error| {
        Failure::new(REFUSED, format!("{file}: {error}")).hint(format!(
            "see all that is wrong with it: invivo check {file}"
        ))
    })?;
    Ok(Some(PayloadFile {
        path: path.to_owned(),
        bytes: Arc::clone(bytes),
        read,
    }))
}

/// Reads a patch.
pub(crate) fn load(path: &Path) -> Result<PatchFile, Failure> {
    parse(path, &read_file(path)?)
}

/// Refuses what concerns processes and files of Windows.
pub(crate) fn not_of_windows(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if !PeImage::is_pe(bytes) {
        return Ok(());
    }
    let file = path.display();
    let text = format!("{file}: is an image of Windows, which no process here runs");
    Err(Failure::new(REFUSED, text).hint(format!(
        "ask invivo.exe on Windows (apply, status, install); what the file is, tells here: invivo \
         inspect {file}"
    )))
}

/// A file without the signature that may be behind it. Who trusts signers asks before (see
/// `commands::trust::require`).
fn own_bytes<'b>(path: &Path, bytes: &'b [u8]) -> Result<&'b [u8], Failure> {
    let split = split(bytes).map_err(|error| {
        Failure::new(TRUST, format!("{}: {error}", path.display()))
            .hint("get the file again from where it was made")
    })?;
    Ok(split.map_or(bytes, |(own, _)| own))
}

/// The patch that these bytes are; `path` is for messages.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<PatchFile, Failure> {
    not_of_windows(path, bytes)?;
    let bytes = own_bytes(path, bytes)?;
    let bytes = match final_of(path, bytes)? {
        Some(found) => found.patch.ok_or_else(|| {
            let text = format!("{}: has no patch for running processes", path.display());
            Failure::new(REFUSED, text)
                .hint("see why, and what it is, with: invivo diff BASE FIXED; what starts after invivo install is fixed")
        })?,
        None => bytes,
    };
    let patch = elf::read(bytes).map_err(|error| {
        let text = format!("{}: {error}", path.display());
        match error {
            elf::PatchError::NotAPatch(_) if is_payload(bytes) => {
                let text = format!(
                    "{}: is a payload for Xen, not for processes",
                    path.display()
                );
                Failure::new(REFUSED, text)
                    .hint("make it live in the hypervisor below with: invivo apply PAYLOAD")
            }
            elf::PatchError::NotAPatch(_) => Failure::new(REFUSED, text)
                .hint("give a file that was written by: invivo build BASE FIXED -o PATCH"),
            elf::PatchError::Damaged { .. } => {
                Failure::new(REFUSED, text).hint("copy the file again, or build the patch again")
            }
            _ => Failure::new(REFUSED, text),
        }
    })?;
    Ok(PatchFile {
        patch,
        id: Hex(Sha256::digest(bytes).to_vec()),
        size: bytes.len(),
    })
}

/// The final image that these bytes are, if they are one; an error if it is damaged.
pub(crate) fn final_of<'b>(path: &Path, bytes: &'b [u8]) -> Result<Option<Final<'b>>, Failure> {
    match final_image::read(bytes) {
        Ok(found) => Ok(Some(found)),
        Err(FinalError::NotFinal(_)) => Ok(None),
        Err(error) => {
            let failure = Failure::new(REFUSED, format!("{}: {error}", path.display()));
            Err(match error {
                FinalError::Damaged { .. } => {
                    failure.hint("copy the file again, or build it again")
                }
                _ => failure,
            })
        }
    }
}

/// True unless the file is something else than a patch; it may be damaged.
pub(crate) fn is_patch(bytes: &[u8]) -> bool {
    let own = split(bytes).ok().flatten().map_or(bytes, |(own, _)| own);
    !matches!(elf::read(own), Err(elf::PatchError::NotAPatch(_)))
}

/// Writes `bytes` to `path`: whole, or not at all.
pub(crate) fn store(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let fail = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => NOT_NOW,
            _ => USAGE,
        };
        Failure::new(code, format!("cannot write {}: {error}", path.display()))
            .hint("choose a place with room that may be written, with -o PATCH")
    };
    let special = path.metadata().is_ok_and(|data| !data.is_file());
    if special {
        return std::fs::write(path, bytes).map_err(fail);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = (|| {
        let mut file = std::fs::File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    written.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        fail(error)
    })
}
