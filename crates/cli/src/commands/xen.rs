//! `invivo xen`

mod below;
mod standing;
pub(crate) mod verbs;

use std::path::Path;

use invivo_xen::{Done, Name, Operation};
use owo_colors::OwoColorize;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Xen, XenCommand};
use crate::commands::apply::Replaces;
use crate::commands::payload as check;
use crate::commands::trust;
use crate::failure::{Failure, USAGE};
use crate::images::read_file;
use crate::output::{Output, milliseconds};

pub(crate) use below::{Payloads, below, print};
use below::{failure, list, open, payload, shown};
pub(crate) use standing::{Below, Standings};

/// `--json` of the commands that change something in the hypervisor.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct XenOutcome {
    schema: &'static str,
    /// `upload`, `apply`, `replace`, `revert` or `unload`.
    action: String,
    payload: String,
    /// False if there was nothing to do.
    changed: bool,
    /// How often Xen was asked.
    attempts: u32,
    /// From the first call to the result.
    took_us: u64,
}

pub(crate) fn run(xen: &Xen, output: &Output) -> Result<u8, Failure> {
    // What is wrong with the command's own file is told wherever it runs.
    let upload = match &xen.command {
        XenCommand::Upload(upload) => {
            let name = name_of(&upload.payload, upload.name.as_ref())?;
            let bytes = read_file(&upload.payload)?;
            // Before anybody reads what is in it.
            trust::require(&upload.payload, &bytes, &upload.cert)?;
            Some((name, bytes))
        }
        _ => None,
    };
    let mut control = open()?;
    let (operation, name, done) = match &xen.command {
        XenCommand::List => {
            let payloads = list(&mut control)?;
            output.data(&payloads, || print(&payloads))?;
            return Ok(0);
        }
        XenCommand::Get(named) => {
            let status = control.get(&named.name).map_err(failure)?;
            let payloads = shown(&mut control, vec![payload(&named.name, status)]);
            output.data(&payloads, || print(&payloads))?;
            return Ok(0);
        }
        XenCommand::Upload(_) => {
            let (name, bytes) = upload.ok_or_else(|| Failure::new(70, "no payload was read"))?;
            // What Xen refuses it refuses by itself; what it would fail with never gets there.
            let (_, minor) = control.version();
            check::harmless(&name.to_string(), &bytes, minor, Replaces::Earlier)?;
            let start = std::time::Instant::now();
            let (attempts, uploaded) = (1, control.upload(&name, &bytes));
            let took = start.elapsed();
            (
                Operation::Upload,
                name,
                uploaded.map(|()| Done { attempts, took }),
            )
        }
        XenCommand::Apply(apply) => {
            let (name, patience) = (&apply.act.name, apply.act.waiting.patience());
            let done = control.apply(name, apply.nodeps, patience);
            (Operation::Apply, name.clone(), done)
        }
        XenCommand::Replace(act) => {
            let done = control.replace(&act.name, act.waiting.patience());
            (Operation::Replace, act.name.clone(), done)
        }
        XenCommand::Revert(act) => {
            let done = control.revert(&act.name, act.waiting.patience());
            (Operation::Revert, act.name.clone(), done)
        }
        XenCommand::Unload(act) => {
            let done = control.unload(&act.name, act.waiting.patience());
            (Operation::Unload, act.name.clone(), done)
        }
    };
    tell(operation, &name, done.map_err(failure)?, output)?;
    Ok(0)
}

/// Prints what was done.
fn tell(operation: Operation, name: &Name, done: Done, output: &Output) -> Result<(), Failure> {
    let outcome = XenOutcome {
        schema: "invivo.xen-outcome/1",
        action: operation.word().to_owned(),
        payload: name.to_string(),
        changed: done.attempts > 0,
        attempts: done.attempts,
        took_us: u64::try_from(done.took.as_micros()).unwrap_or(u64::MAX),
    };
    output.data(&outcome, || {
        let did = match operation {
            Operation::Upload => "loaded",
            Operation::Apply | Operation::Replace => "applied",
            Operation::Revert => "reverted",
            _ => "unloaded",
        };
        let took = milliseconds(outcome.took_us);
        let how = match outcome.attempts {
            0 => "nothing to do".to_owned(),
            1 => took,
            attempts => format!("{took}, {attempts} attempts"),
        };
        anstream::println!("{}: {did} ({how})", name.bold());
    })
}

/// The name that was given, or the file's.
fn name_of(payload: &Path, given: Option<&Name>) -> Result<Name, Failure> {
    if let Some(name) = given {
        return Ok(name.clone());
    }
    let stem = payload.file_stem().unwrap_or_default();
    Name::new(&stem.to_string_lossy()).map_err(|error| {
        Failure::new(USAGE, error.to_string()).hint("choose another one with --name NAME")
    })
}
