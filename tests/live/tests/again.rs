//! A loop that leads to its function's own first instruction, where the hook will be.

use anyhow::{Result, ensure};
use live_tests::compile::Build;
use live_tests::invivo::{apply, invivo, revert};
use live_tests::pair::Pair;
use live_tests::target::Side;
use live_tests::workdir::in_workdir;

/// Who is in such a loop would meet the hook and go on in the new function with what the old one has made of its
/// arguments. So the patch is not applied while somebody is, whatever consistency is asked for.
#[test]
fn who_is_inside_ends_there() -> Result<()> {
    in_workdir("again", |dir| {
        let pair = Pair::build(dir, "again.c", Build::default())?;
        let mut target = pair.start()?;
        let patch = pair.patch()?;
        let (file, pid) = (patch.display().to_string(), target.pid().to_string());
        let planned = invivo(&["plan", &file, "-p", &pid])?;
        ensure!(
            planned.stdout.contains("lead back to where their hook is"),
            "{}",
            planned.told()
        );
        let ran = apply(&patch, target.pid(), &["--timeout", "1"])?;
        ran.expect_code(3)?;
        ensure!(ran.stderr.contains("is inside last"), "{}", ran.told());
        target.expect("turns", "yes")?;
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        target.expect("release", "10")?;
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        target.expect_all(&pair.fixture.asks, Side::New)?;
        revert(None, target.pid())?.expect_code(0)?;
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}
