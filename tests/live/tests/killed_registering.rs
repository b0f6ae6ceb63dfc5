//! The tool is killed while it makes a C++ patch live, for which a function of the target is called: the one that is told of its
//! unwind data.

use anyhow::{Context, Result, ensure};
use live_tests::compile::Build;
use live_tests::invivo::{apply, listed, recover, revert};
use live_tests::killed::{Whom, killed_before};
use live_tests::memory::{Snapshot, expect_no_writable_code};
use live_tests::pair::Pair;
use live_tests::target::Side;
use live_tests::workdir::in_workdir;

// Unwind data are registered once in a process, so each step has one of its own.
fn at_every_step(whom: Whom, consistency: &str) -> Result<()> {
    in_workdir("registering", |dir| {
        let pair = Pair::build(dir, "virtual.cpp", Build::default())?;
        let (patch, asks) = (pair.patch()?, &pair.fixture.asks);
        let file = patch.display().to_string();
        let (mut live, mut not) = (0, 0);
        for step in 0.. {
            let mut target = pair.start()?;
            let (before, pid) = (Snapshot::of(target.pid())?, target.pid().to_string());
            let words = ["apply", &file, "-p", &pid, "--consistency", consistency];
            let killed = killed_before(&words, step, whom)?;
            (|| -> Result<()> {
                recover(target.pid())?.expect_code(0)?;
                let applied = !listed(target.pid())?.is_empty();
                let side = if applied { Side::New } else { Side::Old };
                // Exceptions pass through whichever code is live.
                target.expect_all(asks, side)?;
                recover(target.pid())?.expect_state("nothing to do")?;
                (live, not) = (live + usize::from(applied), not + usize::from(!applied));
                // What was left serves the next time, too, or is left alone.
                apply(&patch, target.pid(), &[])?.expect_code(0)?;
                target.expect_all(asks, Side::New)?;
                expect_no_writable_code(target.pid())?;
                revert(None, target.pid())?.expect_state("reverted")?;
                target.expect_all(asks, Side::Old)?;
                before.expect_same()
            })()
            .with_context(|| format!("{whom:?} killed before step {step}"))?;
            if !killed {
                ensure!(step > 40, "only {step} steps: they are not counted");
                break;
            }
        }
        println!("{consistency}, {whom:?}: {live} times live, {not} times not");
        ensure!(live > 1 && not > 20, "live {live} times, not {not} times");
        Ok(())
    })
}

/// The deputy goes on when the tool is dead.
#[test]
fn tool_killed_at_every_step() -> Result<()> {
    at_every_step(Whom::Tool, "entry")
}

/// Nobody goes on.
#[test]
fn everything_killed_at_every_step() -> Result<()> {
    at_every_step(Whom::Everything, "entry")
}

/// All threads stand for the switch.
#[test]
fn everything_killed_at_every_step_quiescent() -> Result<()> {
    at_every_step(Whom::Everything, "quiescent")
}
