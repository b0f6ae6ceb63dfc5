//! The live scenarios as an ordinary user.
//!
//! Root may do what others may not, so a run as root alone would hide every
//! missing permission. The workspace may lie where an ordinary user cannot look
//! (below /root, say), so programs and fixtures are copied to where everybody can
//! read them.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{counted, toolchain};
use crate::process;
use crate::tally::Tally;
use crate::workspace::Workspace;

/// The user and the group that own nothing.
const NOBODY: u32 = 65534;

/// Runs every program of the live scenarios as that user.
pub(crate) fn run(workspace: &Workspace) -> Result<Tally> {
    let place = std::env::temp_dir().join(format!("invivo-ordinary-{}", std::process::id()));
    std::fs::create_dir(&place).with_context(|| format!("cannot create {}", place.display()))?;
    open(&place)?;
    let copy = place.join("live");
    copy_folder(&workspace.root.join("tests/live"), &copy)?;
    let home = place.join("home");
    std::fs::create_dir(&home)?;
    chown(&home, Some(NOBODY), Some(NOBODY))?;
    let invivo = place.join("invivo");
    std::fs::copy(workspace.invivo(), &invivo).context("cannot copy invivo")?;
    open(&invivo)?;

    // What was compiled for root is the same for everybody.
    let made = workspace.live_programs();
    let programs_made = place.join("programs");
    if made.is_dir() {
        copy_folder(&made, &programs_made)?;
    }

    let mut path = toolchain::reachable(&place)?.into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());

    let mut tally = Tally::default();
    for (number, program) in programs(workspace)?.iter().enumerate() {
        let reachable = place.join(format!("tests-{number}"));
        std::fs::copy(program, &reachable)
            .with_context(|| format!("cannot copy {}", program.display()))?;
        open(&reachable)?;
        let mut command = Command::new(&reachable);
        command
            .current_dir(&copy)
            .env("INVIVO_LIVE_FIXTURES", copy.join("fixtures"))
            .uid(NOBODY)
            .gid(NOBODY)
            .env("HOME", &home)
            .env("TMPDIR", &home)
            .env("PATH", &path)
            .env("INVIVO_LIVE_PROGRAMS", &programs_made)
            .env("INVIVO", &invivo);
        tally.add(counted(&mut command)?);
    }
    if tally.failed == 0 {
        std::fs::remove_dir_all(&place)
            .with_context(|| format!("cannot remove {}", place.display()))?;
    } else {
        // What a failed scenario left is in its home; the rest is only in the way.
        for part in ["live", "toolchain", "programs"] {
            let _ = std::fs::remove_dir_all(place.join(part));
        }
        println!("kept: {}", place.display());
    }
    Ok(tally)
}

/// Lets everybody read and use a file or folder.
pub(super) fn open(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))
        .with_context(|| format!("cannot open {} to everybody", path.display()))
}

/// Copies a folder, so that everybody can read it.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    open(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else if kind.is_file() {
            std::fs::copy(&source, &target)
                .with_context(|| format!("cannot copy {}", source.display()))?;
            open(&target)?;
        }
    }
    Ok(())
}

/// The programs of the live scenarios, which the tests before have built.
fn programs(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut cargo = workspace.cargo();
    // Of all packages, as before: of one alone other features are chosen, and all is built anew.
    cargo.args([
        "test",
        "--workspace",
        "--no-run",
        "--message-format",
        "json",
    ]);
    let output = process::capture(&mut cargo, Duration::from_secs(900))?;
    if !output.status.success() {
        bail!("the live scenarios do not build:\n{}", output.stderr);
    }
    let own = workspace.root.join("tests/live/Cargo.toml");
    let messages = output
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs: Vec<PathBuf> = messages
        .filter(|message| message["profile"]["test"] == true)
        .filter(|message| message["manifest_path"].as_str().map(Path::new) == Some(&own))
        .filter_map(|message| Some(message["executable"].as_str()?.into()))
        .collect();
    if programs.is_empty() {
        bail!("there are no live scenarios");
    }
    Ok(programs)
}
