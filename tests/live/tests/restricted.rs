//! Systems that let a tool do less: memory that cannot be written the usual way.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::binary;
use live_tests::compile::{Build, compile_program};
use live_tests::invivo::{invivo_through, listed, recover, revert};
use live_tests::killed::{Whom, killed_before_through};
use live_tests::memory::{Snapshot, expect_no_writable_code, mappings};
use live_tests::pair::Pair;
use live_tests::target::Side;
use live_tests::unharmed::{am_root, unharmed};
use live_tests::workdir::in_workdir;

// Applies and reverts again and again with a tool that is started by `restricted`, from the second time on with memory
// that is there already.
fn there_and_back(
    name: &str,
    fixture: &str,
    restricted: impl Fn(&Path, u32) -> Result<Command>,
) -> Result<()> {
    in_workdir(name, |dir| {
        let pair = Pair::build(dir, fixture, Build::default())?;
        let patch = pair.patch()?.display().to_string();
        let mut target = pair.start()?;
        let pid = target.pid().to_string();
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        let before = Snapshot::of(target.pid())?;
        let mut after = None;
        for consistency in ["entry", "quiescent", "entry"] {
            let run = |words: &[&str]| {
                let mut command = restricted(dir, target.pid())?;
                command.args(words).args(["-p", &pid, "--json"]);
                invivo_through(command)
            };
            run(&["apply", &patch, "--consistency", consistency])?.expect_state("applied")?;
            expect_no_writable_code(target.pid())?;
            target.expect_all(&pair.fixture.asks, Side::New)?;
            let run = |words: &[&str]| {
                let mut command = restricted(dir, target.pid())?;
                command.args(words).args(["-p", &pid, "--json"]);
                invivo_through(command)
            };
            run(&["revert"])?.expect_state("reverted")?;
            target.expect_all(&pair.fixture.asks, Side::Old)?;
            before.expect_same()?;
            let now = mappings(target.pid())?;
            ensure!(*after.get_or_insert(now.clone()) == now, "memory grew");
        }
        Ok(())
    })
}

// No write through /proc/PID/mem succeeds.
fn unwritable(dir: &Path, _: u32) -> Result<Command> {
    let program = dir.join("unwritable");
    if !program.exists() {
        compile_program(dir, "unwritable")?;
    }
    let mut command = Command::new(program);
    command.arg(binary::invivo()?);
    Ok(command)
}

/// A kernel that does not let memory be written where the process may not write it (`proc_mem.force_override=never`).
#[test]
fn kernel_that_does_not_override_protections() -> Result<()> {
    there_and_back("unwritable", "greeting.c", unwritable)
}

/// The same for functions of a few bytes, entries across a page, exceptions and many functions at once.
#[test]
fn kernel_that_does_not_override_protections_for_all_kinds() -> Result<()> {
    for fixture in ["tiny.c", "crossing.c", "virtual.cpp", "thousands.c"] {
        there_and_back("unwritable", fixture, unwritable)?;
    }
    Ok(())
}

/// Where memory is written word by word, and by another call, each of these writes is a step at which the tool is killed.
#[test]
fn killed_at_every_step_where_protections_are_not_overridden() -> Result<()> {
    in_workdir("unwritable-killed", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let patch = pair.patch()?.display().to_string();
        let through = compile_program(dir, "unwritable")?;
        // Most words of the first apply fill new memory; the stride is prime to whatever repeats there.
        for (consistency, stride) in [("entry", 7), ("quiescent", 11)] {
            let mut target = pair.start()?;
            let before = Snapshot::of(target.pid())?;
            let pid = target.pid().to_string();
            let words = ["apply", &patch, "-p", &pid, "--consistency", consistency];
            let mut step = 0;
            loop {
                let killed = killed_before_through(&through, &words, step, Whom::Everything)?;
                recover(target.pid())?.expect_code(0)?;
                let live = !listed(target.pid())?.is_empty();
                let side = if live { Side::New } else { Side::Old };
                target.expect_all(&pair.fixture.asks, side)?;
                revert(None, target.pid())?.expect_code(0)?;
                target.expect_all(&pair.fixture.asks, Side::Old)?;
                before
                    .expect_same()
                    .with_context(|| format!("killed before step {step}"))?;
                if !killed {
                    break;
                }
                step += stride;
            }
            println!("{consistency}: about {step} steps");
            ensure!(step > 40, "only {step} steps: they are not counted");
        }
        Ok(())
    })
}

// The file of the process's memory can be opened for reading alone: it is mounted so.
fn read_only(pid: u32, unshare: &[&str]) -> Result<Command> {
    let mut command = Command::new("unshare");
    command
        .args(unshare)
        .args([
            "sh",
            "-ec",
            "mount --bind /proc/$0/mem /proc/$0/mem; mount -o remount,ro,bind /proc/$0/mem; exec \"$@\"",
        ])
        .arg(pid.to_string())
        .arg(binary::invivo()?);
    Ok(command)
}

/// Who may trace needs no file to write. An ordinary user may mount in a namespace of its own alone, from where it may trace
/// nobody outside: a missing permission like any other.
#[test]
fn memory_that_opens_for_reading_only() -> Result<()> {
    if am_root()? {
        return there_and_back("read-only", "greeting.c", |_, pid| read_only(pid, &["-m"]));
    }
    unharmed("read-only", |_, _, patch, pid| {
        let mut command = read_only(pid, &["-r", "-m"])?;
        command
            .arg("apply")
            .arg(patch)
            .args(["-p", &pid.to_string()]);
        invivo_through(command)?.expect_failure(5, &["not permitted", "hint: "])?;
        Ok(())
    })
}
