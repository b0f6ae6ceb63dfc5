//! Commands over several processes: one outcome each, the worst exit code for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use invivo_apply::{Blocker, Called, Consistency, Options, Outcome, Unloaded};
use invivo_patch::Judgement;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Effort;
use crate::failure::{Failure, INTERRUPTED, NOT_NOW, print_all};
use crate::output::{Output, milliseconds};
use crate::steps;
use crate::verdict::print_judgements;

/// What became of a patch in one process.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ProcessOutcome {
    pub(crate) pid: i32,
    /// `applied`, `reverted`, `nothing to do`, `refused`, `blocked`, `failed`, or `ended` where
    /// the process was gone before it was its turn.
    pub(crate) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replaced: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) consistency: Option<Consistency>,
    /// Functions of the patch that were called, and what they answered.
    pub(crate) called: Vec<Called>,
    /// What became of its memory, if that was to be given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unloaded: Option<Unloaded>,
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
    /// Processes of other users, of which it is not known whether they are concerned.
    pub(crate) unread: usize,
}

/// Options for the engine, with Ctrl-C in hand.
pub(crate) struct Run {
    interrupted: Arc<AtomicBool>,
    quiet: bool,
    verbose: bool,
    timed: bool,
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
            verbose: output.verbose,
            timed: false,
        }
    }

    /// The same where how long each step takes is told, or not.
    pub(crate) fn timed(mut self, timed: bool) -> Run {
        self.timed = timed;
        self
    }

    pub(crate) fn options(&self, consistency: Consistency, effort: &Effort) -> Options<'_> {
        Options {
            consistency,
            timeout: Duration::from_secs_f64(effort.timeout),
            search: effort.search.map(|mib| u64::from(mib) << 20),
            applied_by: format!("invivo {}", env!("CARGO_PKG_VERSION")),
            interrupted: Some(&self.interrupted),
            waiting: if self.quiet { None } else { Some(tell) },
            steps: (self.timed || self.verbose).then_some(steps::note),
        }
    }

    /// True once the user wants to stop.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Does `work` for one process: its outcomes, and why it was not done.
    pub(crate) fn one(
        &self,
        pid: i32,
        work: &dyn Fn(i32) -> Result<Vec<Outcome>, Failure>,
    ) -> (Vec<ProcessOutcome>, Option<Failure>) {
        let start = Instant::now();
        let result = work(pid);
        steps::print(pid, start.elapsed(), self.timed, self.verbose);
        let wall = micros(start.elapsed());
        match result {
            Ok(outcomes) => {
                let done = outcomes.into_iter().map(|outcome| done(pid, outcome, wall));
                (done.collect(), None)
            }
            Err(mut failure) => {
                if failure.code == NOT_NOW && self.is_interrupted() {
                    failure.code = INTERRUPTED;
                    failure.text =
                        format!("interrupted; process {pid} is as it was: {}", failure.text);
                }
                (vec![failed(pid, &failure, wall)], Some(failure))
            }
        }
    }

    /// Does `work` for each process; prints all outcomes; returns the worst exit code.
    pub(crate) fn each(
        &self,
        pids: &[i32],
        judgements: &[Judgement],
        output: &Output,
        work: &dyn Fn(i32) -> Result<Vec<Outcome>, Failure>,
    ) -> Result<u8, Failure> {
        let mut all = Vec::new();
        for pid in pids {
            let one = self.one(*pid, work);
            let state = one.0.first().map_or("", |outcome| &outcome.state);
            output.process_done(*pid, state, all.len() + 1, pids.len());
            all.push(one);
            if self.is_interrupted() {
                break;
            }
        }
        show(all, judgements, 0, output)
    }
}

/// Prints what became of each process; returns the worst exit code.
pub(crate) fn show(
    all: Vec<(Vec<ProcessOutcome>, Option<Failure>)>,
    judgements: &[Judgement],
    unread: usize,
    output: &Output,
) -> Result<u8, Failure> {
    let (processes, failures): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let failures: Vec<Failure> = failures.into_iter().flatten().collect();
    let looked_at = processes.len();
    let outcomes = Outcomes {
        schema: "invivo.outcome/1",
        judgements: judgements.to_vec(),
        processes: processes.into_iter().flatten().collect(),
        unread,
    };
    output.data(&outcomes, || {
        if looked_at == 0 {
            anstream::println!("nothing to do: no process is concerned");
        }
        outcomes.processes.iter().for_each(print);
        print_judgements(&outcomes.judgements);
    })?;
    let worst = print_all(&failures);
    if looked_at > 1 && !failures.is_empty() {
        let text = format!("{} of {looked_at} processes: not done", failures.len());
        Failure::new(0, text).print();
    }
    Ok(worst)
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
        called: outcome.called,
        unloaded: outcome.unloaded,
        hooks: outcome.hooks,
        switch: outcome.switch,
        wall_us,
        visited_us: micros(outcome.visited),
        stopped_us: micros(outcome.stopped),
        reason: None,
    }
}

pub(crate) fn failed(pid: i32, failure: &Failure, wall_us: u64) -> ProcessOutcome {
    let state = match failure.code {
        crate::failure::REFUSED => "refused",
        NOT_NOW | INTERRUPTED => "blocked",
        _ => "failed",
    };
    ProcessOutcome {
        wall_us,
        reason: Some(failure.text.clone()),
        ..nothing(pid, state)
    }
}

/// The outcome of a process that was gone before it was its turn.
pub(crate) fn ended(pid: i32) -> ProcessOutcome {
    ProcessOutcome {
        reason: Some(format!(
            "process {pid} has ended, or became another program"
        )),
        ..nothing(pid, "ended")
    }
}

/// A process in which nothing was done.
fn nothing(pid: i32, state: &str) -> ProcessOutcome {
    ProcessOutcome {
        pid,
        state: state.to_owned(),
        patch: None,
        replaced: None,
        consistency: None,
        called: Vec::new(),
        unloaded: None,
        hooks: 0,
        switch: None,
        wall_us: 0,
        visited_us: 0,
        stopped_us: 0,
        reason: None,
    }
}

fn print(outcome: &ProcessOutcome) {
    if outcome.reason.is_some() {
        return;
    }
    let patch = outcome.patch.as_deref().unwrap_or("no live patch");
    let colon = match outcome.state.as_str() {
        "nothing to do" => ":",
        _ => "",
    };
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
        "process {}: {}{colon} {patch}{replaced}{how} ({})",
        outcome.pid,
        outcome.state,
        milliseconds(outcome.wall_us)
    );
    if let Some(Unloaded { freed, kept, .. }) = &outcome.unloaded {
        match kept {
            Some(why) => anstream::println!("    its memory stays: {why}"),
            None => anstream::println!("    its memory was given back: {freed} bytes"),
        }
    }
    for called in &outcome.called {
        anstream::println!(
            "    called {} {}, which answered {}",
            called.function,
            called.moment,
            called.answer.cast_signed()
        );
    }
}
