//! Builds the library of a hundred megabytes and its fixed build, once, in a folder.

use std::path::Path;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: large FOLDER")?;
    windows_tests::large::pair(Path::new(&folder))?;
    Ok(())
}
