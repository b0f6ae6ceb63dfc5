//! For attempts that must fail: a process that has to come out of them exactly as it was.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::compile::Build;
use crate::memory::{Snapshot, mappings};
use crate::pair::Pair;
use crate::run::run;
use crate::target::Side;
use crate::workdir::in_workdir;

/// Runs `body` with a folder, the greeting, a good patch for it and the number of a running greeting; afterwards the
/// process must be as if nothing had been tried.
///
/// # Errors
///
/// Those of `body`, and when the process is not as it was.
pub fn unharmed(
    name: &str,
    body: impl FnOnce(&Path, &Pair, &Path, u32) -> Result<()>,
) -> Result<()> {
    in_workdir(name, |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let patch = pair.patch()?;
        let mut target = pair.start()?;
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        let (before, all) = (Snapshot::of(target.pid())?, mappings(target.pid())?);
        body(dir, &pair, &patch, target.pid())?;
        before.expect_same()?;
        ensure!(all == mappings(target.pid())?, "a mapping was left behind");
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

/// Whether the scenarios run as root, in which case some limits need another user to show.
///
/// # Errors
///
/// When `id` cannot be run.
pub fn am_root() -> Result<bool> {
    let mut id = Command::new("id");
    id.arg("-u");
    Ok(run(id, Duration::from_secs(10))?.stdout.trim() == "0")
}
