//! Processes that have given up rights: patched without needing them, or refused before anything is touched.

use anyhow::Result;
use live_tests::compile::Build;
use live_tests::invivo::apply;
use live_tests::memory::Snapshot;
use live_tests::pair::Pair;
use live_tests::round_trip::there_and_back;
use live_tests::target::{Side, Target};
use live_tests::workdir::in_workdir;

fn confined(
    kind: &str,
    body: impl FnOnce(&Pair, &std::path::Path, &mut Target) -> Result<()>,
) -> Result<()> {
    in_workdir(kind, |dir| {
        let pair = Pair::build(dir, "confined.c", Build::default())?;
        let patch = pair.patch()?;
        let mut target = Target::start(&pair.base, &[kind])?;
        target.expect("confine", "confined")?;
        body(&pair, &patch, &mut target)
    })
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

/// A filter would judge our calls as it judges the program's own, and end the process for them: refused, unharmed.
#[test]
fn filter_that_forbids_mappings() -> Result<()> {
    confined("seccomp", |pair, patch, target| {
        let before = Snapshot::of(target.pid())?;
        apply(patch, target.pid(), &[])?
            .expect_failure(1, &["filters its system calls (seccomp)"])?;
        before.expect_same()?;
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}
