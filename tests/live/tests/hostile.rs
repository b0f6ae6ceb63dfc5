//! Processes of somebody who means ill: what they name, and what they say of themselves, may harm nobody's tool.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::compile::Build;
use live_tests::invivo::{self, apply, invivo};
use live_tests::pair::Pair;
use live_tests::run::{Ran, run};
use live_tests::target::{Side, Target};
use live_tests::workdir::in_workdir;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

fn pipe(path: &Path) -> Result<()> {
    let mut command = Command::new("mkfifo");
    command.arg(path);
    let ran = run(command, LIMIT)?;
    ensure!(ran.code == Some(0), "{}", ran.told());
    Ok(())
}

/// The library is gone, and where the kernel says that it was there is a pipe: whoever opens that waits for ever.
#[test]
fn pipes_in_place_of_a_library() -> Result<()> {
    in_workdir("pipes", |dir| {
        let pair = Pair::build(dir, "linked.c", Build::default())?;
        let patch = pair.patch()?;
        let mut target = pair.start()?;
        let library = pair.images().0;
        let kept = dir.join("kept.so");
        fs::copy(&library, &kept)?;
        fs::remove_file(&library)?;
        pipe(&library)?;
        pipe(&PathBuf::from(format!("{} (deleted)", library.display())))?;
        for file in [&patch, &kept] {
            let ran = invivo(&["status", &file.display().to_string(), "--json"])?;
            let json = ran.expect_code(0)?.json("invivo.status/1")?;
            let all = json["processes"].as_array().context("a list")?;
            ensure!(all.iter().any(|process| process["pid"] == target.pid()));
        }
        for consistency in ["entry", "quiescent"] {
            let ran = apply(&patch, target.pid(), &["--consistency", consistency])?;
            ran.expect_state("applied")?;
            target.expect_all(&pair.fixture.asks, Side::New)?;
            invivo::revert(Some("fix"), target.pid())?.expect_state("reverted")?;
            target.expect_all(&pair.fixture.asks, Side::Old)?;
        }
        Ok(())
    })
}

fn is_plain(ran: &Ran) -> Result<()> {
    let obeyed = |c: char| c.is_control() && c != '\n';
    ensure!(
        !ran.stdout.contains(obeyed) && !ran.stderr.contains(obeyed),
        "a terminal would obey: {:?}",
        ran.told()
    );
    Ok(())
}

/// Names that would move a terminal's cursor are written out.
#[test]
fn names_that_terminals_obey() -> Result<()> {
    in_workdir("names", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let program = dir.join("\u{1b}[2Jred\u{1b}[31m");
        fs::copy(&pair.base, &program)?;
        let patch = dir.join("patch");
        let label = ["--name", "fix", "--label", "CVE-\u{1b}[7m"];
        invivo::build(&pair.base, &pair.fixed, &patch, &label)?;
        let target = Target::start(&program, &[""; 0])?;
        let (patch, pid) = (patch.display().to_string(), target.pid().to_string());
        for words in [
            &["apply", &patch, "-p", &pid][..],
            &["list", "-p", &pid],
            &["status", &patch],
            &["revert", "-p", &pid],
        ] {
            let ran = invivo(words)?;
            is_plain(ran.expect_code(0)?)?;
        }
        Ok(())
    })
}
