//! Every test, with what it needs: the units, the live scenarios as root and as
//! an ordinary user, and real programs repaired under load.

mod ordinary;
mod toolchain;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::invivo::Invivo;
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{corpus, install, live, mutate, payloads, process, room, torture, wild, xen};

const LIMIT: Duration = Duration::from_secs(3000);

/// Runs every test; the last line is the sum.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    room::for_tests(workspace)?;
    let tally = everything(workspace);
    println!("{tally}");
    Ok(tally.failed == 0)
}

/// Runs every test to its end and counts. What cannot be run at all is a
/// failure, and the rest is run all the same.
pub(crate) fn everything(workspace: &Workspace) -> Tally {
    let mut tally = Tally::default();
    let mut part = |name: &str, result: Result<Tally>| match result {
        Ok(counted) => tally.add(counted),
        Err(error) => {
            println!("{name}: {error:#}");
            tally.check(false);
        }
    };
    let none = |()| Tally::default();
    part(
        "packages",
        install::ensure(&install::everything()).map(none),
    );
    part("xen", xen::fetch(workspace).map(none));
    part("wild", wild::ensure(workspace).map(none));
    part("invivo", Invivo::build(workspace).map(|_| Tally::default()));
    part("corpus", corpus::build(workspace, live::TESTED).map(none));

    part("payloads", payloads::collect(workspace).map(none));
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--workspace", "--no-fail-fast"])
        .env("INVIVO_LIVE_PROGRAMS", workspace.live_programs())
        .env("INVIVO", workspace.invivo());
    part("tests", counted(&mut cargo));
    let checked = |passed| {
        let mut one = Tally::default();
        one.check(passed);
        one
    };
    part("payloads", payloads::send(workspace).map(checked));
    if nix::unistd::geteuid().is_root() {
        println!("\nthe live scenarios again, as an ordinary user");
        part("ordinary user", ordinary::run(workspace));
    }
    part(
        "mutations",
        mutate::run(workspace, mutate::FEW).map(checked),
    );
    let killed = torture::kill(workspace, torture::FEW_KILLS);
    part("torture", killed.map(checked));
    let rounds = torture::soak(workspace, torture::FEW_ROUNDS);
    part("torture", rounds.map(checked));
    part("corpus", corpus::verdicts(workspace, live::TESTED));
    if tally.ignored > 0 {
        println!("{} tests were left out", tally.ignored);
    }
    tally
}

/// Runs test programs, passes on what they print and counts their results. A
/// program that fails without a failed test, because it does not compile or
/// dies, is one failure; so is one that ends without a result.
fn counted(command: &mut Command) -> Result<Tally> {
    let mut child = command
        // The errors of the live scenarios tell a whole story already.
        .env("RUST_LIB_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the tests")?;
    let output = child.stdout.take().context("the tests have no output")?;
    let reader = thread::spawn(move || {
        let (mut tally, mut has_result) = (Tally::default(), false);
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            has_result |= tally.read_line(&line);
        }
        (tally, has_result)
    });
    let status = process::wait(&mut child, LIMIT, command)?;
    let Ok((mut tally, has_result)) = reader.join() else {
        bail!("what the tests print cannot be read");
    };
    if !has_result || (!status.success() && tally.failed == 0) {
        tally.check(false);
    }
    Ok(tally)
}
