//! What a command does in each process that it is for.

use std::collections::BTreeSet;
use std::time::Instant;

use invivo_windows::{Access, Process};
use serde::Serialize;

use super::outcome::Change;
use super::processes::tell_unseen;
use crate::arguments::Processes;
use crate::failure::Failure;
use crate::looked::{self, Looked, Unseen};
use crate::output::Output;

/// How often processes are looked for that started meanwhile.
const LOOKS: usize = 10;

#[derive(Debug, Serialize)]
struct Outcomes {
    schema: &'static str,
    processes: Vec<Change>,
    /// Processes in which a tool had died while all threads stood, and how many went on.
    let_go: Vec<(u32, usize)>,
    /// Where all were wanted: who could not be looked at.
    unseen: Vec<Unseen>,
}

/// Does `work` in each process, or in all that `find` finds; prints all that was done; returns the
/// worst exit code.
pub(super) fn each(
    chosen: &Processes,
    output: &Output,
    find: &dyn Fn() -> Result<Looked<u32>, Failure>,
    work: &dyn Fn(&mut Process, u32, Instant) -> Result<Vec<Change>, Failure>,
) -> Result<u8, Failure> {
    let (mut all, mut let_go, mut code) = (Vec::new(), Vec::new(), 0);
    let (mut seen, mut looks, mut unseen) = (BTreeSet::new(), 0, Vec::new());
    let mut pids = if chosen.all {
        let looked = find()?;
        unseen = looked.unseen;
        looked.found
    } else {
        chosen.pid.clone()
    };
    while !pids.is_empty() {
        for pid in pids {
            seen.insert(pid);
            let patience = chosen.timeout.saturating_mul(1000);
            let done = Process::open(pid, Access::Write { patience })
                .map_err(Failure::from)
                .and_then(|mut process| {
                    if process.let_go() > 0 {
                        let_go.push((pid, process.let_go()));
                    }
                    work(&mut process, pid, Instant::now())
                });
            match done {
                Ok(done) => all.extend(done),
                Err(failure) => {
                    code = code.max(failure.print());
                }
            }
        }
        // Those that started meanwhile. What was done is told, whatever comes of it.
        looks += 1;
        pids = match chosen.all && looks < LOOKS {
            true => match find() {
                Ok(looked) => {
                    unseen = looked.unseen;
                    looked.found
                }
                Err(failure) => {
                    code = code.max(failure.print());
                    Vec::new()
                }
            },
            false => Vec::new(),
        };
        pids.retain(|pid| !seen.contains(pid));
    }
    let outcomes = Outcomes {
        schema: "invivo.windows-outcome/1",
        processes: all,
        let_go,
        unseen,
    };
    code = code.max(looked::code(&outcomes.unseen));
    output.data(&outcomes, || {
        if seen.is_empty() {
            anstream::println!("nothing to do: no process is concerned");
        }
        for (pid, threads) in &outcomes.let_go {
            anstream::println!(
                "process {pid}: {threads} threads go on that a tool which died had stopped"
            );
        }
        outcomes.processes.iter().for_each(Change::tell);
        tell_unseen(&outcomes.unseen);
    })?;
    Ok(code)
}
