//! A library that is patched on disk, in processes of Windows: what runs goes on with the old file,
//! what starts next is fixed, and the old file comes back.

use anyhow::{Result, ensure};
use live_tests::invivo::invivo;
use live_tests::workdir::in_workdir;
use windows_tests::asked::Asked;
use windows_tests::{Build, asker, build};

/// The new function imports what the old one did, counts in a new variable, and calls what did not
/// change.
const OLD: [i32; 2] = [28, 16];
const NEW: [i32; 2] = [1028, -1];

fn expect(asked: &mut Asked, answers: [i32; 2]) -> Result<()> {
    let found = [asked.ask("answer 5")?, asked.ask("answer -1")?];
    let wanted = answers.map(|answer| (answer, true));
    ensure!(found == wanted, "{found:?}, {wanted:?} are wanted");
    Ok(())
}

#[test]
fn a_library_is_fixed_for_what_starts_next() -> Result<()> {
    in_workdir("cold-wine", |dir| {
        let imports = |how: Build| how.importing(&["GetTickCount"]).with("-DIMPORTS").roomy();
        let base = build(dir, "base", "service", &imports(Build::base()))?.path;
        let more = Build::fixed("answer").with("-DEXPORTS");
        let fixed = build(dir, "fixed", "service", &imports(more))?.path;
        let program = asker(dir)?;
        let image = dir.join("service.cold");
        let [old, new, out] = [&base, &fixed, &image].map(|path| path.display().to_string());
        for hook in ["short", "triple"] {
            let words = [
                "build", &old, &new, "-o", &out, "--format", "cold", "--hook", hook,
            ];
            invivo(&words)?.expect_code(0)?;
            let mut running = Asked::start(&program, &base)?;
            expect(&mut running, OLD)?;
            invivo(&["install", &out, &old])?.expect_code(0)?;
            let mut started = Asked::start(&program, &base)?;
            expect(&mut started, NEW)?;
            // By `GetProcAddress`; only the fixed build exports it.
            ensure!(started.ask("get_limit 0")?.0 == 9);
            expect(&mut running, OLD)?;
            invivo(&["uninstall", &old])?.expect_code(0)?;
            expect(&mut Asked::start(&program, &base)?, OLD)?;
            expect(&mut running, OLD)?;
            ensure!(
                running.ask("get_requests 0")?.0 == 6,
                "its state is its own"
            );
        }
        Ok(())
    })
}
