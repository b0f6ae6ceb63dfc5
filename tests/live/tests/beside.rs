//! What else looks at a process, or unwinds its stacks, while it is patched.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use live_tests::compile::Build;
use live_tests::invivo::{apply, revert};
use live_tests::pair::Pair;
use live_tests::round_trip::round_trip;
use live_tests::run::run;
use live_tests::target::Side;
use live_tests::workdir::in_workdir;

/// Cancellation unwinds the stack through the patched frame, and the handlers of both frames run.
#[test]
fn thread_cancelled_inside_a_patched_frame() -> Result<()> {
    round_trip("cancelled.c")
}

/// A core that is taken while the patch is live can be read: the program's own functions have their names, and the
/// memory of the patch is in it.
#[test]
fn core_dump_while_patched() -> Result<()> {
    in_workdir("core", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let mut target = pair.start()?;
        apply(&pair.patch()?, target.pid(), &[])?.expect_state("applied")?;
        let hook = live_tests::invivo::invivo(&["list", "-p", &target.pid().to_string()])?;
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
