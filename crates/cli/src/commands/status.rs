//! `invivo status`

mod on_disk;
mod wanted;
mod watch;

use std::collections::BTreeSet;

use invivo_apply::{Standing, TargetError, shown, status};
use invivo_file::{Disk, started_as};
use invivo_linux::{Access, Incarnation, Process, Scan, read_regular};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{self, Selectors};
use crate::commands::xen::Standings;
use crate::failure::Failure;
use crate::output::Output;
use crate::unread;

use wanted::{Asked, Wanted};

/// `status --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Overview {
    schema: &'static str,
    processes: Vec<ProcessStatus>,
    /// Processes of other users, of which it is not known whether they are concerned.
    unread: usize,
    /// Where payloads for Xen were asked about: how they stand in the hypervisor below.
    #[serde(skip_serializing_if = "Option::is_none")]
    xen: Option<Standings>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct ProcessStatus {
    pid: i32,
    exe: String,
    build_id: String,
    /// `applied`, `pending`, `checked`, `unpatched`, `reverted`, `refused`, `unfinished`, `unknown`,
    /// or `lost` where a patched process ended and this one took its place.
    state: String,
    /// Patches of the image that are live.
    live: Vec<String>,
    /// Threads that may be in old code.
    threads: Vec<OldThread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What a process that starts now would run: `same`, `fixed` where the final image of the fix that was
    /// asked about is installed (or of any, where none was), `other` after an update or with another fix,
    /// `gone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_disk: Option<&'static str>,
    /// The name of the fix whose final image is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_disk_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct OldThread {
    tid: i32,
    name: String,
    /// Where in old code it may be.
    place: String,
}

pub(crate) fn run(asked: &arguments::Status, output: &Output) -> Result<u8, Failure> {
    let Asked { images, xen } = Asked::of(asked)?;
    let (mut scan, mut disk) = (Scan::default(), Disk::new(read_regular));
    if let Some(seconds) = asked.watch {
        return watch::run(seconds, output, || {
            look(&mut scan, &mut disk, &images, &asked.selectors)
        });
    }
    let mut overview = if images.is_empty() && xen.is_some() {
        Overview::of(&[], 0)
    } else {
        look(&mut scan, &mut disk, &images, &asked.selectors)?.0
    };
    overview.xen = xen;
    output.data(&overview, || {
        if !images.is_empty() || overview.xen.is_none() {
            print(&overview);
        }
        if let Some(xen) = &overview.xen {
            xen.print();
        }
    })?;
    if !output.quiet {
        unread::print(overview.unread);
    }
    Ok(0)
}

impl Overview {
    fn of(seen: &[(Incarnation, ProcessStatus)], unread: usize) -> Overview {
        Overview {
            schema: "invivo.status/1",
            processes: seen.iter().map(|(_, status)| status.clone()).collect(),
            unread,
            xen: None,
        }
    }
}

/// Which process stood how, for a comparison with later.
type Seen = Vec<(Incarnation, ProcessStatus)>;

fn look(
    scan: &mut Scan,
    disk: &mut Disk,
    wanted: &[Wanted],
    selectors: &Selectors,
) -> Result<(Overview, Seen), Failure> {
    let ids: Vec<&[u8]> = wanted.iter().map(|wanted| &wanted.build_id.0[..]).collect();
    let found = scan.find(&ids, &BTreeSet::new())?;
    let all = found.processes.iter().map(|(process, _)| *process);
    let chosen = selectors.keep(all.collect())?;
    let mut seen = Vec::new();
    for (process, id) in found.processes {
        if !chosen.contains(&process) {
            continue;
        }
        let about = wanted.iter().find(|wanted| wanted.build_id.0 == id);
        let Some(about) = about else { continue };
        match one(process.pid, about, disk) {
            Ok(status) => seen.push((process, status)),
            Err(_) if !process.is_still_there() => {}
            Err(error) => {
                let mut status = nothing(process.pid, about);
                status.reason = Some(error.to_string());
                seen.push((process, status));
            }
        }
    }
    seen.sort_by_key(|(process, _)| *process);
    Ok((Overview::of(&seen, found.unread), seen))
}

fn nothing(pid: i32, about: &Wanted) -> ProcessStatus {
    ProcessStatus {
        pid,
        exe: String::new(),
        build_id: about.build_id.to_string(),
        state: "unknown".to_owned(),
        live: Vec::new(),
        threads: Vec::new(),
        reason: None,
        on_disk: None,
        on_disk_name: None,
    }
}

fn one(pid: i32, about: &Wanted, disk: &mut Disk) -> Result<ProcessStatus, TargetError> {
    let process = Process::open(pid, Access::Read)?;
    let exe = process.exe().map_or_else(
        || process.name().to_owned(),
        |exe| shown(&started_as(&exe).to_string_lossy()),
    );
    let patch = about.patch.as_ref().map(|file| (&file.patch, &file.id));
    let status = status(&process, &about.build_id, patch)?;
    let threads = status.threads.into_iter().map(|blocker| OldThread {
        tid: blocker.thread.tid,
        name: blocker.thread.name,
        place: blocker.function.unwrap_or_default(),
    });
    let threads: Vec<OldThread> = threads.collect();
    let state = match status.standing {
        Standing::Applied => "applied",
        Standing::Pending => "pending",
        Standing::Unfinished => "unfinished",
        Standing::Reverted => "reverted",
        Standing::Checked => "checked",
        Standing::Refused => "refused",
        Standing::Unpatched => "unpatched",
    };
    let pending = threads.first().map(|first| {
        let (tid, name, place) = (first.tid, &first.name, &first.place);
        match threads.len() {
            1 => format!("thread {tid} ({name}) may still be in {place}"),
            all => format!("{all} threads may still be in old code, as {tid} ({name}) in {place}"),
        }
    });
    let (on_disk, on_disk_name) = on_disk::of(&process, about, disk).unzip();
    Ok(ProcessStatus {
        on_disk,
        on_disk_name: on_disk_name.flatten(),
        exe,
        state: state.to_owned(),
        live: status.live,
        reason: status.reason.or(pending),
        threads,
        ..nothing(pid, about)
    })
}

fn print(overview: &Overview) {
    overview.processes.iter().for_each(print_one);
    let all = overview.processes.len();
    let applied = overview.processes.iter().filter(|p| p.state == "applied");
    let run = match all {
        1 => "1 process runs it".to_owned(),
        _ => format!("{all} processes run it"),
    };
    let patched = match applied.count() {
        1 => "1 is patched".to_owned(),
        count => format!("{count} are patched"),
    };
    anstream::println!("{run}; {patched}");
}

fn print_one(process: &ProcessStatus) {
    let live = match &process.live[..] {
        [] => String::new(),
        names => format!(" {}", names.join(", ")),
    };
    let why = process
        .reason
        .as_ref()
        .map_or(String::new(), |why| format!(": {why}"));
    let disk = match process.on_disk {
        None | Some("same") => String::new(),
        Some(what) => {
            let name = process.on_disk_name.iter().filter(|_| what == "other");
            let name: String = name.map(|name| format!(" ({})", shown(name))).collect();
            format!("; on disk: {what}{name}")
        }
    };
    anstream::println!(
        "{} {}: {}{live}{disk}{why}",
        process.pid,
        process.exe,
        process.state
    );
}
