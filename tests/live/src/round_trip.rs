//! The usual scenario: old answers, apply, new answers, revert, old answers, and not a byte left.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::compile::Build;
use crate::invivo::{apply, invivo, listed, revert};
use crate::memory::{Snapshot, expect_no_writable_code};
use crate::pair::Pair;
use crate::target::{Side, Target};
use crate::workdir::in_workdir;

/// Both promises about the moment of the switch; a patch has to work under either.
pub const CONSISTENCIES: [&str; 2] = ["entry", "quiescent"];

/// Runs the usual scenario with the fixture `source`.
///
/// # Errors
///
/// At the first thing that does not hold.
pub fn round_trip(source: &str) -> Result<()> {
    round_trip_as(source, Build::default())
}

/// The same with another way to build it.
///
/// # Errors
///
/// As [`round_trip`].
pub fn round_trip_as(source: &str, build: Build<'_>) -> Result<()> {
    round_trip_with(source, build, &CONSISTENCIES)
}

/// The same with only some of the promises about the moment of the switch.
///
/// # Errors
///
/// As [`round_trip`].
pub fn round_trip_with(source: &str, build: Build<'_>, consistencies: &[&str]) -> Result<()> {
    in_workdir(source, |dir| {
        let pair = Pair::build(dir, source, build)?;
        let mut target = pair.start()?;
        let patch = pair.patch()?;
        there_and_back_with(&pair, &patch, &mut target, consistencies)
    })
}

/// Applies and reverts with each consistency, asking every question in between.
///
/// # Errors
///
/// As [`round_trip`].
pub fn there_and_back(pair: &Pair, patch: &Path, target: &mut Target) -> Result<()> {
    there_and_back_with(pair, patch, target, &CONSISTENCIES)
}

/// The same with some consistencies only.
///
/// # Errors
///
/// As [`round_trip`].
pub fn there_and_back_with(
    pair: &Pair,
    patch: &Path,
    target: &mut Target,
    consistencies: &[&str],
) -> Result<()> {
    ensure!(
        !pair.fixture.once,
        "{} needs a scenario of its own",
        pair.fixture.source
    );
    let asks = &pair.fixture.asks;
    target
        .expect_all(asks, Side::Old)
        .context("before the apply")?;
    let before = Snapshot::of(target.pid())?;
    for consistency in consistencies.iter().copied() {
        let outcome =
            apply(patch, target.pid(), &["--consistency", consistency])?.expect_state("applied")?;
        ensure!(
            outcome["consistency"] == consistency,
            "asked for {consistency}: {outcome}"
        );
        target
            .expect_all(asks, Side::New)
            .with_context(|| format!("after apply ({consistency})"))?;
        expect_hot(pair, target.pid())?;
        expect_no_writable_code(target.pid())?;
        revert(Some("fix"), target.pid())?.expect_state("reverted")?;
        target
            .expect_all(asks, Side::Old)
            .with_context(|| format!("after revert ({consistency})"))?;
        before
            .expect_same()
            .with_context(|| format!("after revert ({consistency})"))?;
        let left = listed(target.pid())?;
        ensure!(left.is_empty(), "still listed after the revert: {left:?}");
    }
    Ok(())
}

/// Every function that the fixture calls hot must be among those that are listed as applied.
///
/// # Errors
///
/// When one is missing.
pub fn expect_hot(pair: &Pair, pid: u32) -> Result<()> {
    let patches = listed(pid)?;
    ensure!(
        patches.len() == 1,
        "expected one applied patch: {patches:?}"
    );
    let functions = patches[0]["functions"].to_string();
    for name in &pair.fixture.hot {
        ensure!(
            functions.contains(name.as_str()),
            "{name} is not among the replaced functions {functions}"
        );
    }
    Ok(())
}

/// The fix of the fixture `source` must be refused, naming what is in the way, and no patch may be left.
///
/// # Errors
///
/// When it is not refused, or for no stated reason.
pub fn refused(source: &str) -> Result<()> {
    in_workdir(source, |dir| {
        let pair = Pair::build(dir, source, Build::default())?;
        let culprit = pair
            .fixture
            .refused
            .clone()
            .context("the fixture does not say what must be named")?;
        let (base, fixed) = (
            pair.base.display().to_string(),
            pair.fixed.display().to_string(),
        );
        let patch = dir.join("fix.patch");
        invivo(&["build", &base, &fixed, "-o", &patch.display().to_string()])?
            .expect_failure(1, &[&culprit])?;
        ensure!(
            !patch.exists(),
            "refused, but a patch was written all the same"
        );
        let ran = invivo(&["diff", &base, &fixed, "--json"])?;
        let json = ran.json("invivo.diff/1")?;
        let findings = json["findings"].as_array().cloned().unwrap_or_default();
        let named = findings.iter().any(|finding| {
            finding["severity"] == "refuse"
                && finding["subject"].to_string().contains(culprit.as_str())
        });
        ensure!(
            named,
            "diff has no refusing finding about {culprit}\n{}",
            ran.told()
        );
        Ok(())
    })
}
