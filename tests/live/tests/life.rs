//! The life of a patch in a process: applied, applied again, replaced, listed, taken back.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use live_tests::compile::{Build, Version, compile};
use live_tests::invivo::{self, apply, listed, replace, revert};
use live_tests::memory::{Snapshot, mappings, resident_kb};
use live_tests::pair::Pair;
use live_tests::target::{Side, Target};
use live_tests::workdir::in_workdir;

fn with_greeting(
    name: &str,
    body: impl FnOnce(&Pair, PathBuf, Target) -> Result<()>,
) -> Result<()> {
    in_workdir(name, |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let target = pair.start()?;
        let patch = pair.patch()?;
        body(&pair, patch, target)
    })
}

/// Doing it again is no error, and does nothing: no second hook over the first.
#[test]
fn applied_twice() -> Result<()> {
    with_greeting("twice", |pair, patch, mut target| {
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        let applied = Snapshot::of(target.pid())?;
        apply(&patch, target.pid(), &[])?.expect_state("nothing to do")?;
        applied.expect_same()?;
        target.expect_all(&pair.fixture.asks, Side::New)?;
        revert(Some("fix"), target.pid())?.expect_state("reverted")?;
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

/// Taking back what is not there is no error either, before and after.
#[test]
fn nothing_to_revert() -> Result<()> {
    with_greeting("nothing", |pair, patch, mut target| {
        let before = Snapshot::of(target.pid())?;
        revert(None, target.pid())?.expect_state("nothing to do")?;
        before.expect_same()?;
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        revert(None, target.pid())?.expect_state("reverted")?;
        revert(None, target.pid())?.expect_state("nothing to do")?;
        before.expect_same()?;
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

/// The apply changes the code, or the test would show nothing; the revert restores each byte and each protection.
#[test]
fn revert_restores_every_byte_and_protection() -> Result<()> {
    with_greeting("restore", |_, patch, target| {
        let before = Snapshot::of(target.pid())?;
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        ensure!(
            before.expect_same().is_err(),
            "applied, and yet not a byte is different"
        );
        revert(Some("fix"), target.pid())?.expect_state("reverted")?;
        before.expect_same()
    })
}

/// What a round leaves behind would add up: after a hundred the process has no more mappings and no more memory.
#[test]
fn a_hundred_rounds_leave_nothing() -> Result<()> {
    with_greeting("rounds", |pair, patch, mut target| {
        let pid = target.pid();
        let before = Snapshot::of(pid)?;
        let mut settled = (0, 0);
        for round in 1..=100 {
            apply(&patch, pid, &[])?
                .expect_state("applied")
                .with_context(|| format!("round {round}"))?;
            target.expect_all(&pair.fixture.asks, Side::New)?;
            revert(Some("fix"), pid)?
                .expect_state("reverted")
                .with_context(|| format!("round {round}"))?;
            target.expect_all(&pair.fixture.asks, Side::Old)?;
            if round == 5 {
                settled = (mappings(pid)?.len(), resident_kb(pid)?);
            }
        }
        let (count, resident) = (mappings(pid)?.len(), resident_kb(pid)?);
        ensure!(
            count <= settled.0,
            "{} mappings became {count}: {:x?}",
            settled.0,
            mappings(pid)?
        );
        // The allowance is two kilobytes a round, less than one page: a leak of a page in each would show.
        ensure!(
            resident <= settled.1 + 190,
            "{} kB became {resident} kB",
            settled.1
        );
        before.expect_same()
    })
}

/// The truth is in the process: `list` reads name, state, functions and labels from there, and changes nothing.
#[test]
fn list_shows_name_and_labels() -> Result<()> {
    with_greeting("list", |_, patch, target| {
        ensure!(
            listed(target.pid())?.is_empty(),
            "something is listed before the apply"
        );
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        let applied = Snapshot::of(target.pid())?;
        let patches = listed(target.pid())?;
        ensure!(patches.len() == 1, "expected one: {patches:?}");
        ensure!(patches[0]["name"] == "fix", "{patches:?}");
        ensure!(patches[0]["state"] == "applied", "{patches:?}");
        ensure!(
            patches[0]["labels"] == serde_json::json!(["CVE-2026-0001"]),
            "{patches:?}"
        );
        ensure!(
            patches[0]["functions"].to_string().contains("greet"),
            "{patches:?}"
        );
        ensure!(
            patches[0]["id"].as_str().is_some_and(|id| id.len() >= 8),
            "{patches:?}"
        );
        applied.expect_same()?;
        let ran = invivo::invivo(&["list", "-p", &target.pid().to_string()])?;
        ran.expect_code(0)?;
        for word in ["fix", "CVE-2026-0001"] {
            ensure!(
                ran.stdout.contains(word),
                "the table for people lacks {word}\n{}",
                ran.told()
            );
        }
        Ok(())
    })
}

/// `plan` proves and tells, but touches nothing.
#[test]
fn plan_touches_nothing() -> Result<()> {
    with_greeting("plan", |pair, patch, mut target| {
        let before = Snapshot::of(target.pid())?;
        let all = mappings(target.pid())?;
        let (file, pid) = (patch.display().to_string(), target.pid().to_string());
        let ran = invivo::invivo(&["plan", &file, "-p", &pid])?;
        ran.expect_code(0)?;
        ensure!(
            ran.stdout.contains("greet"),
            "the plan does not name the function\n{}",
            ran.told()
        );
        before.expect_same()?;
        ensure!(
            all == mappings(target.pid())?,
            "the plan changed the mappings"
        );
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

/// A second version replaces the first completely, in one step; a revert then goes back to the base, not to the first.
#[test]
fn second_version_replaces_the_first() -> Result<()> {
    in_workdir("replace", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let again = compile(dir, &pair.fixture, Version::FixedAgain, Build::default())?;
        let first = pair.patch()?;
        let second = dir.join("second.patch");
        invivo::build(&pair.base, &again, &second, &["--name", "second"])?;
        let mut target = pair.start()?;
        let before = Snapshot::of(target.pid())?;
        apply(&first, target.pid(), &[])?.expect_state("applied")?;
        target.expect_all(&pair.fixture.asks, Side::New)?;
        apply(&second, target.pid(), &[])?.expect_state("applied")?;
        target.expect("greet", "newer hello")?;
        target.expect("count 5", "7")?;
        let patches = listed(target.pid())?;
        ensure!(
            patches.len() == 1 && patches[0]["name"] == "second",
            "expected the second alone: {patches:?}"
        );
        revert(Some("second"), target.pid())?.expect_state("reverted")?;
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        before.expect_same()
    })
}

/// Program and library each have their patch; they come and go independently of each other.
#[test]
fn patches_of_two_images() -> Result<()> {
    in_workdir("two", |dir| {
        let pair = Pair::build(dir, "two_images.c", Build::default())?;
        let mut target = pair.start()?;
        let library = pair.patch()?;
        let program = dir.join("program.patch");
        invivo::build(&pair.base, &pair.fixed, &program, &["--name", "program"])?;
        let before = Snapshot::of(target.pid())?;
        let (local, price) = (
            ["old local", "new local"],
            ["old 10 calls 0", "new 12 calls 0 0"],
        );
        apply(&program, target.pid(), &[])?.expect_state("applied")?;
        target.expect("local", local[1])?;
        target.expect("price", price[0])?;
        apply(&library, target.pid(), &[])?.expect_state("applied")?;
        target.expect_all(&pair.fixture.asks, Side::New)?;
        ensure!(
            listed(target.pid())?.len() == 2,
            "expected two: {:?}",
            listed(target.pid())?
        );
        revert(Some("program"), target.pid())?.expect_state("reverted")?;
        target.expect("local", local[0])?;
        target.expect("price", price[1])?;
        revert(Some("fix"), target.pid())?.expect_state("reverted")?;
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        before.expect_same()
    })
}

/// A third version takes the place of the second; after a revert each of them can come again.
#[test]
fn three_versions_and_back() -> Result<()> {
    in_workdir("three", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let mut patches = vec![pair.patch()?];
        for version in ["2", "3"] {
            let define = format!("-DFIXED={version}");
            let build = Build {
                flags: &["-UFIXED", &define],
                ..Build::default()
            };
            let image = compile(&dir.join(version), &pair.fixture, Version::Fixed, build)?;
            let patch = dir.join(format!("{version}.patch"));
            let more = ["--name", version, "--sequence", version];
            invivo::build(&pair.base, &image, &patch, &more)?;
            patches.push(patch);
        }
        let mut target = pair.start()?;
        let before = Snapshot::of(target.pid())?;
        let counts = ["6", "7", "8"];
        for _ in 0..2 {
            for (patch, count) in patches.iter().zip(counts) {
                apply(patch, target.pid(), &[])?.expect_state("applied")?;
                target.expect("count 5", count)?;
            }
            // And back to any of them, in one switch.
            apply(&patches[0], target.pid(), &[])?.expect_failure(1, &["invivo replace"])?;
            for way in [0, 2, 1] {
                let outcome = replace(&patches[way], target.pid())?.expect_state("applied")?;
                ensure!(outcome["replaced"].is_string(), "{outcome}");
                ensure!(outcome["switch"] == "page swap", "all stopped: {outcome}");
                target.expect("count 5", counts[way])?;
            }
            revert(None, target.pid())?.expect_state("reverted")?;
            target.expect_all(&pair.fixture.asks, Side::Old)?;
            before.expect_same()?;
        }
        Ok(())
    })
}

// `revert --to NAME`.
fn go_back(name: &str, pid: u32) -> Result<live_tests::run::Ran> {
    invivo::invivo(&["revert", "--to", name, "-p", &pid.to_string(), "--json"])
}

/// Back to any patch that was live before, in one switch and without its file: the process holds it.
#[test]
fn back_to_an_earlier_patch() -> Result<()> {
    in_workdir("back", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let first = pair.patch()?;
        let again = compile(dir, &pair.fixture, Version::FixedAgain, Build::default())?;
        let second = dir.join("second.patch");
        let more = ["--name", "second", "--sequence", "2"];
        invivo::build(&pair.base, &again, &second, &more)?;
        let mut target = pair.start()?;
        let pid = target.pid();
        let before = Snapshot::of(pid)?;
        go_back("fix", pid)?.expect_failure(1, &["holds no patch called fix", "invivo replace"])?;
        apply(&first, pid, &[])?.expect_state("applied")?;
        go_back("fix", pid)?.expect_state("nothing to do")?;
        apply(&second, pid, &[])?.expect_state("applied")?;
        std::fs::remove_file(&first)?;
        std::fs::remove_file(&second)?;
        let maps = mappings(pid)?;
        for (name, count) in [("fix", "6"), ("second", "7"), ("fix", "6")] {
            let outcome = go_back(name, pid)?.expect_state("applied")?;
            ensure!(outcome["replaced"].is_string(), "{outcome}");
            target.expect("count 5", count)?;
            let live = listed(pid)?;
            ensure!(live.len() == 1 && live[0]["name"] == name, "{live:?}");
        }
        ensure!(maps == mappings(pid)?, "memory grew");
        revert(None, pid)?.expect_state("reverted")?;
        before.expect_same()?;
        // From none to one of them, too.
        go_back("second", pid)?.expect_state("applied")?;
        target.expect("count 5", "7")?;
        revert(None, pid)?.expect_state("reverted")?;
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        before.expect_same()
    })
}

/// What the process holds of a patch is checked before it goes live again: somebody may have written there.
#[test]
fn an_earlier_patch_that_was_damaged_stays_away() -> Result<()> {
    with_greeting("damaged", |pair, patch, mut target| {
        use std::os::unix::fs::FileExt;
        let pid = target.pid();
        let before = Snapshot::of(pid)?;
        let known = mappings(pid)?;
        apply(&patch, pid, &[])?.expect_state("applied")?;
        revert(None, pid)?.expect_state("reverted")?;
        let new =
            |one: &live_tests::memory::Mapping| one.protection == "r-xp" && !known.contains(one);
        let all = mappings(pid)?;
        let region = all
            .iter()
            .find(|one| new(one))
            .context("the patch has no memory")?;
        let memory = std::fs::File::options()
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        memory.write_all_at(&[0xcc], region.end - 1)?;
        go_back("fix", pid)?
            .expect_failure(1, &["its memory is not what it was", "invivo replace"])?;
        before.expect_same()?;
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        memory.write_all_at(&[0], region.end - 1)?;
        go_back("fix", pid)?.expect_state("applied")?;
        target.expect_all(&pair.fixture.asks, Side::New)
    })
}

/// A replacement that may not be made leaves the live patch as it is: one that is older, and one that is damaged.
#[test]
fn invalid_replacement_leaves_the_old_patch() -> Result<()> {
    in_workdir("invalid", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let again = compile(dir, &pair.fixture, Version::FixedAgain, Build::default())?;
        let (live, older) = (dir.join("live.patch"), pair.patch()?);
        invivo::build(
            &pair.base,
            &again,
            &live,
            &["--name", "live", "--sequence", "2"],
        )?;
        let mut target = pair.start()?;
        apply(&live, target.pid(), &[])?.expect_state("applied")?;
        let applied = Snapshot::of(target.pid())?;
        apply(&older, target.pid(), &[])?.expect_failure(1, &["sequence number", "live"])?;
        let mut bytes = std::fs::read(&live)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let damaged = dir.join("damaged.patch");
        std::fs::write(&damaged, bytes)?;
        apply(&damaged, target.pid(), &[])?.expect_failure(1, &["damaged"])?;
        applied.expect_same()?;
        target.expect("count 5", "7")?;
        let patches = listed(target.pid())?;
        ensure!(
            patches.len() == 1 && patches[0]["name"] == "live",
            "{patches:?}"
        );
        Ok(())
    })
}

/// The child has the patch and its record from its parent, and each is taken back for itself; a program that is
/// executed anew has neither.
#[test]
fn fork_copies_and_exec_drops() -> Result<()> {
    in_workdir("family", |dir| {
        let pair = Pair::build(dir, "family.c", Build::default())?;
        let mut target = pair.start()?;
        let patch = pair.patch()?;
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        let child: u32 = target.ask("fork")?.parse()?;
        target.expect("child", "new 12")?;
        ensure!(listed(child)?.len() == 1, "the child has no record");
        apply(&patch, child, &[])?.expect_state("nothing to do")?;
        revert(None, child)?.expect_state("reverted")?;
        target.expect("child", "old 10")?;
        target.expect("price", "new 12")?;
        target.expect("exec", "ready")?;
        target.expect("price", "old 10")?;
        ensure!(listed(target.pid())?.is_empty(), "exec left a record");
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        target.expect("price", "new 12")
    })
}

/// The program is exchanged under the tool's hands, at every moment: the outcome is one of those that are documented,
/// and the process always answers.
#[test]
fn exec_during_apply() -> Result<()> {
    in_workdir("exec", |dir| {
        let pair = Pair::build(dir, "family.c", Build::default())?;
        let mut target = pair.start()?;
        let (patch, pid) = (pair.patch()?, target.pid());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let tool = scope.spawn(|| -> Result<()> {
                let mut result = Ok(());
                for _ in 0..60 {
                    let ran = apply(&patch, pid, &[])?;
                    if !matches!(ran.code, Some(0 | 1 | 3 | 6)) {
                        result = ran.expect_code(0).map(|_| ());
                        break;
                    }
                }
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                result
            });
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                target.expect("exec", "ready")?;
                let price = target.ask("price")?;
                ensure!(
                    price == "old 10" || price == "new 12",
                    "the price is {price}"
                );
            }
            tool.join()
                .map_err(|_| anyhow::anyhow!("a thread of the test ended"))?
        })?;
        target.expect("exec", "ready")?;
        apply(&patch, pid, &[])?.expect_state("applied")?;
        target.expect_all(&pair.fixture.asks, Side::New)
    })
}

/// The library went with its hooks and came back without them. The record that stayed must not be believed.
#[test]
fn library_closed_and_loaded_again() -> Result<()> {
    in_workdir("reopened", |dir| {
        let pair = Pair::build(dir, "reopened.c", Build::default())?;
        let mut target = pair.start()?;
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        let patch = pair.patch()?;
        for _ in 0..3 {
            apply(&patch, target.pid(), &[])?.expect_state("applied")?;
            target.expect("price", "new 12 calls 0 0")?;
            target.expect("reopen", "loaded")?;
            target.expect("price", "old 10 calls 0")?;
            ensure!(listed(target.pid())?.is_empty(), "the lost patch is listed");
            revert(None, target.pid())?.expect_state("nothing to do")?;
        }
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        target.expect_all(&pair.fixture.asks[..1], Side::New)?;
        revert(None, target.pid())?.expect_state("reverted")?;
        target.expect_all(&pair.fixture.asks[..1], Side::Old)
    })
}

/// Where a library was that was closed, another build of it is loaded: what the record says of the old one is not
/// written over the new one.
#[test]
fn another_library_in_the_place_of_one_that_was_closed() -> Result<()> {
    in_workdir("another-library", |dir| {
        let pair = Pair::build(dir, "reopened.c", Build::default())?;
        let place = dir.join("next");
        let flags = &["-falign-functions=64"][..];
        let other = Build {
            flags,
            ..Build::default()
        };
        let next = Pair::build(&place, "reopened.c", other)?;
        let mut target = pair.start()?;
        let pid = target.pid();
        let asks = &pair.fixture.asks[..1];
        target.expect_all(asks, Side::Old)?;
        apply(&pair.patch()?, pid, &[])?.expect_state("applied")?;
        target.expect_all(asks, Side::New)?;
        let starts = || -> Result<Vec<u64>> {
            let mut all = mappings(pid)?;
            all.retain(|map| map.path.contains("libprice.so") && map.offset == 0);
            Ok(all.iter().map(|map| map.start).collect())
        };
        let before = starts()?;
        let (library, _) = pair.images();
        let copy = library.with_extension("next");
        fs::copy(next.images().0, &copy)?;
        fs::rename(copy, &library)?;
        target.expect("reopen", "loaded")?;
        ensure!(
            starts()? == before,
            "it is elsewhere, so that nothing is shown"
        );
        ensure!(listed(pid)?.is_empty(), "the lost patch is listed");
        revert(None, pid)?.expect_state("nothing to do")?;
        let clean = Snapshot::of(pid)?;
        let patch = next.patch()?;
        for consistency in ["entry", "quiescent"] {
            target.expect("price", "old 10 calls 0")?;
            let done = apply(&patch, pid, &["--consistency", consistency])?;
            let done = done.expect_state("applied")?;
            ensure!(done["replaced"].is_null(), "{done}");
            target.expect("price", "new 12 calls 0 0")?;
            revert(None, pid)?.expect_state("reverted")?;
            clean.expect_same()?;
        }
        target.expect("price", "old 10 calls 0")
    })
}

/// Code that is locked in memory stays so.
#[test]
fn locked_memory_stays_locked() -> Result<()> {
    in_workdir("locked", |dir| {
        let pair = Pair::build(dir, "locked.c", Build::default())?;
        let mut target = pair.start()?;
        let (pid, patch) = (target.pid(), pair.patch()?);
        for round in 0..3 {
            for (command, side) in [
                ("before", Side::Old),
                ("apply", Side::New),
                ("revert", Side::Old),
            ] {
                match command {
                    "apply" => apply(&patch, pid, &[])?
                        .expect_state("applied")
                        .map(|_| ())?,
                    "revert" => revert(None, pid)?.expect_state("reverted").map(|_| ())?,
                    _ => {}
                }
                target.expect_all(&pair.fixture.asks, side)?;
                let open = unlocked_code(pid)?;
                ensure!(
                    open.is_empty(),
                    "round {round}, {command}: {open:?} is not locked"
                );
            }
        }
        Ok(())
    })
}

// Code of files that is not locked in memory.
fn unlocked_code(pid: u32) -> Result<Vec<String>> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut found, mut code) = (Vec::new(), None);
    for line in smaps.lines() {
        if line.contains(" r-xp ") && line.contains('/') {
            code = Some(line.to_owned());
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && let Some(code) = code.take()
            && !flags.split(' ').any(|flag| flag == "lo")
        {
            found.push(code);
        }
    }
    Ok(found)
}
