//! Memory of patches that were taken back: given back where it is proved that nobody needs it, else kept and said.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use live_tests::compile::Build;
use live_tests::invivo::{apply, invivo};
use live_tests::killed::{Whom, killed_before};
use live_tests::memory::{Mapping, Snapshot, mappings};
use live_tests::pair::Pair;
use live_tests::target::{Side, Target};
use live_tests::workdir::in_workdir;

struct Scene {
    pair: Pair,
    patch: std::path::PathBuf,
    target: Target,
    before: (Snapshot, Vec<Mapping>),
}

fn scene(source: &str, body: impl FnOnce(&Path, &mut Scene) -> Result<()>) -> Result<()> {
    in_workdir("unload", |dir| {
        let pair = Pair::build(dir, source, Build::default())?;
        let patch = pair.patch()?;
        let mut target = pair.start()?;
        // Once through everything, so that what the program keeps for later is there.
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        let before = (Snapshot::of(target.pid())?, mappings(target.pid())?);
        let mut scene = Scene {
            pair,
            patch,
            target,
            before,
        };
        body(dir, &mut scene)
    })
}

impl Scene {
    fn applied(&mut self) -> Result<()> {
        apply(&self.patch, self.target.pid(), &[])?.expect_state("applied")?;
        self.target.expect_all(&self.pair.fixture.asks, Side::New)
    }

    // What `revert --unload` says of the memory: nothing if it is gone, else why it stays.
    fn reverted(&mut self) -> Result<Option<String>> {
        let pid = self.target.pid().to_string();
        let ran = invivo(&["revert", "-p", &pid, "--unload", "--json"])?;
        ran.expect_code(0)?;
        let json = ran.json("invivo.outcome/1")?;
        let unloaded = &json["processes"][0]["unloaded"];
        let kept = unloaded["kept"].as_str().map(str::to_owned);
        let freed = unloaded["freed"].as_u64().with_context(|| ran.told())?;
        if kept.is_none() {
            self.before.0.expect_same()?;
        }
        // A thread that was started meanwhile has its own memory.
        let code = |all: &[Mapping]| -> Vec<Mapping> {
            let code = all.iter().filter(|one| one.protection.contains('x'));
            code.cloned().collect()
        };
        let is_gone = code(&mappings(self.target.pid())?) == code(&self.before.1);
        ensure!(kept.is_none() == is_gone, "{}", ran.told());
        ensure!(kept.is_none() == (freed > 0), "{}", ran.told());
        Ok(kept)
    }

    // The same where it may be gone already.
    fn reverted_again(&mut self) -> Result<Option<String>> {
        let code = |one: &&Mapping| one.protection.contains('x');
        let count = |all: &[Mapping]| all.iter().filter(code).count();
        if count(&mappings(self.target.pid())?) == count(&self.before.1) {
            self.before.0.expect_same()?;
            return Ok(None);
        }
        self.reverted()
    }

    fn old(&mut self) -> Result<()> {
        self.target.expect_all(&self.pair.fixture.asks, Side::Old)
    }
}

/// Nobody is inside and nothing leads there: afterwards the process is as before, mapping by mapping, any number of times.
#[test]
fn memory_is_given_back() -> Result<()> {
    scene("unloaded.c", |_, scene| {
        for round in 0..20 {
            scene.applied()?;
            let kept = scene.reverted()?;
            ensure!(kept.is_none(), "round {round}: {kept:?}");
            ensure!(
                mappings(scene.target.pid())? == scene.before.1,
                "round {round}: something is left"
            );
            scene.old()?;
        }
        Ok(())
    })
}

/// The tool may die at any step: the memory is all there or all gone, and the next command goes on from there.
#[test]
fn killed_at_every_step() -> Result<()> {
    scene("unloaded.c", |_, scene| {
        let pid = scene.target.pid().to_string();
        for whom in [Whom::Tool, Whom::Everything] {
            for step in 0.. {
                scene.applied()?;
                let died = killed_before(&["revert", "-p", &pid, "--unload"], step, whom)?;
                invivo(&["recover", "-p", &pid])?.expect_code(0)?;
                let kept = scene.reverted_again()?;
                ensure!(kept.is_none(), "step {step}: {kept:?}");
                ensure!(
                    mappings(scene.target.pid())? == scene.before.1,
                    "step {step}: something is left"
                );
                scene.old()?;
                if !died {
                    break;
                }
            }
        }
        Ok(())
    })
}

/// A thread inside new code is named; once it has left, the same command gives the memory back.
#[test]
fn a_thread_inside_keeps_it() -> Result<()> {
    scene("unloaded.c", |_, scene| {
        scene.applied()?;
        scene.target.expect("thread", "inside")?;
        let kept = scene.reverted()?.context("given back under a thread")?;
        ensure!(kept.contains("is inside fix"), "{kept}");
        scene.old()?;
        scene.target.expect("leave", "left")?;
        let kept = scene.reverted()?;
        ensure!(kept.is_none(), "{kept:?}");
        scene.old()
    })
}

/// A coroutine that waits inside new code is no thread's stack: its way back lies in memory, and is found there.
#[test]
fn a_coroutine_inside_keeps_it() -> Result<()> {
    scene("unloaded.c", |_, scene| {
        scene.applied()?;
        scene.target.expect("coroutine", "inside")?;
        let kept = scene.reverted()?.context("given back under a coroutine")?;
        ensure!(kept.contains("holds an address of it"), "{kept}");
        scene.old()?;
        // It goes on inside, and comes out.
        scene.target.expect("resume", "left")?;
        scene.old()
    })
}

/// Whatever looks like an address of it keeps it, as long as it is there.
#[test]
fn an_address_anywhere_keeps_it() -> Result<()> {
    scene("unloaded.c", |_, scene| {
        scene.applied()?;
        let now = mappings(scene.target.pid())?;
        let is_new = |one: &Mapping| one.protection == "r-xp" && !scene.before.1.contains(one);
        let new = |one: &&Mapping| is_new(one) && one.path.is_empty();
        let region = now.iter().find(new).context("the patch has no memory")?;
        let inside = format!("keep {:x}", region.end - 1);
        scene.target.expect(&inside, "kept")?;
        let kept = scene.reverted()?.context("given back under an address")?;
        ensure!(kept.contains("holds an address of it"), "{kept}");
        scene.target.expect("forget", "forgotten")?;
        scene.applied()?;
        ensure!(scene.reverted()?.is_none(), "kept without a reason");
        scene.old()
    })
}

/// New code that takes the address of a text may have left it anywhere.
#[test]
fn addresses_that_new_code_took_keep_it() -> Result<()> {
    scene("greeting.c", |_, scene| {
        scene.applied()?;
        let kept = scene
            .reverted()?
            .context("given back although a text of it may be in use")?;
        ensure!(kept.contains("took addresses of its own"), "{kept}");
        scene.old()?;
        scene.applied()
    })
}
