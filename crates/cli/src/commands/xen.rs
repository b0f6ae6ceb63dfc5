//! `invivo xen`

pub(crate) mod trace;

use std::path::Path;

use invivo_xen::device::{Device, DeviceError};
use invivo_xen::{Control, Done, Errno, Error, Name, Operation, State, Status};
use owo_colors::OwoColorize;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Upload, Xen, XenCommand};
use crate::commands::payload as check;
use crate::commands::trust;
use crate::failure::{Failure, GONE, NOT_NOW, PERMISSION, REFUSED, USAGE};
use crate::images::read_file;
use crate::output::{Output, milliseconds};

/// `xen list --json` and `xen get --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Payloads {
    schema: &'static str,
    hypervisor: Hypervisor,
    payloads: Vec<Payload>,
}

/// What runs below.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Hypervisor {
    /// Such as `4.17.4`.
    version: String,
    /// In hexadecimal; payloads name the one that they are for.
    build_id: Option<String>,
    /// The version of the interface, such as `0x15`.
    interface: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Payload {
    name: String,
    /// `checked` (loaded, not live) or `applied`.
    state: String,
    /// Of the last action: `done`, `pending`, or Xen's error, such as `EBUSY`.
    result: String,
    /// What its `.modinfo` says, `key=value` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<String>,
}

/// `--json` of the commands that change something.
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
    if let XenCommand::Trace(asked) = &xen.command {
        return trace::run(asked, output);
    }
    // What is wrong with the command's own file is told wherever it runs.
    let upload = match &xen.command {
        XenCommand::Upload(upload) => {
            let (name, bytes) = (name_of(upload)?, read_file(&upload.payload)?);
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
            check::harmless(&name.to_string(), &bytes, minor)?;
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
        // It asks no hypervisor, and was answered above.
        XenCommand::Trace(_) => return Err(Failure::new(70, "trace is no action")),
        XenCommand::Unload(act) => {
            let done = control.unload(&act.name, act.waiting.patience());
            (Operation::Unload, act.name.clone(), done)
        }
    };
    tell(operation, &name, done.map_err(failure)?, output)?;
    Ok(0)
}

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

/// The hypervisor below.
fn open() -> Result<Control<Device>, Failure> {
    let device = Device::open().map_err(|error| {
        let text = error.to_string();
        match error {
            DeviceError::NotXen => Failure::new(GONE, text)
                .hint("run it in the control domain (dom0) of a machine that was started with Xen"),
            DeviceError::NoDevice => {
                Failure::new(PERMISSION, text).hint("load its module: sudo modprobe xen-privcmd")
            }
            DeviceError::NotPermitted(_) => {
                Failure::new(PERMISSION, text).hint("run it as root: sudo invivo xen …")
            }
            _ => Failure::new(USAGE, text),
        }
    })?;
    Control::open(device).map_err(failure)
}

/// All payloads of the hypervisor below, if there is one that may be asked.
pub(crate) fn below() -> Option<Payloads> {
    let mut control = Control::open(Device::open().ok()?).ok()?;
    list(&mut control).ok()
}

/// All payloads of the hypervisor below.
fn list(control: &mut Control<Device>) -> Result<Payloads, Failure> {
    let listing = control.list().map_err(failure)?;
    let payloads = listing.payloads.into_iter().map(|one| Payload {
        name: one.name,
        state: state(one.status.state),
        result: result(one.status.result),
        metadata: one.metadata,
    });
    let payloads = payloads.collect();
    Ok(shown(control, payloads))
}

fn shown(control: &mut Control<Device>, payloads: Vec<Payload>) -> Payloads {
    let (major, minor) = control.version();
    let extra = control.extra_version().unwrap_or_default();
    let id = control.build_id().ok();
    let hypervisor = Hypervisor {
        version: format!("{major}.{minor}{extra}"),
        build_id: id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()),
        interface: format!("{:#x}", control.interface()),
    };
    Payloads {
        schema: "invivo.xen/1",
        hypervisor,
        payloads,
    }
}

fn payload(name: &Name, status: Status) -> Payload {
    Payload {
        name: name.to_string(),
        state: state(status.state),
        result: result(status.result),
        metadata: Vec::new(),
    }
}

fn state(state: State) -> String {
    match state {
        State::Checked => "checked".to_owned(),
        State::Applied => "applied".to_owned(),
        State::Unknown(number) => format!("unknown ({number})"),
    }
}

fn result(result: i32) -> String {
    match Errno::check(result.into()) {
        Ok(_) => "done".to_owned(),
        Err(Errno::EAGAIN) => "pending".to_owned(),
        Err(errno) => errno.to_string(),
    }
}

/// Prints them for a person.
pub(crate) fn print(payloads: &Payloads) {
    let hypervisor = &payloads.hypervisor;
    let id = hypervisor.build_id.as_deref().unwrap_or("unknown");
    anstream::println!("Xen {}, build id {id}", hypervisor.version);
    if payloads.payloads.is_empty() {
        anstream::println!("no payload is loaded");
    }
    for one in &payloads.payloads {
        let last = match one.result.as_str() {
            "done" => String::new(),
            "pending" => " (an action goes on)".to_owned(),
            other => format!(" (its last action failed: {other})"),
        };
        anstream::println!("  {}: {}{last}", one.name.bold(), one.state);
        for text in &one.metadata {
            anstream::println!("    {}", text.escape_debug());
        }
    }
}

/// The name that was given, or the file's.
fn name_of(upload: &Upload) -> Result<Name, Failure> {
    if let Some(name) = &upload.name {
        return Ok(name.clone());
    }
    let stem = upload
        .payload
        .file_stem()
        .unwrap_or(Path::new("").as_os_str());
    Name::new(&stem.to_string_lossy()).map_err(|error| {
        Failure::new(USAGE, error.to_string()).hint("choose another one with --name NAME")
    })
}

/// Xen's refusal as people and scripts see it.
fn failure(error: Error) -> Failure {
    let text = error.to_string();
    let more = "Xen's own words are on its console: sudo xl dmesg";
    match error {
        Error::Busy { begun: true, .. } => Failure::new(NOT_NOW, text)
            .hint("give the processors more time with --rendezvous MILLISECONDS, or try again"),
        Error::Busy { .. } => Failure::new(NOT_NOW, text).hint("try again in a moment"),
        Error::Pending { .. } => {
            Failure::new(NOT_NOW, text).hint("see what came of it with: invivo xen get NAME")
        }
        Error::Unsteady => Failure::new(NOT_NOW, text).hint("try again in a moment"),
        Error::NotPrivileged => Failure::new(PERMISSION, text)
            .hint("run it in the control domain (dom0), as root: sudo invivo xen …"),
        Error::NoLivepatch => {
            Failure::new(REFUSED, text).hint("start the machine with a Xen that was built with it")
        }
        Error::ReplaceApplied => Failure::new(REFUSED, text)
            .hint("take back those above it with: invivo xen revert NAME"),
        Error::Refused {
            operation: Operation::Upload | Operation::List,
            ..
        }
        | Error::Failed { .. } => Failure::new(REFUSED, text).hint(more),
        Error::Refused {
            errno: Errno::ENOENT,
            ..
        } => Failure::new(REFUSED, text).hint("see those that are loaded with: invivo xen list"),
        Error::Refused {
            operation: Operation::Unload,
            errno: Errno::EINVAL,
        } => Failure::new(REFUSED, text).hint("take it back first with: invivo xen revert NAME"),
        Error::Refused { .. } => Failure::new(REFUSED, text).hint(more),
        Error::Name(_) | Error::Size(_) => Failure::new(USAGE, text),
        _ => Failure::new(REFUSED, text),
    }
}
