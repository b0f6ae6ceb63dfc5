//! Finding the program under test.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};

use crate::run::run;

/// The program `invivo`: the one that the variable INVIVO names, else the newer of the workspace's release and debug
/// builds, else it is built.
///
/// # Errors
///
/// When the variable names no file, or the build fails.
pub fn invivo() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow!("{error}"))
}

fn find() -> Result<PathBuf> {
    if let Some(named) = env::var_os("INVIVO") {
        let path = PathBuf::from(named);
        ensure!(
            path.is_file(),
            "INVIVO names {}, which is no file",
            path.display()
        );
        return Ok(path.canonicalize()?);
    }
    if let Some(newest) = built()? {
        return Ok(newest);
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--package", "invivo-cli"])
        .current_dir(workspace());
    cargo.env("CARGO_TARGET_DIR", target_folder()?);
    let ran = run(cargo, Duration::from_secs(1200))?;
    ensure!(
        ran.code == Some(0),
        "cannot build the program invivo\n{}",
        ran.told()
    );
    built()?.context("cargo built no program named invivo")
}

fn built() -> Result<Option<PathBuf>> {
    let target = target_folder()?;
    let age = |path: &PathBuf| {
        path.metadata()
            .and_then(|data| data.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let both = ["release", "debug"].map(|profile| target.join(profile).join("invivo"));
    Ok(both
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(age))
}

fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

// The target folder may be anywhere; the test itself lies in TARGET/PROFILE/deps.
fn target_folder() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let deps = own
        .ancestors()
        .find(|folder| folder.file_name() == Some(OsStr::new("deps")));
    let target = deps.and_then(|deps| deps.ancestors().nth(2));
    Ok(target.map_or_else(|| workspace().join("target"), Path::to_path_buf))
}
