//! `invivo plan`

use std::collections::BTreeSet;

use invivo_apply::{ApplyError, Preflight, Step, Stop, Stops, Target};
use invivo_linux::{Access, CALLS, Filtered, Process, Scan};
use invivo_patch::{Hex, Judgement, Patch};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Plan, Targets};
use crate::commands::apply::{Replaces, concerned};
use crate::commands::inspect::CalloutDump;
use crate::commands::xen::verbs;
use crate::failure::{Failure, REFUSED, print_all};
use crate::images::read_file;
use crate::output::Output;
use crate::patch_file::{PatchFile, parse, payload_of};

/// `plan --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Plans {
    schema: &'static str,
    /// Findings against the patch that a person has judged to do no harm.
    judgements: Vec<Judgement>,
    processes: Vec<ProcessPlan>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ProcessPlan {
    pid: i32,
    /// `ready`, `nothing to do` or `refused`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    hooks: Vec<HookPlan>,
    /// Bytes of new memory.
    memory: u64,
    /// Bytes of address space, pages of the image's file, in which a clean copy of the code will wait
    /// until no patch is live, so that another one takes its place without a stop.
    copy: u64,
    /// True if all threads have to stop for a moment even with `entry` consistency.
    needs_stop: bool,
    /// Why all threads stop, when it is applied with `entry` consistency and when it is taken
    /// back later; empty if no thread stops.
    stops: Vec<Stop>,
    /// True if the patch goes live only while no thread is inside what it replaces, whatever
    /// consistency is asked for: functions are called in another way now,
    /// or lead back to where their hook is.
    quiescent: bool,
    /// Threads that filter their system calls, if any do.
    #[serde(skip_serializing_if = "Option::is_none")]
    filters: Option<FilterPlan>,
    /// Functions of the patch that will be called in the process.
    callouts: Vec<CalloutDump>,
    /// The live patch that would be replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct HookPlan {
    function: String,
    at: String,
    form: &'static str,
    leads_to: String,
}

/// What is known of a process's filters of system calls (seccomp). They are asked when the patch is
/// applied, before anything is changed, for only a thread that stands shows them.
#[derive(Debug, Serialize, JsonSchema)]
struct FilterPlan {
    /// Threads with filters.
    threads: usize,
    /// Threads in all.
    of: usize,
    /// The calls that a thread makes for the patch.
    calls: [&'static str; 4],
    /// True if the filters can be asked about these calls.
    readable: bool,
}

pub(crate) fn run(plan: &Plan, output: &Output) -> Result<u8, Failure> {
    let bytes = read_file(&plan.patch)?;
    if let Some(payload) = payload_of(&plan.patch, &bytes)? {
        payload.goes_to_xen(&plan.targets)?;
        return verbs::plan(&payload, None, Replaces::Earlier, output);
    }
    let file = parse(&plan.patch, &bytes)?;
    plan.targets.required()?;
    show(&file, &plan.targets, Preflight::new, output)
}

/// Plans `file` for each chosen process and prints it; returns the worst exit code.
pub(crate) fn show(
    file: &PatchFile,
    targets: &Targets,
    prove: impl Fn(&dyn Target, &Patch, &Hex) -> Result<Preflight, ApplyError>,
    output: &Output,
) -> Result<u8, Failure> {
    let mut pids = targets.selectors.pid.clone();
    if !targets.are_named() {
        let found = concerned(
            &mut Scan::default(),
            &file.patch.target.build_id.0,
            &BTreeSet::new(),
        )?;
        pids = targets.keep(found)?.0.iter().map(|p| p.pid).collect();
    }
    let mut processes = Vec::new();
    let mut failures = Vec::new();
    for pid in &pids {
        let planned = Process::open(*pid, Access::Read)
            .map_err(Failure::from)
            .and_then(|process| {
                let preflight = prove(&process, &file.patch, &file.id)?;
                let stops = preflight.stops(&process)?;
                let filters = filters(*pid, process.filtered()?)?;
                Ok((preflight, stops, filters))
            });
        match planned {
            Ok((preflight, stops, filters)) => processes.push(ProcessPlan {
                filters,
                ..describe(*pid, &preflight, stops)
            }),
            Err(failure) => {
                processes.push(ProcessPlan {
                    pid: *pid,
                    state: "refused",
                    image: None,
                    hooks: Vec::new(),
                    memory: 0,
                    copy: 0,
                    needs_stop: false,
                    stops: Vec::new(),
                    filters: None,
                    callouts: Vec::new(),
                    quiescent: false,
                    replaces: None,
                    reason: Some(failure.text.clone()),
                });
                failures.push(failure);
            }
        }
    }
    let plans = Plans {
        schema: "invivo.plan/1",
        judgements: file.patch.judgements.clone(),
        processes,
    };
    output.data(&plans, || {
        plans.processes.iter().for_each(print);
        crate::verdict::print_judgements(&plans.judgements);
    })?;
    Ok(print_all(&failures))
}

/// What is to be said of filters; an error where it is known that no thread can make a call.
fn filters(pid: i32, found: Filtered) -> Result<Option<FilterPlan>, Failure> {
    if found.threads > 0 && found.strict == found.threads {
        let text = format!(
            "all threads of process {pid} may only read, write and exit (seccomp, strict mode); a \
             call made for the patch would end them"
        );
        return Err(Failure::new(REFUSED, text));
    }
    Ok((found.filtered > 0).then_some(FilterPlan {
        threads: found.filtered,
        of: found.threads,
        calls: CALLS,
        readable: found.readable,
    }))
}

fn describe(pid: i32, preflight: &Preflight, stops: Stops) -> ProcessPlan {
    let layout = &preflight.layout;
    let new = layout.data.end.0 - layout.region.start.0;
    ProcessPlan {
        pid,
        state: if preflight.applied.is_some() {
            "nothing to do"
        } else {
            "ready"
        },
        image: Some(preflight.module.path.clone()),
        hooks: preflight
            .hooks
            .iter()
            .map(|hook| HookPlan {
                function: invivo_image::demangle(&hook.function),
                at: hook.entry.to_string(),
                form: hook.form.name(),
                leads_to: hook.destination.to_string(),
            })
            .collect(),
        memory: if preflight.kept.is_some() || preflight.applied.is_some() {
            0
        } else {
            new
        },
        copy: stops.copy,
        needs_stop: stops.all.iter().any(|stop| stop.step == Step::Apply),
        stops: stops.all,
        filters: None,
        callouts: layout
            .callouts
            .iter()
            .flat_map(|callouts| &callouts.all)
            .map(|placed| CalloutDump::new(placed.moment, &placed.function))
            .collect(),
        quiescent: preflight.quiescent,
        replaces: preflight
            .previous
            .as_ref()
            .map(|record| record.name.clone()),
        reason: None,
    }
}

fn print(plan: &ProcessPlan) {
    if plan.reason.is_some() {
        return;
    }
    let image = plan.image.as_deref().unwrap_or("?");
    anstream::println!("process {}, {image}: {}", plan.pid, plan.state);
    for hook in &plan.hooks {
        anstream::println!(
            "  {} {}: {} to {}",
            hook.at,
            hook.function,
            hook.form,
            hook.leads_to
        );
    }
    if let Some(old) = &plan.replaces {
        anstream::println!("  replaces {old}");
    }
    if plan.state == "ready" {
        let stop = if plan.quiescent {
            "all threads for a moment at which none is inside what is replaced"
        } else if plan.needs_stop {
            "all threads for a moment"
        } else {
            "no thread"
        };
        anstream::println!("  {} bytes of new memory; stops {stop}", plan.memory);
        if plan.copy > 0 {
            anstream::println!(
                "  {} bytes of its code are shown a second time while a patch is live: with that copy the next one \
                 needs no stop",
                plan.copy
            );
        }
        if let Some(filters) = &plan.filters {
            let then = if filters.readable {
                "the filters are asked about them when it is applied, before anything is changed"
            } else {
                "only root can ask the filters about them, so apply it as root"
            };
            anstream::println!(
                "  {} of {} threads filter their system calls (seccomp); a patch needs {}: {then}",
                filters.threads,
                filters.of,
                filters.calls.join(", ")
            );
        }
        plan.callouts.iter().for_each(CalloutDump::print);
        for stop in &plan.stops {
            let when = match stop.step {
                Step::Apply => "now",
                Step::Revert => "when it is taken back",
            };
            anstream::println!("  a stop of all threads {when}: {}", stop.reason);
        }
    }
}
