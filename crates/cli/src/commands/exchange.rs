//! `invivo install` and `invivo uninstall`

use invivo_file::FileError;
use invivo_format::final_image::Manifest;
use invivo_image::pe::PeImage;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Install, Uninstall};
use crate::failure::{Failure, NOT_NOW, PERMISSION, REFUSED, USAGE};
use crate::images::read_file;
use crate::output::Output;
use crate::patch_file::final_of;

/// `install --json` and `uninstall --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Exchanged {
    schema: &'static str,
    /// The file.
    file: String,
    /// `installed`, `installed already`, or `uninstalled`.
    state: &'static str,
    name: String,
    labels: Vec<String>,
    /// Where the old file is while the final image has its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    /// Other names (hard links) that lead to the old file still.
    other_names: u64,
    /// True if set-user-ID, set-group-ID or capabilities were taken from the old file: the new one has
    /// them, and gives them back.
    rights_taken: bool,
}

impl Exchanged {
    fn new(file: &std::path::Path, state: &'static str, manifest: Manifest) -> Exchanged {
        Exchanged {
            schema: "invivo.exchange/1",
            file: file.display().to_string(),
            state,
            name: manifest.identity.name,
            labels: manifest.identity.labels,
            base: None,
            other_names: 0,
            rights_taken: false,
        }
    }
}

pub(crate) fn install(install: &Install, output: &Output) -> Result<u8, Failure> {
    let bytes = read_file(&install.image)?;
    let found =
        final_of(&install.image, &bytes)?.ok_or_else(|| not_final(&install.image, &bytes))?;
    let live = found.patch.is_some();
    let busy = output.busy("exchanging");
    let done = invivo_file::install(&install.file, &bytes, &found.manifest)?;
    drop(busy);
    let told = Exchanged {
        base: Some(done.base.display().to_string()),
        other_names: done.other_names,
        rights_taken: done.rights_taken,
        ..Exchanged::new(
            &done.path,
            if done.changed {
                "installed"
            } else {
                "installed already"
            },
            found.manifest,
        )
    };
    output.data(&told, || {
        if !done.changed {
            anstream::println!("{}: is {} already", told.file, told.name);
            return;
        }
        anstream::println!(
            "{}: is {} now; what starts next is fixed",
            told.file,
            told.name
        );
        anstream::println!("the old file is {}", done.base.display());
        if told.rights_taken {
            anstream::println!(
                "until it is back, the old file has no set-user-ID, set-group-ID or capabilities"
            );
        }
        if told.other_names > 0 {
            let names = told.other_names;
            anstream::println!("{names} other names (hard links) lead to the old file still");
        }
        let image = install.image.display();
        if live {
            anstream::println!("what runs goes on with old code until: invivo apply {image} --all");
        } else if PeImage::is_pe(&bytes) {
            anstream::println!("what runs goes on with old code until it is started again");
        } else {
            anstream::println!("what runs goes on with old code; see: invivo status {image}");
        }
    })?;
    Ok(0)
}

pub(crate) fn uninstall(uninstall: &Uninstall, output: &Output) -> Result<u8, Failure> {
    let done = invivo_file::uninstall(&uninstall.file)?;
    let told = Exchanged::new(&done.path, "uninstalled", done.manifest);
    output.data(&told, || {
        anstream::println!(
            "{}: is the old file again, without {}",
            told.file,
            told.name
        );
    })?;
    Ok(0)
}

fn not_final(path: &std::path::Path, bytes: &[u8]) -> Failure {
    let failure = Failure::new(REFUSED, format!("{}: not a final image", path.display()));
    failure.hint(match PeImage::is_pe(bytes) {
        true => "make a cold patch of it first: invivo build BASE FIXED --format cold -o FILE, where FIXED is the fixed build or a patch module (.hotp1)",
        false => "give a file that was written by: invivo build BASE FIXED --format final -o FILE",
    })
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let text = error.to_string();
        if error.is_permission() {
            return Failure::new(PERMISSION, text).hint(
                "run it as the user that owns the file and its folder, or as root: sudo invivo …; \
                 a file that nobody may change is freed with: chattr -i FILE (or -a)",
            );
        }
        if error.is_passing() {
            return Failure::new(NOT_NOW, text).hint("make room if it is short, then try again");
        }
        if error.is_read_only() {
            return Failure::new(USAGE, text)
                .hint("mount its file system for writing first: mount -o remount,rw …");
        }
        if error.is_mounted() {
            return Failure::new(USAGE, text).hint(
                "something is mounted on the file: exchange the one that is mounted, or unmount it",
            );
        }
        match error {
            FileError::System { .. } | FileError::NotAFile(_) => Failure::new(USAGE, text),
            FileError::OtherFile { .. } => Failure::new(REFUSED, text)
                .hint("build the final image for the very file that is installed"),
            FileError::NoBase { .. } => {
                Failure::new(REFUSED, text).hint("install the package that the file is from again")
            }
            FileError::Sealed { by, .. } => Failure::new(REFUSED, text).hint(match by {
                "fs-verity" => "replace it by a copy of itself first, then try again; and enable it for the new file".to_owned(),
                by => format!("take it off with: setfattr -x {by} FILE; then try again, and sign the new file (evmctl)"),
            }),
            FileError::InTheWay(_) => {
                Failure::new(REFUSED, text).hint("move it away, then try again")
            }
            _ => Failure::new(REFUSED, text),
        }
    }
}
