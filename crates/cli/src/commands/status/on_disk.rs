//! What a process would run if it were started again.

use std::path::Path;

use invivo_apply::Target;
use invivo_file::{Disk, FinalFile, OnDisk};
use invivo_linux::Process;

use super::wanted::Wanted;
use crate::patch_file::parse;

/// What has the name now from which a process has mapped the image, and the name of the fix whose final
/// image it is.
pub(super) fn of(
    process: &Process,
    about: &Wanted,
    disk: &mut Disk,
) -> Option<(&'static str, Option<String>)> {
    let modules = process.modules().ok()?;
    let module = modules
        .iter()
        .find(|module| module.build_id == about.build_id.0)?;
    let path: &Path = module.path.as_ref();
    Some(match disk.look(&process.root(), path, &about.build_id) {
        OnDisk::Same => ("same", None),
        OnDisk::Other => ("other", None),
        OnDisk::Gone => ("gone", None),
        OnDisk::Final(installed) => {
            let what = match is_of(&installed, about, path) {
                true => "fixed",
                false => "other",
            };
            (what, Some(installed.manifest.identity.name))
        }
    })
}

/// True if the final image holds the fix that was asked about. What it carries for running processes
/// tells that, whatever either of them is called and however either is laid out; where one has nothing of
/// the kind, the build that it is a copy of, or the name. What it carries and nobody can read tells nothing.
fn is_of(installed: &FinalFile, about: &Wanted, path: &Path) -> bool {
    let FinalFile { manifest, patch } = installed;
    if let Some(asked) = &about.installed_as
        && asked.fixed.sha256 == manifest.fixed.sha256
    {
        return true;
    }
    match (&about.patch, patch) {
        (Some(asked), Some(carried)) => {
            parse(path, carried).is_ok_and(|carried| carried.patch.is_same_fix(&asked.patch))
        }
        _ if about.installed_as.is_some() => false,
        (Some(asked), None) => asked.patch.identity.name == manifest.identity.name,
        (None, _) => true,
    }
}
