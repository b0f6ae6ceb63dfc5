//! The linker Wild, which Debian does not have: built from its source package below `target/tools`.

use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::process;
use crate::workspace::Workspace;

/// The last version that the oldest Rust compiler builds which builds the project, too.
const VERSION: &str = "0.8.0";
const LIMIT: Duration = Duration::from_secs(1800);

/// Makes sure that it is there, in a folder in which compilers find it as their linker (`-B`).
pub(crate) fn ensure(workspace: &Workspace) -> Result<()> {
    let tools = workspace.target.join("tools");
    let folder = tools.join("wild");
    if folder.join("ld").exists() {
        return Ok(());
    }
    eprintln!("building: the linker Wild {VERSION}, below target/tools only");
    let mut cargo = workspace.cargo();
    cargo.args(["install", "--quiet", "--locked", "--version", VERSION]);
    cargo.arg("--root").arg(&tools).arg("wild-linker");
    // Elsewhere than the project's own, whose flags and profiles may be others.
    cargo.env("CARGO_TARGET_DIR", tools.join("build"));
    // It links small programs only: what makes it fast takes longer than all that it saves.
    for (setting, value) in [
        ("OPT_LEVEL", "0"),
        ("LTO", "off"),
        ("CODEGEN_UNITS", "16"),
        ("DEBUG", "0"),
    ] {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
    }
    ensure!(
        process::succeeds(&mut cargo, LIMIT)?,
        "the linker Wild does not build"
    );
    std::fs::create_dir_all(&folder)?;
    symlink("../bin/wild", folder.join("ld"))?;
    // What it was made from is large and of no use any more.
    std::fs::remove_dir_all(tools.join("build"))?;
    Ok(())
}
