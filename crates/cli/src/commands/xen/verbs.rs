//! Payloads for Xen by the verbs that patches of processes have: apply, replace, plan, revert.

use std::time::{Duration, Instant};

use invivo_image::BuildId;
use invivo_xen::{Done, Error, Name, Operation};

use super::below::{Payload, failure, list, open};
use super::standing::{Below, Standing};
use super::{check, name_of, tell};
use crate::arguments::{Apply, Revert, patience};
use crate::commands::apply::Replaces;
use crate::commands::payload::{Running, plan as predicted};
use crate::failure::{Failure, GONE};
use crate::output::Output;
use crate::patch_file::PayloadFile;

/// Loads a payload, unless it is, and makes it live. Where that fails it is unloaded again.
pub(crate) fn apply(
    file: &PayloadFile,
    asked: &Apply,
    replaces: Replaces,
    output: &Output,
) -> Result<u8, Failure> {
    file.goes_to_xen(&asked.targets)?;
    let given = asked.payload.name.as_ref();
    if asked.dry_run {
        return plan(file, given, replaces, output);
    }
    let name = name_of(&file.path, given)?;
    let mut control = open()?;
    let start = Instant::now();
    let below = list(&mut control)?;
    let loaded = file.proved(&name, &below.payloads)?;
    let name = loaded.map_or(Ok(name), |one| Name::new(&one.name).map_err(failure))?;
    if loaded.is_none() {
        // What Xen refuses it refuses by itself; what it would fail with never gets there.
        let (_, minor) = control.version();
        check::harmless(name.as_str(), &file.bytes, minor, replaces)?;
        control.upload(&name, &file.bytes).map_err(failure)?;
    }
    let uploaded = start.elapsed();
    let patience = patience(asked.effort.timeout, asked.payload.rendezvous);
    let (operation, done) = match replaces {
        Replaces::Earlier => (Operation::Apply, control.apply(&name, false, patience)),
        Replaces::Any => (Operation::Replace, control.replace(&name, patience)),
    };
    let took = start.elapsed();
    let attempts = match done {
        Ok(done) => done.attempts,
        Err(error) => {
            // An action that goes on may still make it live.
            let undo = loaded.is_none() && !matches!(error, Error::Pending { .. });
            let mut failed = failure(error);
            if undo && let Err(error) = control.unload(&name, patience) {
                failed.text = format!("{}; it stays loaded: {error}", failed.text);
            }
            return Err(failed);
        }
    };
    if asked.time {
        steps(&name, uploaded, took);
    }
    tell(operation, &name, Done { attempts, took }, output)?;
    Ok(0)
}

fn steps(name: &Name, uploaded: Duration, all: Duration) {
    let action = all.saturating_sub(uploaded);
    for (step, took) in [("upload", uploaded), ("action", action), ("all", all)] {
        anstream::eprintln!("{:>9.3} ms  {name}: {step}", took.as_secs_f64() * 1e3);
    }
}

/// Takes a payload back, and forgets it if that is asked for, too.
pub(crate) fn revert(asked: &Revert, output: &Output) -> Result<u8, Failure> {
    let name = Name::new(asked.name.as_deref().unwrap_or_default()).map_err(failure)?;
    let patience = patience(asked.effort.timeout, asked.rendezvous);
    let mut control = open()?;
    let mut done = control.revert(&name, patience).map_err(failure)?;
    let mut operation = Operation::Revert;
    if asked.unload {
        let unloaded = control.unload(&name, patience).map_err(failure)?;
        done.attempts = done.attempts.max(unloaded.attempts);
        done.took += unloaded.took;
        operation = Operation::Unload;
    }
    tell(operation, &name, done, output)?;
    Ok(0)
}

/// Tells what the hypervisor below is expected to answer; changes nothing.
pub(crate) fn plan(
    file: &PayloadFile,
    given: Option<&Name>,
    replaces: Replaces,
    output: &Output,
) -> Result<u8, Failure> {
    let name = name_of(&file.path, given)?;
    let mut control = open().map_err(|failure| match failure.code {
        GONE => failure.hint(format!(
            "run it in the control domain (dom0) of a machine that was started with Xen; what a \
             release answers is told on any machine by: invivo check {} --xen-version 4.20",
            file.path.display()
        )),
        _ => failure,
    })?;
    let below = list(&mut control)?;
    let own = file.proved(&name, &below.payloads)?;
    let is_live = |one: &&Payload| one.state == "applied";
    let live = below.payloads.iter().filter(is_live).count();
    let own_is_live = own.as_ref().is_some_and(is_live);
    if own_is_live && live > 1 && replaces == Replaces::Any {
        return Err(failure(Error::ReplaceApplied));
    }
    let (_, minor) = control.version();
    let running = Running {
        minor,
        build_id: control.build_id().ok().map(BuildId),
        on_top: live > 0,
    };
    let below = Below {
        payload: Standing::of(file, &name, &below),
        hypervisor: below.hypervisor,
    };
    predicted(file, &running, below, replaces, output)
}
