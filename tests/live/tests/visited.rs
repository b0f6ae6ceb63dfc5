//! Which threads are made to stand, counted from outside: by the requests of the tool, whatever it says itself.

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::compile::{Build, Version, compile};
use live_tests::invivo::{self, apply, invivo, replace, revert};
use live_tests::killed::asked_to_stand;
use live_tests::memory::Snapshot;
use live_tests::pair::Pair;
use live_tests::target::{Side, Target};
use live_tests::workdir::in_workdir;

/// Of sixty-four threads exactly one is made to stand, once, by an apply and by a revert that stop nobody, and twice by a replacement.
/// The way back from padding is a stop of all; the plan says so, and each is made to stand.
#[test]
fn one_of_sixty_four_threads() -> Result<()> {
    const THREADS: usize = 64;
    in_workdir("visited", |dir| {
        let build = Build {
            flags: &["-DLONG"],
            ..Build::default()
        };
        let pair = Pair::build(dir, "crowd.c", build)?;
        let again = compile(dir, &pair.fixture, Version::FixedAgain, build)?;
        let (first, second) = (pair.patch()?, dir.join("second.patch"));
        let more = ["--name", "second", "--sequence", "2"];
        invivo::build(&pair.base, &again, &second, &more)?;
        let [one, other] = [&first, &second].map(|patch| patch.display().to_string());
        let mut target = Target::start(&pair.base, &[THREADS.to_string()])?;
        let (process, pid) = (target.pid(), target.pid().to_string());
        // The first time makes the memory, with another visit.
        for patch in [&first, &second] {
            apply(patch, process, &[])?.expect_state("applied")?;
            revert(None, process)?.expect_state("reverted")?;
        }
        for round in 0..3 {
            for words in [&["apply", &one, "-p", &pid][..], &["revert", "-p", &pid]] {
                let asked = asked_to_stand(words)?;
                ensure!(asked.len() == 1, "{} {round}: {asked:?}", words[0]);
            }
        }
        apply(&first, process, &[])?.expect_state("applied")?;
        let plan = invivo(&["plan", &other, "-p", &pid])?;
        ensure!(
            !plan.stdout.contains("a stop of all threads now"),
            "{}",
            plan.told()
        );
        // Once for a copy of the pages, and once to move it over them.
        let asked = asked_to_stand(&["replace", &other, "-p", &pid])?;
        ensure!(asked.len() == 2, "{asked:?}");
        target.expect("price", "13")?;
        let asked = asked_to_stand(&["revert", "-p", &pid])?;
        ensure!(asked.len() == 1, "the last revert: {asked:?}");
        target.expect("trouble", "early 0 strange 0")?;
        target.expect("interrupted", "0")?;
        // Nothing in this one is long enough for a jump.
        let pair = Pair::build(&dir.join("short"), "crowd.c", Build::default())?;
        let patch = pair.patch()?.display().to_string();
        let target = Target::start(&pair.base, &[THREADS.to_string()])?;
        let pid = target.pid().to_string();
        let plan = invivo(&["plan", &patch, "-p", &pid])?;
        ensure!(
            plan.stdout.contains("through padding, between two jumps"),
            "{}",
            plan.told()
        );
        for (words, threads) in [
            (&["apply", &patch, "-p", &pid][..], 1),
            (&["revert", "-p", &pid], THREADS),
        ] {
            let asked: BTreeSet<u32> = asked_to_stand(words)?.into_iter().collect();
            ensure!(asked.len() == threads, "{}: {asked:?}", words[0]);
        }
        Ok(())
    })
}

/// Where one thread waits in read, one in epoll_wait and others spin, the one in read is visited, each time.
#[test]
fn the_thread_that_it_hurts_least() -> Result<()> {
    in_workdir("chosen", |dir| {
        let pair = Pair::build(dir, "chosen.c", Build::default())?;
        let patch = pair.patch()?.display().to_string();
        let mut target = pair.start()?;
        let reader: u32 = target.ask("reader")?.parse()?;
        let pid = target.pid().to_string();
        for round in 0..10 {
            for (words, side) in [
                (&["apply", &patch, "-p", &pid][..], Side::New),
                (&["revert", "-p", &pid], Side::Old),
            ] {
                let asked = asked_to_stand(words)?;
                let right = !asked.is_empty() && asked.iter().all(|tid| *tid == reader);
                ensure!(
                    right,
                    "{} {round}: asked were {asked:?}, {reader} waits in read, {pid} in epoll_wait",
                    words[0]
                );
                target
                    .expect_all(&pair.fixture.asks, side)
                    .with_context(|| format!("{} {round}", words[0]))?;
            }
        }
        Ok(())
    })
}

/// What a process may have of address space (`RLIMIT_AS`): what it has, and `more`.
fn limit(pid: u32, more: u64) -> Result<()> {
    let status = read_to_string(format!("/proc/{pid}/status"))?;
    let size = status.lines().find_map(|line| {
        let size = line.strip_prefix("VmSize:")?.strip_suffix("kB")?;
        size.trim().parse::<u64>().ok()
    });
    let most = size.context("no VmSize")? * 1024 + more;
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &format!("--as={most}:")]);
    ensure!(prlimit.status()?.success(), "no limit");
    Ok(())
}

/// Where the process may not have the address space for pages aside, or for a clean copy of them, all threads stop as if there were no
/// other way; and it goes on, each time.
#[test]
fn address_space_that_is_too_small() -> Result<()> {
    in_workdir("narrow", |dir| {
        let build = Build {
            flags: &["-DLONG"],
            ..Build::default()
        };
        let pair = Pair::build(dir, "crowd.c", build)?;
        let again = compile(dir, &pair.fixture, Version::FixedAgain, build)?;
        let (first, second) = (pair.patch()?, dir.join("second.patch"));
        let more = ["--name", "second", "--sequence", "2"];
        invivo::build(&pair.base, &again, &second, &more)?;
        let mut target = Target::start(&pair.base, &["4"])?;
        let pid = target.pid();
        let before = Snapshot::of(pid)?;
        let plan = invivo(&[
            "plan",
            &first.display().to_string(),
            "-p",
            &pid.to_string(),
            "--json",
        ])?;
        let copy = &plan.json("invivo.plan/1")?["processes"][0]["copy"];
        let copy = copy.as_u64().context("no copy in the plan")?;
        ensure!(copy >= 0x1000, "{}", plan.told());
        // The first time makes the memory of both patches.
        for patch in [&first, &second] {
            apply(patch, pid, &[])?.expect_state("applied")?;
            revert(None, pid)?.expect_state("reverted")?;
        }
        let (stop, swap) = ("stopped", "page swap");
        // Room for nothing, for the pages aside, and for the copy of them, too.
        for (room, switches) in [
            (0, [stop, stop, stop]),
            (copy, [swap, stop, swap]),
            (2 * copy, [swap, swap, swap]),
        ] {
            limit(pid, room)?;
            let ran = [apply(&first, pid, &[])?, replace(&second, pid)?];
            target.expect("price", "13")?;
            let [applied, replaced] = [&ran[0], &ran[1]].map(|ran| ran.expect_state("applied"));
            let back = revert(None, pid)?.expect_state("reverted")?;
            let told = [applied?, replaced?, back];
            for (outcome, switch) in told.iter().zip(switches) {
                ensure!(outcome["switch"] == switch, "{room:#x}: {outcome}");
            }
            target.expect_all(&pair.fixture.asks, Side::Old)?;
            before.expect_same()?;
        }
        // A copy waits, and there is no room any more for one of it.
        limit(pid, 2 * copy)?;
        apply(&first, pid, &[])?.expect_state("applied")?;
        limit(pid, 0)?;
        let replaced = replace(&second, pid)?.expect_state("applied")?;
        ensure!(replaced["switch"] == stop, "{replaced}");
        target.expect("price", "13")?;
        revert(None, pid)?.expect_state("reverted")?;
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        before.expect_same()
    })
}
