//! What a command does in each process that it is for.

use std::time::{Duration, Instant};

use invivo_windows::{Access, Process, started};
use serde::Serialize;

use super::outcome::Change;
use super::processes::tell_unseen;
use crate::arguments::Processes;
use crate::failure::Failure;
use crate::looked::{self, Looked, Unseen};
use crate::meanwhile::{Meanwhile, Met};
use crate::output::Output;

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
    let (mut all, mut let_go) = (Vec::new(), Vec::new());
    let patience = chosen.timeout.saturating_mul(1000);
    let mut one = |pid: u32| -> Result<(), Failure> {
        let mut process = Process::open(pid, Access::Write { patience })?;
        let_go.extend(process.let_go().map(|threads| (pid, threads)));
        all.extend(work(&mut process, pid, Instant::now())?);
        Ok(())
    };
    let met = if chosen.all {
        let meanwhile = Meanwhile {
            patience: Duration::from_secs(chosen.timeout.into()),
            started: &started,
        };
        meanwhile.everywhere(find, &mut one)?
    } else {
        let failures = chosen.pid.iter().filter_map(|pid| one(*pid).err());
        Met {
            failures: failures.collect(),
            count: chosen.pid.len(),
            unseen: Vec::new(),
        }
    };
    let codes = met.failures.iter().map(Failure::print);
    let code = codes.max().unwrap_or(0).max(looked::code(&met.unseen));
    let outcomes = Outcomes {
        schema: "invivo.windows-outcome/1",
        processes: all,
        let_go,
        unseen: met.unseen,
    };
    output.data(&outcomes, || {
        if met.count == 0 {
            anstream::println!("nothing to do: no process is concerned");
        }
        for (pid, threads) in &outcomes.let_go {
            let which = match threads {
                0 => "all".to_owned(),
                threads => threads.to_string(),
            };
            anstream::println!(
                "process {pid}: {which} threads go on that a tool which died had stopped"
            );
        }
        outcomes.processes.iter().for_each(Change::tell);
        tell_unseen(&outcomes.unseen);
    })?;
    Ok(code)
}
