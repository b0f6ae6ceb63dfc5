//! What making patches of Windows images live takes: in a process of Linux that runs their code.
//! And what it costs to make one of the largest images.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::promise::{Amount, Promises, median};
use crate::workspace::Workspace;
use crate::{paint, process};

const LIMIT: Duration = Duration::from_secs(900);
/// For what is built: with another processor's share of the machine it takes many minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// A program of `tests/windows`, built before anything is measured: what compiles for minutes must
/// not count against the time that it may run.
fn example(workspace: &Workspace, name: &str) -> Result<Command> {
    let mut command = workspace.cargo();
    command.args(["build", "--quiet", "--release", "-p", "windows-tests"]);
    command.args(["--example", name]);
    let built = process::succeeds(&mut command, BUILD_LIMIT)?;
    ensure!(built, "the example {name} of windows-tests is not built");
    Ok(Command::new(
        workspace.target.join("release/examples").join(name),
    ))
}

/// Applies a patch of 500 functions some times, while a thread calls one of them.
pub(crate) fn run(workspace: &Workspace, rounds: usize, promises: &mut Promises) -> Result<()> {
    println!("\n{}", paint::bold("500 functions of a Windows library"));
    let folder = workspace.fresh_folder("bench-windows")?;
    let mut command = example(workspace, "speed")?;
    command.arg(folder).arg(rounds.to_string());
    let output = process::capture(&mut command, LIMIT)?;
    ensure!(output.status.success(), "{}", output.stderr);
    let mut columns: [Vec<u64>; 4] = Default::default();
    for line in output.stdout.lines() {
        let mut numbers = line.split(' ').map(str::parse::<u64>);
        for column in &mut columns {
            column.push(numbers.next().context("a line with four numbers")??);
        }
    }
    ensure!(columns[0].len() == rounds, "{} rounds", columns[0].len());
    let micros = |nanos: f64| Amount::Micros(nanos / 1_000.0);
    let [apply, stood, revert, stood_back] = &columns;
    promises.measured(
        format!("apply of 500 functions, median of {rounds}"),
        Amount::Micros(5_000.0),
        micros(median(apply)),
    );
    promises.measured(
        "time that all threads stand still for it, longest",
        Amount::Micros(0.0),
        micros(stood.iter().copied().max().unwrap_or(0) as f64),
    );
    promises.measured(
        format!("revert of 500 functions, median of {rounds}"),
        Amount::Micros(10_000.0),
        micros(median(revert)),
    );
    println!(
        "      all threads stand for {:.0} µs of a revert (median), so that the bytes of jumps are given back",
        median(stood_back) / 1_000.0
    );
    Ok(())
}

/// Bytes of an image that counts among the largest.
const LARGEST: u64 = 100_000_000;

/// Makes the final image of a library of a hundred megabytes some times.
pub(crate) fn largest(workspace: &Workspace, rounds: usize, promises: &mut Promises) -> Result<()> {
    let title = "A Windows library of 100 MB and its fixed build";
    println!("\n{}", paint::bold(title));
    let folder = workspace.target.join("windows/large");
    println!("      built once, in minutes: {}", folder.display());
    let mut command = example(workspace, "large")?;
    let output = process::capture(command.arg(&folder), BUILD_LIMIT)?;
    ensure!(output.status.success(), "{}", output.stderr);
    let [base, fixed] = ["base", "fixed"].map(|build| folder.join(build).join("large.dll"));
    for image in [&base, &fixed] {
        let size = image.metadata()?.len();
        ensure!(
            size >= LARGEST,
            "{} has {size} bytes, which is none of the largest; remove {} to have it built anew",
            image.display(),
            folder.display()
        );
    }
    let made = workspace
        .fresh_folder("bench-windows-large")?
        .join("large_hotpatch.dll");
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut command = Command::new("/usr/bin/time");
        command
            .args(["-f", "%e %M"])
            .arg(workspace.invivo())
            .arg("build")
            .args([&base, &fixed])
            .arg("-o")
            .arg(&made);
        let output = process::capture(&mut command, LIMIT)?;
        ensure!(output.status.success(), "{}", output.stderr);
        ensure!(
            output.stdout.contains("replaces 3 functions"),
            "{}",
            output.stdout
        );
        let cost = output
            .stderr
            .lines()
            .last()
            .context("`time` says nothing")?;
        let (seconds, kilobytes) = cost.trim().split_once(' ').context("two numbers")?;
        times.push((seconds.parse::<f64>()? * 1e6) as u64);
        memory.push(kilobytes.parse::<u64>()? * 1024);
    }
    // What was made is a patch of this base, by all the rules.
    let mut check = Command::new(workspace.invivo());
    check.arg("check").arg(&made).arg("--base").arg(&base);
    let checked = process::capture(&mut check, LIMIT)?;
    ensure!(checked.status.success(), "{}", checked.stdout);
    let size = |path: &Path| -> Result<u64> { Ok(path.metadata()?.len()) };
    let mut files = 0;
    for image in [&base, &fixed] {
        files += size(image)? + size(&image.with_extension("pdb"))?;
    }
    std::fs::remove_file(&made)?;
    println!(
        "      both images {:.1} MB, with their PDB files {:.1} MB",
        (size(&base)? + size(&fixed)?) as f64 / 1e6,
        files as f64 / 1e6,
    );
    promises.measured(
        format!("final image of two builds of 100 MB each, median of {rounds}"),
        Amount::Micros(10_000_000.0),
        Amount::Micros(median(&times)),
    );
    promises.measured(
        "memory for it at its highest",
        Amount::Bytes(2.0 * files as f64),
        Amount::Bytes(memory.iter().copied().max().unwrap_or(0) as f64),
    );
    Ok(())
}
