//! `invivo list`

use std::collections::BTreeSet;

use invivo_apply::{Applied, TargetError, list_all, shown};
use invivo_linux::{Access, Incarnation, Process, lender, processes};
use owo_colors::OwoColorize;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::List;
use crate::commands::xen;
use crate::failure::Failure;
use crate::output::Output;
use crate::unread;

/// `list --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Listing {
    schema: &'static str,
    processes: Vec<ProcessPatches>,
    /// Payloads of the hypervisor below, if it is Xen and may be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    xen: Option<xen::Payloads>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ProcessPatches {
    pid: i32,
    exe: String,
    patches: Vec<Applied>,
}

pub(crate) fn run(list: &List, output: &Output) -> Result<u8, Failure> {
    let all = list.pid.is_empty();
    let pids = if all { processes()? } else { list.pid.clone() };
    let mut found = Vec::new();
    let mut unread = 0;
    for pid in pids {
        match look(pid) {
            Ok(patches) if all && (patches.patches.is_empty() || lender(pid).is_some()) => {}
            Ok(patches) => found.push(patches),
            // Others' processes, kernel threads and those that ended meanwhile.
            Err(TargetError::NotPermitted { .. }) if all => unread += 1,
            Err(_) if all => {}
            Err(error) => return Err(error.into()),
        }
    }
    let listing = Listing {
        schema: "invivo.list/1",
        processes: found,
        xen: if all { xen::below() } else { None },
    };
    output.data(&listing, || print(&listing, unread))?;
    Ok(0)
}

/// What processes hold.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Those with a patch that is asked for.
    pub(crate) processes: Vec<Incarnation>,
    /// What patches are called that any of them holds.
    pub(crate) names: BTreeSet<String>,
    /// How many may not be looked at.
    pub(crate) unread: usize,
}

/// All processes with a patch that `wanted` accepts, be it live or taken back.
pub(crate) fn with_patches(wanted: impl Fn(&Applied) -> bool) -> Result<Held, Failure> {
    let mut held = Held::default();
    for pid in processes()? {
        let patches = Process::open(pid, Access::Read).and_then(|process| list_all(&process));
        match patches {
            Ok(patches) => {
                if patches.iter().any(&wanted) && lender(pid).is_none() {
                    held.processes.extend(Incarnation::of(pid));
                }
                held.names
                    .extend(patches.into_iter().map(|patch| patch.name));
            }
            Err(TargetError::NotPermitted { .. }) => held.unread += 1,
            Err(_) => {}
        }
    }
    Ok(held)
}

fn look(pid: i32) -> Result<ProcessPatches, TargetError> {
    let process = Process::open(pid, Access::Read)?;
    let exe = process.exe().map_or_else(
        || process.name().to_owned(),
        |exe| shown(&exe.to_string_lossy()),
    );
    Ok(ProcessPatches {
        pid,
        exe,
        patches: invivo_apply::list(&process)?,
    })
}

fn print(listing: &Listing, unread: usize) {
    if listing
        .processes
        .iter()
        .all(|process| process.patches.is_empty())
    {
        anstream::println!("no patch is live");
    }
    for process in &listing.processes {
        for patch in &process.patches {
            let state = serde_json::to_value(patch.state).ok();
            let state = state
                .and_then(|value| value.as_str().map(str::to_owned))
                .unwrap_or_default();
            let labels = match &patch.labels[..] {
                [] => String::new(),
                labels => format!(" [{}]", labels.join(", ")),
            };
            anstream::println!(
                "{} {}: {} {state}{labels}",
                process.pid,
                process.exe,
                patch.name.bold()
            );
            anstream::println!("    replaces {}", patch.functions.join(", "));
            if let Some(reason) = &patch.reason {
                anstream::println!("    {reason}");
            }
        }
    }
    if let Some(payloads) = &listing.xen {
        xen::print(payloads);
    }
    unread::print(unread);
}
