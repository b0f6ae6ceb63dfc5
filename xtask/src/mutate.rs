//! Real images changed at random: the comparison must find every change that means something.

use std::time::Duration;

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{corpus, install, process};

/// 10,000 mutations take minutes; nobody waits longer than this.
const LIMIT: Duration = Duration::from_secs(3600);

/// Programs of the corpus that are mutated beside those that are compiled for it.
const SUBJECTS: &[(&str, &str)] = &[
    ("memcached-47783", "memcached"),
    ("expat-45490", "libexpat.so.1"),
];

/// As many as `cargo xtask test` has time for.
pub(crate) const FEW: &[&str] = &["--count", "1000"];

/// Runs the mutations; `options` are those of the program `mutate`.
pub(crate) fn run(workspace: &Workspace, options: &[&str]) -> Result<bool> {
    install::ensure(&install::everything())?;
    let cases: Vec<&str> = SUBJECTS.iter().map(|(case, _)| *case).collect();
    corpus::build(workspace, &cases)?;
    let mut mutate = workspace.built("mutate")?;
    let images = SUBJECTS.iter().map(|(case, program)| {
        let folder = workspace.corpus.join(case).join("base");
        folder.join(program)
    });
    mutate.args(options).args(images);
    process::succeeds(&mut mutate, LIMIT)
}
