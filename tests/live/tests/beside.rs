//! What else looks at a process, or unwinds its stacks, while it is patched.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use live_tests::compile::Build;
use live_tests::invivo::{apply, invivo, revert};
use live_tests::pair::Pair;
use live_tests::round_trip::round_trip;
use live_tests::run::run;
use live_tests::target::{Side, Target};
use live_tests::workdir::in_workdir;

/// Cancellation unwinds the stack through the patched frame, and the handlers of both frames run.
#[test]
fn thread_cancelled_inside_a_patched_frame() -> Result<()> {
    round_trip("cancelled.c")
}

/// The unwinder inside the process passes through new code, which nothing but the patch describes. Its frames have no name: the
/// loader, whom `backtrace_symbols` asks, knows no file there.
#[test]
fn backtrace_passes_through_new_code() -> Result<()> {
    round_trip("backtrace.c")?;
    in_workdir("backtrace", |dir| {
        let pair = Pair::build(dir, "backtrace.c", Build::default())?;
        let (patch, mut target) = (pair.patch()?, pair.start()?);
        target.expect("names", "innermost middle answer")?;
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        target.expect("names", "innermost - answer")?;
        revert(None, target.pid())?.expect_state("reverted")?;
        target.expect("names", "innermost middle answer")
    })
}

/// A core that is taken while the patch is live can be read: the program's own functions have their names, and the
/// memory of the patch is in it.
#[test]
fn core_dump_while_patched() -> Result<()> {
    in_workdir("core", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let mut target = pair.start()?;
        apply(&pair.patch()?, target.pid(), &[])?.expect_state("applied")?;
        let hook = invivo(&["list", "-p", &target.pid().to_string()])?;
        hook.expect_code(0)?;
        let core = dir.join("core");
        let mut gcore = Command::new("gcore");
        gcore.arg("-o").arg(&core).arg(target.pid().to_string());
        let ran = run(gcore, Duration::from_secs(60))?;
        ran.expect_code(0)?;
        // gdb leaves a process as it was, so the target goes on.
        target.expect_all(&pair.fixture.asks, Side::New)?;
        let file = format!("{}.{}", core.display(), target.pid());
        let mut gdb = Command::new("gdb");
        gdb.args(["-q", "-batch", "-ex", "bt", "-ex", "x/2i greet"])
            .arg(&pair.base)
            .arg(file);
        let ran = run(gdb, Duration::from_secs(60))?;
        ran.expect_code(0)?;
        for word in ["main", "<greet", "jmp"] {
            ensure!(ran.stdout.contains(word), "{word}\n{}", ran.told());
        }
        revert(None, target.pid())?.expect_state("reverted")?;
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

const LIMIT: Duration = Duration::from_secs(60);

// A thread works inside new code while `look` is made.
fn at_work(look: impl FnOnce(&Path, &mut Target) -> Result<()>) -> Result<()> {
    in_workdir("named", |dir| {
        let pair = Pair::build(dir, "named.c", Build::default())?;
        let mut target = pair.start()?;
        apply(&pair.patch()?, target.pid(), &[])?.expect_state("applied")?;
        target.expect("work", "at work")?;
        look(dir, &mut target)?;
        target.expect("leave", "left")?;
        target.expect_all(&pair.fixture.asks, Side::New)?;
        revert(None, target.pid())?.expect_state("reverted")?;
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

/// With the symbols of the patch gdb names the frame in new code, and gets at the callers below it; in the process and
/// in a core of it.
#[test]
fn gdb_names_new_code() -> Result<()> {
    at_work(|dir, target| {
        let pid = target.pid().to_string();
        let symbols = dir.join("fix.sym").display().to_string();
        invivo(&["symbols", "-p", &pid, "-o", &symbols])?.expect_code(0)?;
        let add = format!("add-symbol-file {symbols}");
        let look = ["-q", "-batch", "-ex", &add, "-ex", "thread apply all bt"];
        let core = dir.join("core").display().to_string();
        let mut live = Command::new("gdb");
        live.args(["-p", &pid]).args(look);
        let mut gcore = Command::new("gcore");
        gcore.args(["-o", &core, &pid]);
        let mut dead = Command::new("gdb");
        dead.arg(format!("/proc/{pid}/exe"))
            .arg(format!("{core}.{pid}"))
            .args(look);
        let mut without = Command::new("gdb");
        without.args(["-p", &pid, "-q", "-batch", "-ex", "thread apply all bt"]);
        // Nobody else knows this code: else the test would show nothing.
        let ran = run(without, LIMIT)?;
        ensure!(!ran.stdout.contains("in dwell"), "{}", ran.told());
        for (command, says) in [(live, true), (gcore, false), (dead, true)] {
            let ran = run(command, LIMIT)?;
            ran.expect_code(0)?;
            let frames = ran
                .stdout
                .lines()
                .skip_while(|line| !line.contains("in dwell"));
            let below = frames.take(2).collect::<Vec<_>>().join(" ");
            ensure!(!says || below.contains("in stay"), "{}", ran.told());
        }
        Ok(())
    })
}

/// With the lines of the patch in `/tmp/perf-PID.map` a profile names new code.
#[test]
fn perf_names_new_code() -> Result<()> {
    at_work(|dir, target| {
        let pid = target.pid().to_string();
        let data = dir.join("perf.data").display().to_string();
        let map = format!("/tmp/perf-{pid}.map");
        let mut record = Command::new("perf");
        record.args([
            "record",
            "-q",
            "-e",
            "cpu-clock",
            "-g",
            "-o",
            &data,
            "-p",
            &pid,
        ]);
        record.args(["--", "sleep", "0.5"]);
        run(record, LIMIT)?.expect_code(0)?;
        let names = invivo(&["symbols", "-p", &pid])?;
        names.expect_code(0)?;
        let report = || {
            let mut report = Command::new("perf");
            report.args([
                "report",
                "-i",
                &data,
                "--stdio",
                "--no-children",
                "-g",
                "none",
            ]);
            run(report, LIMIT)
        };
        let before = report()?;
        before.expect_code(0)?;
        ensure!(!before.stdout.contains("dwell"), "{}", before.told());
        std::fs::write(&map, &names.stdout)?;
        let after = report();
        std::fs::remove_file(&map)?;
        let after = after?;
        ensure!(after.stdout.contains("dwell"), "{}", after.told());
        Ok(())
    })
}

/// Who is inside new code is named in the stack that is told.
#[test]
fn stacks_name_new_code() -> Result<()> {
    at_work(|dir, target| {
        let pid = target.pid().to_string();
        let patch = dir.join("fix.patch").display().to_string();
        let ran = invivo(&["blocking", &patch, "-p", &pid])?;
        ensure!(ran.stdout.contains("dwell+"), "{}", ran.told());
        ensure!(ran.stdout.contains("in patch fix"), "{}", ran.told());
        Ok(())
    })
}
