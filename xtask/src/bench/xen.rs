//! What the tests with Xen take, from nothing, with those that write payloads and the sending of all that they
//! wrote, and what a payload of one file of Xen's source takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::promise::{Amount, Promises};
use crate::workspace::Workspace;
use crate::{paint, payloads, process, xen};

const LIMIT: Duration = Duration::from_secs(1800);

/// Fetches everything anew and runs all the tests; that they compile is not counted.
pub(crate) fn run(workspace: &Workspace, promises: &mut Promises) -> Result<()> {
    println!("\n{}", paint::bold("Tests on hypervisors"));
    let mut tests = workspace.cargo();
    tests.args(["test", "--quiet", "--package", "xen-tests"]);
    let writers = || {
        let mut writers = workspace.cargo();
        writers.args(["test", "--quiet", "--package", "invivo-format"]);
        writers.args(["--package", "invivo-cli", "--test", "livepatch_*"]);
        writers.args(["--test", "payload", "--test", "objects"]);
        writers
    };
    let mut compile = workspace.cargo();
    compile.args(["test", "--quiet", "--package", "xen-tests", "--no-run"]);
    for compile in [&mut compile, writers().arg("--no-run")] {
        let compiled = process::succeeds(compile, LIMIT)?;
        ensure!(compiled, "the tests do not compile");
    }
    workspace.fresh_folder("xen")?;
    payloads::collect(workspace)?;
    let before = used()?;
    let begun = Instant::now();
    xen::fetch(workspace)?;
    tests
        .args(["--", "--nocapture"])
        .env("INVIVO", workspace.invivo());
    let said = process::capture(&mut tests, LIMIT)?;
    let written = process::succeeds(&mut writers(), LIMIT)?;
    let sent = payloads::send(workspace)?;
    let whole = begun.elapsed();
    ensure!(
        written && sent,
        "a test that writes payloads failed, or a payload"
    );
    ensure!(
        said.status.success(),
        "a test failed\n{}{}",
        said.stdout,
        said.stderr
    );
    // Where the processors are busy with something else, this says what it would be otherwise.
    let used = (used()? - before).as_secs_f64();
    println!(
        "  {used:.0} s of processors, {:.0} % of what they all had",
        share(used, whole)
    );
    let micros = |time: Duration| Amount::Micros(time.as_micros() as f64);
    promises.measured(
        "all of the tests with Xen, from nothing".to_owned(),
        micros(Duration::from_secs(180)),
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

/// The part of all processors that was used, in percent.
fn share(used: f64, whole: Duration) -> f64 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    100.0 * used / (whole.as_secs_f64() * processors as f64)
}

/// The processor time of all programs that were started and have ended, in steps of ten milliseconds.
fn used() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program before them may hold anything.
    let (_, fields) = stat
        .rsplit_once(')')
        .context("no name in /proc/self/stat")?;
    let mut fields = fields.split_whitespace().skip(13);
    let mut ticks = || -> Result<u64> { Ok(fields.next().context("too short")?.parse()?) };
    Ok(Duration::from_millis(10 * (ticks()? + ticks()?)))
}
