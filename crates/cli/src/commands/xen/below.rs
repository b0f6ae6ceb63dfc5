//! The hypervisor below: how it is reached, what it has, and what its refusals mean.

use invivo_xen::device::{Device, DeviceError};
use invivo_xen::{Control, Errno, Error, Name, Operation, State, Status};
use owo_colors::OwoColorize;
use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::{Failure, GONE, NOT_NOW, PERMISSION, REFUSED, USAGE};

/// `xen list --json` and `xen get --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Payloads {
    schema: &'static str,
    pub(crate) hypervisor: Hypervisor,
    pub(crate) payloads: Vec<Payload>,
}

/// What runs below.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Hypervisor {
    /// Such as `4.17.4`.
    pub(crate) version: String,
    /// In hexadecimal; payloads name the one that they are for.
    pub(crate) build_id: Option<String>,
    /// The version of the interface, such as `0x15`.
    interface: String,
}

impl Hypervisor {
    /// Prints it for a person.
    pub(crate) fn print(&self) {
        let id = self.build_id.as_deref().unwrap_or("unknown");
        anstream::println!("Xen {}, build id {id}", self.version);
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Payload {
    pub(crate) name: String,
    /// `checked` (loaded, not live) or `applied`.
    pub(crate) state: String,
    /// Of the last action: `done`, `pending`, or Xen's error, such as `EBUSY`.
    pub(crate) result: String,
    /// What its `.modinfo` says, `key=value` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) metadata: Vec<String>,
}

/// The hypervisor below.
pub(crate) fn open() -> Result<Control<Device>, Failure> {
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

impl Payload {
    /// That its last action failed.
    pub(crate) fn failed(&self) -> Option<String> {
        let failed = !matches!(self.result.as_str(), "done" | "pending");
        failed.then(|| format!("its last action failed: {}", self.result))
    }
}

/// All payloads of the hypervisor below, if there is one that may be asked.
pub(crate) fn below() -> Option<Payloads> {
    let mut control = Control::open(Device::open().ok()?).ok()?;
    list(&mut control).ok()
}

/// All payloads of the hypervisor below.
pub(crate) fn list(control: &mut Control<Device>) -> Result<Payloads, Failure> {
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

pub(super) fn shown(control: &mut Control<Device>, payloads: Vec<Payload>) -> Payloads {
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

pub(super) fn payload(name: &Name, status: Status) -> Payload {
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
    payloads.hypervisor.print();
    if payloads.payloads.is_empty() {
        anstream::println!("no payload is loaded");
    }
    for one in &payloads.payloads {
        let last = match one.result.as_str() {
            "pending" => " (an action goes on)".to_owned(),
            _ => one
                .failed()
                .map_or(String::new(), |why| format!(" ({why})")),
        };
        anstream::println!("  {}: {}{last}", one.name.bold(), one.state);
        for text in &one.metadata {
            anstream::println!("    {}", text.escape_debug());
        }
    }
}

/// Xen's refusal as people and scripts see it.
pub(super) fn failure(error: Error) -> Failure {
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
        Error::Unpatched { .. } => Failure::new(REFUSED, text).hint(
            "make what was live so again, in the order in which it was: invivo xen apply NAME",
        ),
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
