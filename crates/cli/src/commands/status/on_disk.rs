//! What a process would run if it were started again.

use std::path::Path;

use invivo_apply::Target;
use invivo_file::{Carried, Disk, FinalFile, OnDisk};
use invivo_linux::Process;

use super::wanted::Wanted;

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
            let what = match is_of(&installed, about) {
                true => "fixed",
                false => "other",
            };
            (what, Some(installed.manifest.identity.name.clone()))
        }
    })
}

/// True if the final image holds the fix that was asked about. The build that it is a copy of tells that, or
/// what it carries for running processes, whatever either of them is called and however either is laid
/// out. Where neither is known of both it is not known to be the same fix: a name is anybody's.
fn is_of(installed: &FinalFile, about: &Wanted) -> bool {
    let FinalFile { manifest, carried } = installed;
    if let Some(asked) = &about.installed_as {
        let (asked, found) = (&asked.fixed, &manifest.fixed);
        let same_id = asked.build_id.is_some() && asked.build_id == found.build_id;
        if asked.sha256 == found.sha256 || same_id {
            return true;
        }
    }
    match (&about.patch, carried) {
        (Some(asked), Carried::Patch(carried)) => carried.is_same_fix(&asked.patch),
        (Some(_), Carried::Nothing | Carried::Unreadable) => false,
        // Any fix was asked about; but of a final image without a patch that one.
        (None, _) => about.installed_as.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use invivo_format::final_image::{FileIdentity, Manifest};
    use invivo_image::{LinkAddr, Machine};
    use invivo_patch::{Contents, Hex, Identity, Order, Patch, SectionKind, TargetImage};

    use super::*;
    use crate::patch_file::PatchFile;

    fn identity() -> Identity {
        Identity {
            name: "fix".to_owned(),
            ..Identity::default()
        }
    }

    /// A final image of the build with this number.
    fn manifest(build: u8, id: Option<u8>) -> Manifest {
        let file = |build: u8, id: Option<u8>| FileIdentity {
            file_name: "server".to_owned(),
            build_id: id.map(|id| Hex(vec![id; 20])),
            sha256: Hex(vec![build; 32]),
            size: 1,
        };
        Manifest::new(identity(), file(0, Some(0)), file(build, id))
    }

    /// A patch with this as its code.
    fn patch(code: u8) -> Patch {
        Patch {
            identity: identity(),
            target: TargetImage {
                file_name: "server".to_owned(),
                build_id: Hex(vec![0; 20]),
                machine: Machine::X86_64,
                base: LinkAddr(0),
            },
            order: Order {
                sequence: 1,
                quiescent: false,
                apart: Vec::new(),
                unshared: Vec::new(),
            },
            judgements: Vec::new(),
            redirects: Vec::new(),
            checks: Vec::new(),
            callouts: Vec::new(),
            contents: Contents {
                sections: vec![invivo_patch::Section {
                    name: ".text.f".to_owned(),
                    kind: SectionKind::Text,
                    align: 1,
                    bytes: vec![code],
                    relocations: Vec::new(),
                }],
                symbols: Vec::new(),
            },
        }
    }

    /// All are called `fix`, and that alone tells nothing.
    #[test]
    fn a_fix_is_known_by_its_build_or_its_patch() {
        let carried = |code: u8| Carried::Patch(Box::new(patch(code)));
        for (case, asked, patched, manifest_there, carried, wanted) in [
            ("the same patch", None, Some(1), (1, None), carried(1), true),
            ("another patch", None, Some(2), (1, None), carried(1), false),
            (
                "a patch, and an image without one",
                None,
                Some(1),
                (1, Some(1)),
                Carried::Nothing,
                false,
            ),
            (
                "a patch, and one that nobody can read",
                None,
                Some(1),
                (1, Some(1)),
                Carried::Unreadable,
                false,
            ),
            (
                "the same build without a patch",
                Some((1, None)),
                None,
                (1, None),
                Carried::Nothing,
                true,
            ),
            (
                "the same build, stripped",
                Some((2, Some(1))),
                None,
                (1, Some(1)),
                Carried::Nothing,
                true,
            ),
            (
                "another build without a patch",
                Some((2, Some(2))),
                None,
                (1, Some(1)),
                Carried::Nothing,
                false,
            ),
            (
                "builds without an id",
                Some((2, None)),
                None,
                (1, None),
                Carried::Nothing,
                false,
            ),
            ("any fix", None, None, (1, None), Carried::Nothing, true),
        ] {
            let about = Wanted {
                build_id: Hex(vec![0; 20]),
                patch: patched.map(|code| PatchFile {
                    patch: patch(code),
                    id: Hex(vec![code; 32]),
                    size: 1,
                }),
                installed_as: asked.map(|(build, id)| manifest(build, id)),
            };
            let (build, id) = manifest_there;
            let manifest = manifest(build, id);
            let installed = FinalFile { manifest, carried };
            assert_eq!(is_of(&installed, &about), wanted, "{case}");
        }
    }
}
