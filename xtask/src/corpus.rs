//! The corpus: real programs, each built without and with a real security fix
//! by the recipes in `corpus/`, and repaired while they run.

use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::live::{self, Verdict};
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{install, process};

/// No case takes longer than this, even on a slow machine and a slow line.
const LIMIT: Duration = Duration::from_secs(1200);

/// Takes the named cases, or all, from their two builds to a verdict.
pub(crate) fn run(workspace: &Workspace, names: &[&str]) -> Result<bool> {
    verdicts(workspace, names).map(|tally| tally.failed == 0)
}

/// Runs the named cases, or all, and prints one line for each. A case that fails
/// does not keep the others from being run.
pub(crate) fn verdicts(workspace: &Workspace, names: &[&str]) -> Result<Tally> {
    let mut verdicts = Vec::new();
    let mut tally = Tally::default();
    for name in chosen(names)? {
        let verdict = live::run(workspace, name);
        let verdict = verdict.unwrap_or_else(|error| Verdict::failed(name, &error));
        tally.check(name, verdict.holds);
        verdicts.push(verdict);
    }
    live::print_verdicts(&verdicts);
    Ok(tally)
}

/// Checks the probes and the loads of the named cases, or all.
pub(crate) fn selftest(workspace: &Workspace, names: &[&str]) -> Result<bool> {
    let mut good = true;
    for name in chosen(names)? {
        good &= live::selftest(workspace, name)?;
    }
    Ok(good)
}

/// The named cases, or all.
fn chosen<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    let known = live::names();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        bail!("no case '{unknown}'; there are: {}", known.join(", "));
    }
    Ok(if names.is_empty() {
        known
    } else {
        names.to_vec()
    })
}

/// Builds the named cases, or all, two at a time: configuring is idle time that
/// another build can use.
pub(crate) fn build(workspace: &Workspace, names: &[&str]) -> Result<()> {
    let waiting = chosen(names)?;
    install::ensure(install::CORPUS)?;
    let waiting = Mutex::new(waiting);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().ok().and_then(|mut names| names.pop());
                    let Some(name) = next else { break };
                    if let Err(error) = build_case(workspace, name)
                        && let Ok(mut failed) = failed.lock()
                    {
                        failed.push(format!("{name}: {error:#}"));
                    }
                }
            });
        }
    });
    let failed = failed
        .into_inner()
        .context("a builder of the corpus panicked")?;
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("the corpus is not complete: {}", failed.join("; "))
    }
}

fn build_case(workspace: &Workspace, name: &str) -> Result<()> {
    for variant in ["base", "fixed"] {
        let mut command = Command::new("bash");
        command
            .arg(workspace.root.join("corpus/build.sh"))
            .args([name, variant])
            .env("CORPUS_WORK", &workspace.corpus);
        if !process::succeeds(&mut command, LIMIT)? {
            bail!("the {variant} half does not build");
        }
    }
    Ok(())
}
