//! A server (`served.c`) whose clients check every answer, while the tool is killed or works all the time. `cargo xtask
//! torture` does the same for longer.

use anyhow::Result;
use live_tests::torture::{kill, soak};

/// Kills at random instants.
#[test]
fn killed_under_load() -> Result<()> {
    kill("served.c", 80)
}

/// Rounds of apply, two replacements and revert.
#[test]
fn rounds_under_load() -> Result<()> {
    soak("served.c", 6)
}
