//! Functions of the fix that are called in the process before and after it goes live and back.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use live_tests::compile::Build;
use live_tests::invivo::{self, apply, invivo, listed, recover, revert};
use live_tests::killed::{Whom, killed_before};
use live_tests::memory::Snapshot;
use live_tests::pair::Pair;
use live_tests::round_trip::CONSISTENCIES;
use live_tests::target::{Side, Target};
use live_tests::workdir::in_workdir;
use serde_json::{Value, json};

const CALLOUTS: [&str; 8] = [
    "--callout",
    "before-apply=is_ready",
    "--callout",
    "after-apply=began",
    "--callout",
    "before-revert=may_go",
    "--callout",
    "after-revert=went",
];

fn scene(name: &str, body: impl FnOnce(&Pair, &Path, &mut Target) -> Result<()>) -> Result<()> {
    in_workdir(name, |dir| {
        let pair = Pair::build(dir, "asked.c", Build::default())?;
        let patch = dir.join("asked.patch");
        let more = [&["--name", "asked"][..], &CALLOUTS].concat();
        invivo::build(&pair.base, &pair.fixed, &patch, &more)?;
        let mut target = pair.start()?;
        body(&pair, &patch, &mut target)
    })
}

fn called(outcome: &Value) -> Vec<(String, i64)> {
    let called = outcome["called"].as_array().cloned().unwrap_or_default();
    let one = |call: &Value| {
        let words = format!("{} {}", call["moment"], call["function"]);
        (
            words.replace('"', ""),
            call["answer"].as_i64().unwrap_or(-1),
        )
    };
    called.iter().map(one).collect()
}

fn counts(target: &mut Target) -> Result<Vec<i32>> {
    let counts = target.ask("counts")?;
    let counts: Result<_, _> = counts.split(' ').map(str::parse).collect();
    Ok(counts?)
}

/// Each runs once, in its order, under either consistency; what it answers is told.
#[test]
fn each_is_called_once() -> Result<()> {
    scene("callouts", |pair, patch, target| {
        let before = Snapshot::of(target.pid())?;
        let pid = target.pid();
        for (round, consistency) in (1..).zip(CONSISTENCIES) {
            let outcome =
                apply(patch, pid, &["--consistency", consistency])?.expect_state("applied")?;
            let expected = [("before-apply is_ready", 0), ("after-apply began", 40)];
            let expected = expected.map(|(words, answer)| (words.to_owned(), answer));
            ensure!(called(&outcome) == expected, "{outcome}");
            ensure!(counts(target)? == [round, round, round - 1, round - 1]);
            target.expect_all(&pair.fixture.asks, Side::New)?;
            apply(patch, pid, &[])?.expect_state("nothing to do")?;
            let outcome = revert(None, pid)?.expect_state("reverted")?;
            let expected = [("before-revert may_go", 0), ("after-revert went", 41)];
            let expected = expected.map(|(words, answer)| (words.to_owned(), answer));
            ensure!(called(&outcome) == expected, "{outcome}");
            ensure!(counts(target)? == [round; 4]);
            target.expect_all(&pair.fixture.asks, Side::Old)?;
            before.expect_same()?;
        }
        Ok(())
    })
}

/// One that refuses is named with its answer; the process is as before, and may agree later.
#[test]
fn each_before_may_refuse() -> Result<()> {
    scene("refuses", |pair, patch, target| {
        let (before, pid) = (Snapshot::of(target.pid())?, target.pid());
        target.expect("refuse -5", "-5")?;
        apply(patch, pid, &[])?
            .expect_failure(1, &["is_ready", "before-apply", "refuses with -5"])?;
        before.expect_same()?;
        ensure!(listed(pid)?.is_empty() && counts(target)? == [1, 0, 0, 0]);
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        recover(pid)?.expect_state("nothing to do")?;
        target.expect("refuse 0", "0")?;
        apply(patch, pid, &[])?.expect_state("applied")?;
        let applied = Snapshot::of(pid)?;
        target.expect("refuse 6", "6")?;
        revert(None, pid)?.expect_failure(1, &["may_go", "before-revert", "refuses with 6"])?;
        applied.expect_same()?;
        ensure!(listed(pid)?.len() == 1);
        target.expect("refuse 0", "0")?;
        revert(None, pid)?.expect_state("reverted")?;
        ensure!(counts(target)? == [2, 1, 2, 1]);
        before.expect_same()
    })
}

/// They are told before anything happens; only what the fix brings can be called.
#[test]
fn they_are_told_and_checked() -> Result<()> {
    scene("told", |pair, patch, target| {
        let file = patch.display().to_string();
        let pid = target.pid().to_string();
        let told = invivo(&["inspect", &file, "--json"])?.json("invivo.inspect/1")?;
        let first = json!({"moment": "before-apply", "function": "is_ready"});
        ensure!(told["callouts"][0] == first, "{told}");
        let ran = invivo(&["plan", &file, "-p", &pid])?;
        ran.expect_code(0)?;
        ensure!(
            ran.stdout
                .contains("calls is_ready before-apply, which may refuse"),
            "{}",
            ran.told()
        );
        ensure!(counts(target)? == [0; 4], "a plan has called something");
        let images = [&pair.base, &pair.fixed].map(|path| path.display().to_string());
        let out = patch.with_extension("none").display().to_string();
        for (name, why) in [
            ("gone", "no function of the fixed build"),
            ("note", "in the base too"),
        ] {
            let callout = format!("before-apply={name}");
            let words = [
                "build",
                &images[0],
                &images[1],
                "-o",
                &out,
                "--callout",
                &callout,
            ];
            invivo(&words)?.expect_failure(1, &[name, why])?;
        }
        Ok(())
    })
}

// Kills `command` before its first step, its second, and so on. Afterwards what is due is called, and nothing twice.
fn at_every_step(
    command: impl Fn(&Path) -> Vec<String>,
    begin_live: bool,
    fits: impl Fn(&[i32], bool) -> bool,
) -> Result<()> {
    scene("killed-callouts", |_, patch, target| {
        let before = Snapshot::of(target.pid())?;
        let pid = target.pid();
        let words = [command(patch), vec!["-p".into(), pid.to_string()]].concat();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        // The tool alone, whose deputy may go on then; and both.
        for (step, whom) in (0..).flat_map(|step| [(step, Whom::Tool), (step, Whom::Everything)]) {
            if begin_live {
                apply(patch, pid, &[])?.expect_state("applied")?;
            }
            let start = counts(target)?;
            let killed = killed_before(&words, step, whom)?;
            recover(pid)?
                .expect_code(0)
                .with_context(|| format!("after step {step}"))?;
            let live = !listed(pid)?.is_empty();
            let now = counts(target)?;
            let calls: Vec<i32> = now.iter().zip(&start).map(|(now, old)| now - old).collect();
            ensure!(fits(&calls, live), "step {step}: {calls:?}, live: {live}");
            target.expect("price", if live { "new 12" } else { "old 10" })?;
            recover(pid)?.expect_state("nothing to do")?;
            revert(None, pid)?.expect_code(0)?;
            before.expect_same()?;
            if !killed {
                ensure!(step > 20, "only {step} steps: they are not counted");
                return Ok(());
            }
        }
        Ok(())
    })
}

fn path(path: &Path) -> String {
    PathBuf::from(path).display().to_string()
}

/// Live: before and after the apply. Not live: none, or what was begun before the apply is undone after the revert.
#[test]
fn apply_killed_at_every_step() -> Result<()> {
    let command = |patch: &Path| vec!["apply".to_owned(), path(patch)];
    at_every_step(command, false, |calls, live| {
        let fits: &[[i32; 4]] = if live {
            &[[1, 1, 0, 0]]
        } else {
            &[[0; 4], [1, 0, 0, 1]]
        };
        fits.iter().any(|fit| fit == calls)
    })
}

/// Not live: before and after the revert. Live: the one before may have been called.
#[test]
fn revert_killed_at_every_step() -> Result<()> {
    let command = |_: &Path| vec!["revert".to_owned()];
    at_every_step(command, true, |calls, live| {
        let fits: &[[i32; 4]] = if live {
            &[[0; 4], [0, 0, 1, 0]]
        } else {
            &[[0, 0, 1, 1]]
        };
        fits.iter().any(|fit| fit == calls)
    })
}
