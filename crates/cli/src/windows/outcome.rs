//! What was done in processes, and how it is told.

use std::time::{Duration, Instant};

use invivo_apply::hpat::Refitted;
use serde::Serialize;

use super::legacy;
use crate::output::milliseconds;

/// What was done with one base of a process.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pid: u32,
    /// `applied`, `reverted` or `settled`.
    state: &'static str,
    base: String,
    /// Of the patch that is live now; 0 where none is.
    sequence: u32,
    fresh: usize,
    replaced: usize,
    restored: usize,
    /// True if jumps that nothing leads to had to be left, since a thread was always there.
    left: bool,
    /// True if a tool that died had left something in the middle.
    settled: bool,
    /// Patches that were to be unloaded, and why they were not.
    unloaded: Vec<(String, Option<String>)>,
    /// What did not stand in the way, and should be known.
    warnings: Vec<String>,
    wall_us: u64,
    stopped_us: u64,
}

/// What was done, by the kind of patch.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Change {
    Modern(Done),
    Older(legacy::Done),
}

impl Change {
    /// Prints it.
    pub(super) fn tell(&self) {
        match self {
            Change::Modern(done) => tell(done),
            Change::Older(done) => legacy::tell(done),
        }
    }
}

pub(super) fn done(pid: u32, state: &'static str, refitted: Refitted, begin: Instant) -> Change {
    let outcome = refitted.outcome;
    Change::Modern(Done {
        pid,
        state,
        base: refitted.base,
        sequence: refitted.sequence,
        fresh: outcome.fresh,
        replaced: outcome.replaced,
        restored: outcome.restored,
        left: outcome.left,
        settled: refitted.settled,
        unloaded: refitted.unloaded,
        warnings: refitted.warnings,
        wall_us: micros(begin.elapsed()),
        stopped_us: micros(outcome.stopped),
    })
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn tell(done: &Done) {
    let mut parts = Vec::new();
    for (count, what) in [
        (done.fresh, "redirected"),
        (done.replaced, "redirected anew"),
        (done.restored, "restored"),
    ] {
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{count} function{plural} {what}"));
        }
    }
    parts.push(stood(done.stopped_us));
    anstream::println!(
        "process {}: {} in {}: {} ({})",
        done.pid,
        done.state,
        done.base,
        parts.join(", "),
        milliseconds(done.wall_us)
    );
    tell_unloaded(&done.unloaded);
    for warning in &done.warnings {
        anstream::println!("    {warning}");
    }
}

pub(super) fn stood(stopped_us: u64) -> String {
    match stopped_us {
        0 => "no thread stopped".to_owned(),
        time => format!("all threads stopped for {}", milliseconds(time)),
    }
}

pub(super) fn tell_unloaded(unloaded: &[(String, Option<String>)]) {
    for (patch, kept) in unloaded {
        match kept {
            Some(why) => anstream::println!("    {patch} stays loaded: {why}"),
            None => anstream::println!("    {patch} was unloaded"),
        }
    }
}
