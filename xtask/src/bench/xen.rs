//! What the tests with Xen take, from nothing, and what a payload of one file of Xen's source takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::promise::{Amount, Promises};
use crate::workspace::Workspace;
use crate::{paint, process, xen};

const LIMIT: Duration = Duration::from_secs(1800);

/// Fetches everything anew and runs all the tests; that they compile is not counted.
pub(crate) fn run(workspace: &Workspace, promises: &mut Promises) -> Result<()> {
    println!("\n{}", paint::bold("Tests on hypervisors"));
    let mut tests = workspace.cargo();
    tests.args(["test", "--quiet", "--package", "xen-tests"]);
    let mut compile = workspace.cargo();
    compile.args(["test", "--quiet", "--package", "xen-tests", "--no-run"]);
    ensure!(
        process::succeeds(&mut compile, LIMIT)?,
        "the tests do not compile"
    );
    workspace.fresh_folder("xen")?;
    let begun = Instant::now();
    xen::fetch(workspace)?;
    let fetched = begun.elapsed();
    tests
        .args(["--", "--nocapture"])
        .env("INVIVO", workspace.invivo());
    let said = process::capture(&mut tests, LIMIT)?;
    let whole = begun.elapsed();
    ensure!(
        said.status.success(),
        "a test failed\n{}{}",
        said.stdout,
        said.stderr
    );
    let micros = |time: Duration| Amount::Micros(time.as_micros() as f64);
    let minutes = |number: u64| micros(Duration::from_secs(60 * number));
    promises.measured(
        "hypervisors and source fetched".to_owned(),
        minutes(1),
        micros(fetched),
    );
    promises.measured(
        "all of the tests with Xen, from nothing".to_owned(),
        minutes(3),
        micros(whole),
    );
    let words = "payload of keyhandler.o: ";
    let line = said.stdout.lines().find_map(|line| line.split_once(words));
    let (_, figures) = line.context("no test tells what a payload takes")?;
    let (time, memory) = figures.split_once(" µs, ").context("two figures")?;
    let memory = memory.split(' ').next().context("MiB")?;
    promises.measured(
        "keyhandler.o without and with a fix to a payload".to_owned(),
        micros(Duration::from_secs(1)),
        Amount::Micros(time.parse()?),
    );
    promises.measured(
        "memory for it at its highest".to_owned(),
        Amount::Bytes(200.0 * 1_048_576.0),
        Amount::Bytes(memory.parse::<f64>()? * 1_048_576.0),
    );
    Ok(())
}
