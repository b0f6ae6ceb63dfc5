//! Every test, with what it needs: the units, the live scenarios as root and as
//! an ordinary user, and real programs repaired under load.

mod ordinary;
mod toolchain;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::invivo::Invivo;
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{corpus, install, live, process};

const LIMIT: Duration = Duration::from_secs(1800);

/// Runs every test; the last line is the sum.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let tally = everything(workspace)?;
    println!("{tally}");
    Ok(tally.failed == 0)
}

/// Runs every test to its end and counts.
pub(crate) fn everything(workspace: &Workspace) -> Result<Tally> {
    install::ensure(&install::everything())?;
    Invivo::build(workspace)?;
    corpus::run(workspace, &[])?;
    let mut tally = Tally::default();

    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--workspace", "--no-fail-fast"])
        .env("INVIVO", workspace.invivo());
    tally.add(counted(&mut cargo)?);
    if nix::unistd::geteuid().is_root() {
        println!("\nthe live scenarios again, as an ordinary user");
        tally.add(ordinary::run(workspace)?);
    }
    for case in live::TESTED {
        let passed = live::run(workspace, case).unwrap_or_else(|error| {
            println!("  {case}: {error:#}");
            false
        });
        tally.check(passed);
    }
    if tally.ignored > 0 {
        println!("{} tests were left out", tally.ignored);
    }
    Ok(tally)
}

/// Runs test programs, passes on what they print and counts their results. A
/// program that fails without a failed test, because it does not compile or
/// dies, is one failure.
fn counted(command: &mut Command) -> Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the tests")?;
    let output = child.stdout.take().context("the tests have no output")?;
    let reader = thread::spawn(move || {
        let mut tally = Tally::default();
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            tally.read_line(&line);
        }
        tally
    });
    let status = process::wait(&mut child, LIMIT, command)?;
    let mut tally = reader.join().unwrap_or_default();
    if !status.success() && tally.failed == 0 {
        tally.check(false);
    }
    Ok(tally)
}
