//! The corpus: real programs, each built without and with a real security fix
//! by the recipes in `corpus/`.

use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{install, process};

/// No case takes longer than this, even on a slow machine and a slow line.
const LIMIT: Duration = Duration::from_secs(1200);

/// Builds the named cases, or all.
pub(crate) fn run(workspace: &Workspace, names: &[&str]) -> Result<bool> {
    let known = cases(workspace)?;
    if let Some(unknown) = names
        .iter()
        .find(|name| !known.iter().any(|case| case == *name))
    {
        bail!("no case '{unknown}'; there are: {}", known.join(", "));
    }
    let all: Vec<&str> = known.iter().map(String::as_str).collect();
    build(workspace, if names.is_empty() { &all } else { names }).map(|()| true)
}

/// The names of all cases, from their recipes.
fn cases(workspace: &Workspace) -> Result<Vec<String>> {
    let recipes = workspace.root.join("corpus/recipes");
    let entries = std::fs::read_dir(&recipes)
        .with_context(|| format!("cannot read {}", recipes.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".sh")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds cases, two at a time: configuring is idle time that another build can
/// use.
pub(crate) fn build(workspace: &Workspace, names: &[&str]) -> Result<()> {
    install::ensure(install::CORPUS)?;
    // The slow ones first, so that they do not end up alone.
    let mut waiting = names.to_vec();
    waiting.sort_by_key(|name| name.starts_with("sqlite"));
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
