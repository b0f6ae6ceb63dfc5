//! What making patches of Windows images live takes: in a process of Linux that runs their code.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::promise::{Amount, Promises, median};
use crate::workspace::Workspace;
use crate::{paint, process};

const LIMIT: Duration = Duration::from_secs(900);

/// Applies a patch of 500 functions some times, while a thread calls one of them.
pub(crate) fn run(workspace: &Workspace, rounds: usize, promises: &mut Promises) -> Result<()> {
    println!("\n{}", paint::bold("500 functions of a Windows library"));
    let folder = workspace.fresh_folder("bench-windows")?;
    let mut command = workspace.cargo();
    command
        .args(["run", "--quiet", "--release", "-p", "windows-tests"])
        .args(["--example", "speed", "--"])
        .arg(folder)
        .arg(rounds.to_string());
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
