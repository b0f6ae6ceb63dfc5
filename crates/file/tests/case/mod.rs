//! A file and what it is exchanged for, in a folder of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use invivo_file::{FileError, base_name, install};
use invivo_format::final_image::{FileIdentity, Manifest, write};
use invivo_patch::{Hex, Identity};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// A program in its old form and as a final image.
pub(crate) struct Case {
    pub(crate) folder: TempDir,
    pub(crate) base: Vec<u8>,
    pub(crate) image: Vec<u8>,
    pub(crate) manifest: Manifest,
}

fn sha256(bytes: &[u8]) -> Hex {
    Hex(Sha256::digest(bytes).to_vec())
}

impl Case {
    /// Real programs: two that every system has.
    pub(crate) fn new() -> Case {
        Case::of("/bin/true", "/bin/false")
    }

    pub(crate) fn of(base: &str, fixed: &str) -> Case {
        let base = fs::read(base).expect("every system has it");
        let fixed = fs::read(fixed).expect("every system has it");
        let file = |bytes: &[u8]| FileIdentity {
            file_name: "server".to_owned(),
            build_id: None,
            sha256: sha256(bytes),
            size: bytes.len() as u64,
        };
        let identity = Identity {
            name: "fix".to_owned(),
            labels: Vec::new(),
            creator: "test".to_owned(),
        };
        let manifest = Manifest::new(identity, file(&base), file(&fixed));
        let image = write(&fixed, &manifest, None).expect("it is a program");
        let folder = TempDir::new().expect("a folder for the test");
        let case = Case {
            folder,
            base,
            image,
            manifest,
        };
        fs::write(case.path(), &case.base).expect("the folder can be written");
        fs::set_permissions(case.path(), Permissions::from_mode(0o755)).expect("it is ours");
        case
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    pub(crate) fn hidden(&self) -> PathBuf {
        let name = base_name("server".as_ref(), &self.manifest.base.sha256);
        self.folder.path().join(name)
    }

    pub(crate) fn install(&self) -> Result<invivo_file::Installed, FileError> {
        install(&self.path(), &self.image, &self.manifest)
    }

    pub(crate) fn entries(&self) -> usize {
        fs::read_dir(self.folder.path())
            .expect("it is there")
            .count()
    }
}
