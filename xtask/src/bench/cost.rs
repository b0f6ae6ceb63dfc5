//! What comparing two builds costs, and how large a patch is.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::promise::{Amount, Promises, median};
use crate::workspace::Workspace;
use crate::{paint, process};

const LIMIT: Duration = Duration::from_secs(300);

/// Compares the two builds some times.
pub(crate) fn run(
    workspace: &Workspace,
    images: &[std::path::PathBuf; 2],
    patch: &Path,
    rounds: usize,
    promises: &mut Promises,
) -> Result<()> {
    println!("\n{}", paint::bold("Two builds of Redis compared"));
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut command = Command::new("/usr/bin/time");
        command
            .args(["-f", "%M"])
            .arg(workspace.invivo())
            .arg("diff")
            .args(images);
        let begun = Instant::now();
        let output = process::capture(&mut command, LIMIT)?;
        times.push(begun.elapsed().as_micros() as u64);
        ensure!(
            output.status.success(),
            "invivo diff failed: {}",
            output.stderr
        );
        // The last line is what `time` says.
        let kilobytes = output
            .stderr
            .lines()
            .last()
            .context("`time` says nothing")?;
        memory.push(kilobytes.trim().parse::<u64>()? * 1024);
    }
    promises.measured(
        format!("diff of the two builds, median of {rounds}"),
        Amount::Micros(2_000_000.0),
        Amount::Micros(median(&times)),
    );
    promises.measured(
        "memory of diff at its highest",
        Amount::Bytes(1_073_741_824.0),
        Amount::Bytes(memory.iter().copied().max().unwrap_or(0) as f64),
    );
    let size = std::fs::metadata(patch)?.len();
    promises.measured(
        "size of the patch file",
        Amount::Bytes(65_536.0),
        Amount::Bytes(size as f64),
    );
    Ok(())
}
