//! `invivo blocking`

use std::time::Duration;

use invivo_apply::{Blocker, Consistency};
use invivo_image::demangle;
use invivo_linux::{Access, Process};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments;
use crate::failure::{Failure, NOT_NOW, print_all};
use crate::live::{Run, micros};
use crate::output::{Output, milliseconds};
use crate::patch_file::load;

/// `blocking --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Blocking {
    schema: &'static str,
    processes: Vec<ProcessBlocking>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ProcessBlocking {
    pid: i32,
    /// `blocked`, `free` or `refused`.
    state: &'static str,
    threads: Vec<BlockingThread>,
    /// Microseconds for which all threads stood.
    stopped_us: u64,
    /// Why it could not be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct BlockingThread {
    tid: i32,
    name: String,
    /// The replaced function that it is inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    /// Why its stack is not proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
    /// Innermost first.
    stack: Vec<StackFrame>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct StackFrame {
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

pub(crate) fn run(blocking: &arguments::Blocking, output: &Output) -> Result<u8, Failure> {
    let file = load(&blocking.patch)?;
    let run = Run::new(output);
    let options = run.options(Consistency::Quiescent, &blocking.effort);
    let mut worst = 0;
    let mut processes = Vec::new();
    let mut failures = Vec::new();
    for pid in &blocking.processes.pid {
        let looked = Process::open(*pid, Access::Write(&options))
            .map_err(Failure::from)
            .and_then(|mut process| {
                Ok(invivo_apply::blocking(&mut process, &file.patch, &file.id)?)
            });
        match looked {
            Ok((blockers, stopped)) => {
                worst = worst.max(if blockers.is_empty() { 0 } else { NOT_NOW });
                processes.push((found(*pid, &blockers, stopped), blockers));
            }
            Err(failure) => {
                worst = worst.max(failure.code);
                let process = ProcessBlocking {
                    state: "refused",
                    reason: Some(failure.text.clone()),
                    ..found(*pid, &[], Duration::ZERO)
                };
                processes.push((process, Vec::new()));
                failures.push(failure);
            }
        }
    }
    let (processes, blockers): (Vec<_>, Vec<_>) = processes.into_iter().unzip();
    let all = Blocking {
        schema: "invivo.blocking/1",
        processes,
    };
    output.data(&all, || {
        for (process, blockers) in all.processes.iter().zip(&blockers) {
            if process.reason.is_none() {
                let looked = milliseconds(process.stopped_us);
                anstream::println!(
                    "process {}: {} (seen in {looked})",
                    process.pid,
                    process.state
                );
            }
            blockers
                .iter()
                .for_each(|blocker| anstream::println!("  {blocker}"));
        }
    })?;
    Ok(worst.max(print_all(&failures)))
}

fn found(pid: i32, blockers: &[Blocker], stopped: Duration) -> ProcessBlocking {
    let thread = |blocker: &Blocker| BlockingThread {
        tid: blocker.thread.tid,
        name: blocker.thread.name.clone(),
        function: blocker.function.as_deref().map(demangle),
        unknown: blocker.unknown.clone(),
        stack: blocker
            .frames
            .iter()
            .map(|frame| StackFrame {
                at: frame.at.to_string(),
                place: frame.place.clone(),
            })
            .collect(),
    };
    ProcessBlocking {
        pid,
        state: if blockers.is_empty() {
            "free"
        } else {
            "blocked"
        },
        threads: blockers.iter().map(thread).collect(),
        stopped_us: micros(stopped),
        reason: None,
    }
}
