//! One test for each case.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use live_tests::workdir::in_workdir;
use pair_tests::case::Case;
use pair_tests::verdict::check;

fn main() -> ExitCode {
    match trials() {
        Ok(trials) => libtest_mimic::run(&Arguments::from_args(), trials).exit_code(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut sources: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    sources.sort();
    ensure!(!sources.is_empty(), "there are no cases");
    let trial = |source: PathBuf| {
        let case = Case::read(&source)?;
        Ok(Trial::test(case.name.clone(), move || {
            in_workdir(&case.name, |folder| check(&case, folder))
                .map_err(|error| format!("{error:#}").into())
        }))
    };
    sources.into_iter().map(trial).collect()
}
