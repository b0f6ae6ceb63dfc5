//! `invivo plan`

use invivo_apply::{HookChange, Planned, PlannedHook, Step, TargetError, hotp1, hpat, shown};
use invivo_windows::{Access, Process};

use super::planned::{HookPlan, ProcessPlan, WindowsPlans};
use super::processes::tell_unseen;
use super::{concerned, image, whole_path};
use crate::arguments::Plan;
use crate::failure::Failure;
use crate::looked;
use crate::output::Output;

pub(super) fn plan(plan: &Plan, output: &Output) -> Result<u8, Failure> {
    let older = invivo_format::hotp1::is_legacy(&image(&plan.patch)?);
    let path = whole_path(&plan.patch)?;
    let (mut pids, mut unseen) = (plan.pid.clone(), Vec::new());
    if plan.all {
        let looked = concerned(&plan.patch, &path, older)?;
        (pids, unseen) = (looked.found, looked.unseen);
    }
    let (mut processes, mut failures) = (Vec::new(), Vec::new());
    for pid in pids {
        processes.push(match in_process(pid, &path, older) {
            Ok(planned) => described(pid, planned),
            Err(failure) => {
                let reason = Some(failure.text.clone());
                failures.push(failure);
                ProcessPlan {
                    pid,
                    state: "refused",
                    reason,
                    ..ProcessPlan::default()
                }
            }
        });
    }
    let plans = WindowsPlans {
        schema: "invivo.windows-plan/1",
        processes,
        unseen,
    };
    let codes = failures.iter().map(Failure::print);
    let code = codes.max().unwrap_or(0).max(looked::code(&plans.unseen));
    output.data(&plans, || {
        if plans.processes.is_empty() {
            anstream::println!("nothing to do: no process is concerned");
        }
        plans.processes.iter().for_each(tell);
        tell_unseen(&plans.unseen);
    })?;
    Ok(code)
}

fn in_process(pid: u32, path: &str, older: bool) -> Result<Planned, Failure> {
    let process = Process::open(pid, Access::Ask)?;
    // A tool that was at work meanwhile, and is done, leaves nothing of what stood in the way.
    asked(&process, pid, path, older).or_else(|_| asked(&process, pid, path, older))
}

/// What is in the middle while another tool is at work is no dead tool's.
fn refuse_taken(process: &Process, pid: u32) -> Result<(), Failure> {
    match process.is_taken() {
        false => Ok(()),
        true => {
            let text = format!("another tool is at work in process {pid}");
            Err(TargetError::NotNow(text).into())
        }
    }
}

fn asked(process: &Process, pid: u32, path: &str, older: bool) -> Result<Planned, Failure> {
    refuse_taken(process, pid)?;
    match process.standing() {
        0 => {}
        threads => {
            let text = format!(
                "{threads} threads of process {pid} stand, since a tool died; every command that changes \
                 something lets them go first"
            );
            let failure = Failure::from(TargetError::NotNow(text));
            return Err(failure.hint(format!("let them go: invivo recover --pid {pid}")));
        }
    }
    let planned = match older {
        true => hotp1::plan(process, path),
        false => hpat::plan(process, path),
    };
    if planned.is_err() {
        // One that began meanwhile may be why.
        refuse_taken(process, pid)?;
    }
    Ok(planned?)
}

fn described(pid: u32, planned: Planned) -> ProcessPlan {
    let steps = planned.stops.iter().map(|stop| stop.step);
    ProcessPlan {
        pid,
        state: "ready",
        base: Some(planned.base),
        hooks: planned.hooks.into_iter().map(hook).collect(),
        memory: planned.memory,
        needs_stop: steps.into_iter().any(|step| step == Step::Apply),
        stops: planned.stops,
        libraries: planned.libraries,
        open: planned.open,
        warnings: planned.warnings,
        reason: None,
    }
}

fn hook(hook: PlannedHook) -> HookPlan {
    HookPlan {
        function: hook.name,
        at: hook.at.to_string(),
        rva: hook.rva.to_string(),
        form: hook.form,
        change: hook.change,
        leads_to: hook.to.map(|to| to.to_string()),
    }
}

fn tell(plan: &ProcessPlan) {
    let Some(base) = &plan.base else {
        return;
    };
    anstream::println!("process {}: {}: {base}", plan.pid, plan.state);
    for hook in &plan.hooks {
        let name = hook.function.as_deref();
        let name = name.map_or_else(String::new, |name| format!(" {}", shown(name)));
        let change = match hook.change {
            HookChange::Redirected => "redirected",
            HookChange::RedirectedAnew => "redirected anew",
            HookChange::Restored => "restored",
        };
        let to = hook.leads_to.as_ref();
        let to = to.map_or_else(String::new, |to| format!(", to {to} of the patch"));
        anstream::println!("  {}{name}: {change} ({}{to})", hook.at, hook.form);
    }
    let stop = match plan.needs_stop {
        true => "all threads for a moment",
        false => "no thread",
    };
    anstream::println!("  {} bytes of new memory; stops {stop}", plan.memory);
    for library in &plan.libraries {
        anstream::println!("  the loader has to find {}, too", shown(library));
    }
    for stop in &plan.stops {
        let when = match stop.step {
            Step::Apply => "now",
            Step::Revert => "when it is taken back",
        };
        anstream::println!("  a stop of all threads {when}: {}", stop.reason);
    }
    if let Some(open) = &plan.open {
        anstream::println!("  not known before: {open}");
    }
    for warning in &plan.warnings {
        anstream::println!("  {warning}");
    }
}
