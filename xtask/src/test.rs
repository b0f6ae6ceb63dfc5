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
use crate::steps::Steps;
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{corpus, install, live, mutate, payloads, process, room, torture, wild, xen};

const LIMIT: Duration = Duration::from_secs(3000);

/// Runs every test; the last line is the sum.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    room::for_tests(workspace)?;
    let mut steps = Steps::default();
    everything(workspace, &mut steps);
    Ok(steps.finish())
}

/// Runs every test to its end.
pub(crate) fn everything(workspace: &Workspace, steps: &mut Steps) {
    steps.prepare("packages", || install::ensure(&install::everything()));
    steps.prepare("xen", || xen::fetch(workspace));
    steps.prepare("wild", || wild::ensure(workspace));
    steps.prepare("invivo", || Invivo::build(workspace));
    steps.prepare("corpus is built", || corpus::build(workspace, live::TESTED));
    steps.prepare("payloads", || payloads::collect(workspace));
    // What building takes is told apart from what running takes.
    steps.check("tests are built", || {
        let mut build = workspace.cargo();
        process::succeeds(build.args(["test", "--workspace", "--no-run"]), LIMIT)
    });
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--workspace", "--no-fail-fast"])
        .env("INVIVO_LIVE_PROGRAMS", workspace.live_programs())
        .env("INVIVO", workspace.invivo());
    steps.count("tests", || counted(&mut cargo));
    steps.check("payloads to their loaders", || payloads::send(workspace));
    if nix::unistd::geteuid().is_root() {
        println!("\nthe live scenarios again, as an ordinary user");
        steps.count("ordinary user", || ordinary::run(workspace));
    }
    steps.check("mutations", || mutate::run(workspace, mutate::FEW));
    steps.check("torture kill", || {
        torture::kill(workspace, torture::FEW_KILLS)
    });
    steps.check("torture soak", || {
        torture::soak(workspace, torture::FEW_ROUNDS)
    });
    steps.count("corpus", || corpus::verdicts(workspace, live::TESTED));
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
        tally.check(&command.get_program().to_string_lossy(), false);
    }
    Ok(tally)
}
