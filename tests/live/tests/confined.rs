//! Processes that have given up rights: patched without needing them, or refused before anything is touched.

use std::path::Path;

use anyhow::{Result, ensure};
use live_tests::compile::Build;
use live_tests::invivo::{apply, invivo, revert};
use live_tests::killed::{Whom, killed_before};
use live_tests::memory::{Snapshot, mappings};
use live_tests::pair::Pair;
use live_tests::round_trip::there_and_back;
use live_tests::run::Ran;
use live_tests::target::{Side, Target};
use live_tests::unharmed::am_root;
use live_tests::workdir::in_workdir;

fn confined(kind: &str, body: impl FnOnce(&Pair, &Path, &mut Target) -> Result<()>) -> Result<()> {
    in_workdir(kind, |dir| {
        let pair = Pair::build(dir, "confined.c", Build::default())?;
        let patch = pair.patch()?;
        let mut target = Target::start(&pair.base, &[kind])?;
        target.expect("confine", "confined")?;
        body(&pair, &patch, &mut target)
    })
}

// Nothing was done, and the process is as it was.
fn refused(kind: &str, (code, words): (i32, &[&str])) -> Result<()> {
    confined(kind, |pair, patch, target| {
        let (before, all) = (Snapshot::of(target.pid())?, mappings(target.pid())?);
        let ran = apply(patch, target.pid(), &[])?;
        ran.expect_failure(code, words)?;
        before.expect_same()?;
        ensure!(all == mappings(target.pid())?, "a mapping was left behind");
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

// What only root is told: a filter shows to nobody else.
const UNSEEN: (i32, &[&str]) = (
    5,
    &[
        "filters its system calls (seccomp)",
        "hint: it takes CAP_SYS_ADMIN",
    ],
);

fn filtered(kind: &str, body: impl FnOnce(&Pair, &Path, &mut Target) -> Result<()>) -> Result<()> {
    if am_root()? {
        confined(kind, body)
    } else {
        refused(kind, UNSEEN)
    }
}

fn filter_refuses(kind: &str, call: &str) -> Result<()> {
    if am_root()? {
        refused(kind, (1, &["filters its system calls (seccomp)", call]))
    } else {
        refused(kind, UNSEEN)
    }
}

/// It may not gain privileges by exec, which nothing here needs.
#[test]
fn no_new_privileges() -> Result<()> {
    confined("plain", |pair, patch, target| {
        there_and_back(pair, patch, target)
    })
}

/// Memory that was writable may not become executable: the patch's memory never was writable.
#[test]
fn memory_deny_write_execute() -> Result<()> {
    confined("mdwe", |pair, patch, target| {
        there_and_back(pair, patch, target)
    })
}

/// Two filters as a service manager installs them: a list of what is allowed, and one that looks at the arguments of mmap
/// and mprotect. Both allow all that a patch needs; one thread waits with a time-out.
#[test]
fn filters_of_a_service_manager() -> Result<()> {
    filtered("service", there_and_back)
}

/// A filter would judge our calls as it judges the program's own, and end the process for them: refused, unharmed.
#[test]
fn filter_that_forbids_mappings() -> Result<()> {
    filter_refuses("no-mmap", "mmap(")
}

/// The same for one kind of memory: the call is named with what the filter looked at.
#[test]
fn filter_that_forbids_code() -> Result<()> {
    filter_refuses("no-code", ", 0x5, 0x100022, ")
}

/// A signal would end the process, too: all of them are blocked while a thread makes a call for us.
#[test]
fn filter_that_sends_a_signal() -> Result<()> {
    filter_refuses("trapped-code", "mmap(")
}

/// What cannot be undone is not begun.
#[test]
fn filter_that_forbids_the_way_out() -> Result<()> {
    filter_refuses("no-munmap", "munmap(")
}

/// If the tool died, the thread would come back to itself by a call that is forbidden.
#[test]
fn filter_that_forbids_the_way_back() -> Result<()> {
    filter_refuses("no-return", "rt_sigreturn(")
}

/// Pages cannot be swapped, so the hooks are written while all threads stand.
#[test]
fn filter_that_forbids_moving_pages() -> Result<()> {
    filtered("no-mremap", |pair, patch, target| {
        let outcome = apply(patch, target.pid(), &[])?.expect_state("applied")?;
        ensure!(outcome["switch"] == "stopped", "{outcome}");
        target.expect_all(&pair.fixture.asks, Side::New)?;
        revert(None, target.pid())?.expect_state("reverted")?;
        there_and_back(pair, patch, target)
    })
}

/// The filter lets the call fail: it is suspended for the moment.
#[test]
fn filter_that_lets_code_fail() -> Result<()> {
    filtered("failing-code", there_and_back)
}

/// The filter forbids the call by which the kernel resumes a wait with a time-out after a stop: no stop makes it.
#[test]
fn filter_that_forbids_resuming() -> Result<()> {
    filtered("no-restart", there_and_back)
}

/// Only one thread has a filter: another one makes the calls, for any user.
#[test]
fn filter_of_one_thread() -> Result<()> {
    confined("one-thread", there_and_back)
}

/// It may do nothing but read, write and exit.
#[test]
fn strict_mode() -> Result<()> {
    refused("strict", (1, &["strict mode"]))
}

// What `plan` says of a process that has confined itself, while nothing stops.
fn planned(kind: &str, check: impl FnOnce(&Ran) -> Result<()>) -> Result<()> {
    confined(kind, |_, patch, target| {
        let patch = patch.display().to_string();
        check(&invivo(&["plan", &patch, "-p", &target.pid().to_string()])?)
    })
}

/// What a filter answers only a thread that stands shows; that it will be asked, and about which calls, is told before.
#[test]
fn plan_tells_of_filters() -> Result<()> {
    planned("service", |ran| {
        ran.expect_code(0)?;
        let needs =
            "filter their system calls (seccomp); a patch needs mmap, mremap, munmap, rt_sigreturn";
        let then = if am_root()? {
            "asked about them when it is applied"
        } else {
            "only root"
        };
        let told = [needs, then].iter().all(|words| ran.stdout.contains(words));
        ensure!(told, "{}", ran.told());
        Ok(())
    })?;
    planned("plain", |ran| {
        ensure!(
            !ran.expect_code(0)?.stdout.contains("seccomp"),
            "{}",
            ran.told()
        );
        Ok(())
    })?;
    planned("strict", |ran| {
        ran.expect_failure(1, &["strict mode"])?;
        Ok(())
    })
}

/// Where the filter is suspended, a tool that dies, alone or with its deputy, leaves at worst a call that fails.
#[test]
fn killed_while_a_filter_is_suspended() -> Result<()> {
    filtered("failing-code", |pair, patch, target| {
        let (patch, pid) = (patch.display().to_string(), target.pid().to_string());
        let before = Snapshot::of(target.pid())?;
        for whom in [Whom::Tool, Whom::Everything] {
            for step in 0.. {
                if !killed_before(&["apply", &patch, "-p", &pid], step, whom)? {
                    break;
                }
                invivo(&["recover", "-p", &pid])?.expect_code(0)?;
                invivo(&["revert", "-p", &pid])?.expect_code(0)?;
                target.expect_all(&pair.fixture.asks, Side::Old)?;
                before.expect_same()?;
            }
            revert(None, target.pid())?.expect_state("reverted")?;
        }
        there_and_back(pair, Path::new(&patch), target)
    })
}
