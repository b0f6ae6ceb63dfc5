//! The hypervisors, and the kernel that drives them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

/// The versions of Xen that tests boot.
pub const VERSIONS: [&str; 2] = ["4.17", "4.20"];

/// The version of which tests have the source, too.
pub const SOURCE: &str = "4.17";

/// A hypervisor's files.
#[derive(Clone, Debug)]
pub struct Hypervisor {
    /// Such as `4.17`.
    pub version: String,
    folder: PathBuf,
}

impl Hypervisor {
    /// The hypervisor of a version; it is fetched if it is not there.
    ///
    /// # Errors
    ///
    /// If it cannot be fetched.
    pub fn get(version: &str) -> Result<Hypervisor> {
        static FETCH: Mutex<()> = Mutex::new(());
        let folder = target().join("xen").join(version);
        let _one = FETCH.lock().ok().context("another test failed to fetch")?;
        let has_source = version != SOURCE || folder.join("source").is_dir();
        if !folder.is_dir() || !has_source || !target().join("xen/linux").is_dir() {
            let mut chore = cargo();
            chore.current_dir(root()).args(["xtask", "xen"]);
            run(&mut chore)?;
        }
        if !folder.is_dir() {
            bail!("there is no {}", folder.display());
        }
        Ok(Hypervisor {
            version: version.to_owned(),
            folder,
        })
    }

    /// One that was built by hand: a folder with `xen` and `xen-syms`.
    #[must_use]
    pub fn in_folder(name: &str, folder: &Path) -> Hypervisor {
        Hypervisor {
            version: name.to_owned(),
            folder: folder.to_owned(),
        }
    }

    /// Both of them.
    ///
    /// # Errors
    ///
    /// If one cannot be fetched.
    pub fn all() -> Result<Vec<Hypervisor>> {
        VERSIONS.into_iter().map(Hypervisor::get).collect()
    }

    /// The bootable file.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.join("xen")
    }

    /// The file with symbols and debug data, `xen-syms`.
    #[must_use]
    pub fn symbols(&self) -> PathBuf {
        self.folder.join("xen-syms")
    }

    /// The list of symbols, spelled as the hypervisor's own table has them.
    #[must_use]
    pub fn map(&self) -> PathBuf {
        self.folder.join("xen-syms.map")
    }

    /// The hypervisor for UEFI, which has another build id.
    #[must_use]
    pub fn efi(&self) -> PathBuf {
        self.folder.join("xen.efi")
    }

    /// The source that it was made of, with the headers that its build makes; of one version only.
    #[must_use]
    pub fn source(&self) -> Option<PathBuf> {
        let folder = self.folder.join("source");
        (self.version == SOURCE).then_some(folder)
    }

    /// The build id of the bootable file.
    ///
    /// # Errors
    ///
    /// If the file has none.
    pub fn build_id(&self) -> Result<Vec<u8>> {
        build_id(&std::fs::read(self.symbols())?)
    }
}

/// The build id of a hypervisor's symbol file, or of a payload.
///
/// # Errors
///
/// If it has none.
pub fn build_id(file: &[u8]) -> Result<Vec<u8>> {
    let file = object::File::parse(file)?;
    if let Some(id) = file.build_id()? {
        return Ok(id.to_vec());
    }
    // A relocatable file has no program headers; its note has a header of 16 bytes.
    let section = file.section_by_name(".note.gnu.build-id");
    let note = section.context("no build id")?.data()?;
    Ok(note.get(16..).context("a short build id")?.to_vec())
}

/// The kernel of the tests, built once in each process that runs tests.
pub(crate) fn dom0() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_dom0().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build_dom0() -> Result<PathBuf> {
    let target = target().join("xen/dom0");
    let mut build = cargo();
    build
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("dom0"))
        .args(["build", "--quiet", "--release", "--locked", "--target-dir"])
        .arg(&target)
        // Its own settings hold, whatever those of the tests are.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    run(&mut build)?;
    Ok(target.join("x86_64-unknown-linux-gnu/release/xen-tests-dom0"))
}

pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a program to its end; what it says is told only if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(chosen) => root().join(chosen),
        None => root().join("target"),
    }
}
