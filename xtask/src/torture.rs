//! The tool killed at random instants, and many rounds of it, beside a server whose
//! clients check every answer.

use std::time::Duration;

use anyhow::Result;

use crate::invivo::Invivo;
use crate::workspace::Workspace;
use crate::{install, process};

/// Nobody waits longer for 10,000 kills.
const LIMIT: Duration = Duration::from_secs(3600);

/// Kills and rounds where no number is given.
pub(crate) const KILLS: &str = "10000";
pub(crate) const ROUNDS: &str = "1000";
/// One takes seconds.
pub(crate) const WINDOWS_KILLS: &str = "500";
/// As many as `cargo xtask test` has time for.
pub(crate) const FEW_KILLS: &str = "2000";
pub(crate) const FEW_ROUNDS: &str = "100";

/// Kills the tool `count` times.
pub(crate) fn kill(workspace: &Workspace, count: &str) -> Result<bool> {
    run(workspace, &["kill", count])
}

/// Goes `rounds` rounds.
pub(crate) fn soak(workspace: &Workspace, rounds: &str) -> Result<bool> {
    run(workspace, &["soak", rounds])
}

/// Goes `rounds` rounds in a process of Windows.
pub(crate) fn windows(workspace: &Workspace, rounds: &str) -> Result<bool> {
    in_wine(
        workspace,
        ["wine", "rounds"],
        ("INVIVO_WINE_ROUNDS", rounds),
    )
}

/// Kills `invivo.exe` `count` times with each kind of patch.
pub(crate) fn windows_kill(workspace: &Workspace, count: &str) -> Result<bool> {
    let test = ["killed_wine", "killed_by_the_clock"];
    in_wine(workspace, test, ("INVIVO_WINE_KILLS", count))
}

fn in_wine(workspace: &Workspace, test: [&str; 2], (name, value): (&str, &str)) -> Result<bool> {
    install::ensure(install::WINDOWS)?;
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--quiet", "--package", "windows-tests", "--test"])
        .args(test)
        .args(["--", "--nocapture"])
        .env(name, value);
    process::succeeds(&mut cargo, LIMIT)
}

fn run(workspace: &Workspace, words: &[&str]) -> Result<bool> {
    install::ensure(&install::everything())?;
    Invivo::build(workspace)?;
    let mut torture = workspace.built("torture")?;
    println!("torture: {}", words.join(" "));
    torture.args(words).env("INVIVO", workspace.invivo());
    process::succeeds(&mut torture, LIMIT)
}
