//! A Rust compiler that everybody can reach.
//!
//! Toolchains usually live in the home of the user who installed them, and
//! root's home is closed to others; some live scenarios compile Rust all the
//! same.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;

/// The folder of a `rustc` that an ordinary user can run: the toolchain's own
/// when that is open, else that of a copy below `place`.
pub(super) fn reachable(place: &Path) -> Result<PathBuf> {
    let sysroot = PathBuf::from(ask("sysroot")?);
    if sysroot.ancestors().all(is_open) {
        return Ok(sysroot.join("bin"));
    }
    let copy = place.join("toolchain");
    for folder in ["bin", "lib", "lib/rustlib"] {
        std::fs::create_dir_all(copy.join(folder))?;
        super::ordinary::open(&copy.join(folder))?;
    }
    share(&sysroot.join("bin/rustc"), &copy.join("bin/rustc"))?;
    let host = ask("host-tuple")?;
    share_folder(
        &sysroot.join("lib/rustlib").join(&host),
        &copy.join("lib/rustlib").join(&host),
    )?;
    for entry in std::fs::read_dir(sysroot.join("lib"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            share(&entry.path(), &copy.join("lib").join(entry.file_name()))?;
        }
    }
    Ok(copy.join("bin"))
}

fn ask(what: &str) -> Result<String> {
    let mut command = Command::new("rustc");
    command.args(["--print", what]);
    let output = process::capture(&mut command, Duration::from_secs(60))?;
    if !output.status.success() {
        bail!("rustc does not say its {what}: {}", output.stderr);
    }
    Ok(output.stdout.trim().to_owned())
}

fn is_open(folder: &Path) -> bool {
    std::fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o005 == 0o005)
}

/// Gives a file a second name, or copies it when the file system is another.
fn share(from: &Path, to: &Path) -> Result<()> {
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    std::fs::copy(from, to)
        .with_context(|| format!("cannot copy {}", from.display()))
        .map(|_| ())
}

fn share_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    super::ordinary::open(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            share_folder(&entry.path(), &target)?;
        } else {
            share(&entry.path(), &target)?;
        }
    }
    Ok(())
}
