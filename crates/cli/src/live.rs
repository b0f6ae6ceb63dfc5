//! Commands over several processes: one outcome each, the worst exit code for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use invivo_apply::{Blocker, Consistency, Options, Outcome};
use invivo_patch::Judgement;
use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::{Failure, INTERRUPTED};
use crate::output::{Output, milliseconds};
use crate::verdict::print_judgements;

/// What became of a patch in one process.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ProcessOutcome {
    pub(crate) pid: i32,
    /// `applied`, `reverted`, `nothing to do`, `refused`, `blocked` or `failed`.
    pub(crate) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replaced: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) consistency: Option<Consistency>,
    /// Functions that are hooked.
    pub(crate) hooks: usize,
    /// `page swap` or `stopped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) switch: Option<invivo_apply::SwitchKind>,
    /// Microseconds in all.
    pub(crate) wall_us: u64,
    /// Microseconds for which one thread was held.
    pub(crate) visited_us: u64,
    /// Microseconds for which all threads stood.
    pub(crate) stopped_us: u64,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// `apply --json` and `revert --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Outcomes {
    pub(crate) schema: &'static str,
    /// Findings against the patch that a person has judged to do no harm.
    pub(crate) judgements: Vec<Judgement>,
    pub(crate) processes: Vec<ProcessOutcome>,
}

/// Options for the engine, with Ctrl-C in hand.
pub(crate) struct Run {
    interrupted: Arc<AtomicBool>,
    quiet: bool,
}

impl Run {
    pub(crate) fn new(output: &Output) -> Run {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // Without a handler the signal ends the program, which is safe too.
            let _ = signal_hook::flag::register(signal, Arc::clone(&interrupted));
        }
        Run {
            interrupted,
            quiet: output.quiet,
        }
    }

    pub(crate) fn options(&self, consistency: Consistency, timeout: f64) -> Options<'_> {
        Options {
            consistency,
            timeout: Duration::from_secs_f64(timeout),
            applied_by: format!("invivo {}", env!("CARGO_PKG_VERSION")),
            interrupted: Some(&self.interrupted),
            waiting: if self.quiet { None } else { Some(tell) },
        }
    }

    /// Does `work` for each process; prints all outcomes; returns the worst exit code.
    pub(crate) fn each(
        &self,
        pids: &[i32],
        judgements: &[Judgement],
        output: &Output,
        work: impl Fn(i32) -> Result<Vec<Outcome>, Failure>,
    ) -> Result<u8, Failure> {
        let mut processes = Vec::new();
        let mut failures: Vec<Failure> = Vec::new();
        for pid in pids {
            let start = Instant::now();
            let result = work(*pid);
            let wall = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
            match result {
                Ok(outcomes) => {
                    processes.extend(
                        outcomes
                            .into_iter()
                            .map(|outcome| done(*pid, outcome, wall)),
                    );
                }
                Err(mut failure) => {
                    if failure.code == crate::failure::NOT_NOW
                        && self.interrupted.load(Ordering::Relaxed)
                    {
                        failure.code = INTERRUPTED;
                        failure.text =
                            format!("interrupted; process {pid} is as it was: {}", failure.text);
                    }
                    processes.push(failed(*pid, &failure, wall));
                    failures.push(failure);
                }
            }
            if self.interrupted.load(Ordering::Relaxed) {
                break;
            }
        }
        let outcomes = Outcomes {
            schema: "invivo.outcome/1",
            judgements: judgements.to_vec(),
            processes,
        };
        output.data(&outcomes, || {
            outcomes.processes.iter().for_each(print);
            print_judgements(&outcomes.judgements);
        })?;
        for failure in &failures {
            failure.print();
        }
        Ok(failures
            .iter()
            .map(|failure| failure.code)
            .max()
            .unwrap_or(0))
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Says who is waited for.
fn tell(blockers: &[Blocker]) {
    for blocker in blockers {
        anstream::eprintln!("waiting: {}", blocker.reason());
    }
}

fn done(pid: i32, outcome: Outcome, wall_us: u64) -> ProcessOutcome {
    let state = match outcome.state {
        invivo_apply::OutcomeState::Applied => "applied",
        invivo_apply::OutcomeState::Reverted => "reverted",
        invivo_apply::OutcomeState::NothingToDo => "nothing to do",
    };
    ProcessOutcome {
        pid,
        state: state.to_owned(),
        patch: Some(outcome.patch),
        replaced: outcome.replaced,
        consistency: Some(outcome.consistency),
        hooks: outcome.hooks,
        switch: outcome.switch,
        wall_us,
        visited_us: micros(outcome.visited),
        stopped_us: micros(outcome.stopped),
        reason: None,
    }
}

fn failed(pid: i32, failure: &Failure, wall_us: u64) -> ProcessOutcome {
    let state = match failure.code {
        crate::failure::REFUSED => "refused",
        crate::failure::NOT_NOW | INTERRUPTED => "blocked",
        _ => "failed",
    };
    ProcessOutcome {
        pid,
        state: state.to_owned(),
        patch: None,
        replaced: None,
        consistency: None,
        hooks: 0,
        switch: None,
        wall_us,
        visited_us: 0,
        stopped_us: 0,
        reason: Some(failure.text.clone()),
    }
}

fn print(outcome: &ProcessOutcome) {
    if outcome.reason.is_some() {
        return;
    }
    let patch = outcome.patch.as_deref().unwrap_or("no live patch");
    let functions = if outcome.hooks == 1 {
        "function"
    } else {
        "functions"
    };
    let how = match outcome.switch {
        None => String::new(),
        Some(invivo_apply::SwitchKind::PageSwap) => {
            format!(
                ": {} {functions} hooked, no thread stopped, one held for {}",
                outcome.hooks,
                milliseconds(outcome.visited_us)
            )
        }
        Some(invivo_apply::SwitchKind::Stopped) => {
            format!(
                ": {} {functions} hooked, all threads stopped for {}",
                outcome.hooks,
                milliseconds(outcome.stopped_us)
            )
        }
    };
    let how = if outcome.state == "reverted" {
        how.replace("hooked", "restored")
    } else {
        how
    };
    let replaced = outcome
        .replaced
        .as_ref()
        .map_or(String::new(), |old| format!(", replacing {old}"));
    anstream::println!(
        "process {}: {} {patch}{replaced}{how} ({})",
        outcome.pid,
        outcome.state,
        milliseconds(outcome.wall_us)
    );
}
