//! How final images stand in all processes.

use invivo_apply::hpat::{OnDisk, standing};
use invivo_format::hotp1;
use invivo_format::hpat::HotPatch;
use invivo_image::pe::PeImage;
use serde::Serialize;

use super::processes::{look_at_each, tell_unseen};
use super::{image, legacy, metadata, whole_path};
use crate::arguments::Status;
use crate::failure::{Failure, REFUSED};
use crate::looked::{Looked, Unseen};
use crate::output::Output;

#[derive(Debug, Serialize)]
struct Overview {
    schema: &'static str,
    sequence: u32,
    processes: Vec<Concerned>,
    /// Who could not be looked at.
    unseen: Vec<Unseen>,
}

#[derive(Debug, Serialize)]
struct Concerned {
    pid: u32,
    exe: String,
    base: String,
    /// Of the live patch; 0 where none is.
    sequence: u32,
    /// True if that is the patch that was asked about, and not another one with the same number.
    patched: bool,
    /// What has the base's name now, and starts next.
    on_disk: OnDisk,
    /// What that calls itself, where it was patched on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_disk_name: Option<String>,
}

/// Processes that have the base of a final image loaded, and another patch than it, or none.
pub(super) fn modern(file: &PeImage, patch: &HotPatch) -> Result<Looked<u32>, Failure> {
    let other = |one: Concerned| (!one.patched).then_some(one.pid);
    Ok(concerned(file, patch)?.map(other))
}

/// Processes that have the base of a final image loaded.
fn concerned(file: &PeImage, patch: &HotPatch) -> Result<Looked<Concerned>, Failure> {
    let [of] = &patch.bases[..] else {
        return Err(Failure::new(
            REFUSED,
            "A06: the patch is not for exactly one base",
        ));
    };
    let of = (of.time_stamp, of.checksum);
    look_at_each(&|pid, exe, process| {
        let all = standing(process, file, of)?.into_iter();
        Ok(all
            .map(|one| Concerned {
                pid,
                exe: exe.to_owned(),
                base: one.path,
                sequence: one.sequence,
                patched: one.is_live,
                on_disk: one.on_disk,
                on_disk_name: one.on_disk_name,
            })
            .collect())
    })
}

pub(super) fn status(status: &Status, output: &Output) -> Result<u8, Failure> {
    let file = image(&status.patch)?;
    if hotp1::is_legacy(&file) {
        return legacy::status(&whole_path(&status.patch)?, output);
    }
    let patch = metadata(&status.patch)?;
    let looked = concerned(&file, &patch)?;
    let overview = Overview {
        schema: "invivo.windows-status/1",
        sequence: patch.sequence,
        processes: looked.found,
        unseen: looked.unseen,
    };
    output.data(&overview, || {
        for one in &overview.processes {
            let state = match one.sequence {
                0 => "not patched".to_owned(),
                _ if one.patched => "patched".to_owned(),
                live if live == overview.sequence => format!("another patch {live} is live"),
                live => format!("patch {live} is live"),
            };
            let disk = legacy::told_on_disk(one.on_disk, one.on_disk_name.as_deref());
            let (pid, exe, base) = (one.pid, &one.exe, &one.base);
            anstream::println!("{pid} {exe}: {base}: running: {state}; on disk: {disk}");
        }
        if overview.processes.is_empty() {
            anstream::println!("no process has the base loaded");
        }
        tell_unseen(&overview.unseen);
    })?;
    Ok(0)
}
