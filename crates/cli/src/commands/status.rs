//! `invivo status`

mod watch;

use std::collections::BTreeSet;
use std::path::Path;

use invivo_apply::{Standing, Target, TargetError, status};
use invivo_file::{Disk, OnDisk, started_as};
use invivo_image::Image;
use invivo_linux::{Access, Incarnation, Process, Scan, processes};
use invivo_patch::Hex;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{self, Selectors};
use crate::failure::{Failure, REFUSED};
use crate::images::read_file;
use crate::output::Output;
use crate::patch_file::{PatchFile, final_of, is_patch, load, parse};

/// `status --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Overview {
    schema: &'static str,
    processes: Vec<ProcessStatus>,
    /// Processes of other users, of which it is not known whether they are concerned.
    unread: usize,
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
    /// What a process that starts now would run: `same`, `fixed` where a final image was
    /// installed, `other` after an update, `gone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_disk: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct OldThread {
    tid: i32,
    name: String,
    /// Where in old code it may be.
    place: String,
}

/// An image that is asked about.
struct Wanted {
    build_id: Hex,
    patch: Option<PatchFile>,
}

pub(crate) fn run(asked: &arguments::Status, output: &Output) -> Result<u8, Failure> {
    let files: Result<Vec<Wanted>, Failure> = asked.files.iter().map(|f| wanted(f)).collect();
    let mut wanted = files?;
    wanted.extend(asked.selectors.build_id.iter().map(|id| Wanted {
        build_id: Hex(id.0.clone()),
        patch: None,
    }));
    if wanted.is_empty() {
        wanted = everything_patched()?;
    }
    let (mut scan, mut disk) = (Scan::default(), Disk::default());
    if let Some(seconds) = asked.watch {
        return watch::run(seconds, output, || {
            look(&mut scan, &mut disk, &wanted, &asked.selectors)
        });
    }
    let (overview, _) = look(&mut scan, &mut disk, &wanted, &asked.selectors)?;
    output.data(&overview, || print(&overview))?;
    if overview.unread > 0 && !output.quiet {
        let unread = overview.unread;
        anstream::eprintln!("{unread} processes of other users could not be looked at");
    }
    Ok(0)
}

/// The image that a patch or a program file is about.
fn wanted(file: &Path) -> Result<Wanted, Failure> {
    let bytes = read_file(file)?;
    if let Some(found) = final_of(file, &bytes)? {
        let name = file.display();
        let base = found.manifest.base.build_id.clone();
        return Ok(Wanted {
            build_id: base.ok_or_else(|| {
                Failure::new(REFUSED, format!("{name}: its base has no build id"))
            })?,
            patch: found.patch.map(|patch| parse(file, patch)).transpose()?,
        });
    }
    if is_patch(&bytes) {
        let patch = load(file)?;
        return Ok(Wanted {
            build_id: patch.patch.target.build_id.clone(),
            patch: Some(patch),
        });
    }
    let name = file.display();
    let refuse = |text: String| {
        Failure::new(REFUSED, text)
            .hint("give a patch, or the program or library that processes run")
    };
    let image = Image::parse(bytes, None).map_err(|error| refuse(format!("{name}: {error}")))?;
    let id = image
        .build_id
        .ok_or_else(|| refuse(format!("{name} has no build id")))?;
    Ok(Wanted {
        build_id: Hex(id.0),
        patch: None,
    })
}

/// Every image for which some process has a patch.
fn everything_patched() -> Result<Vec<Wanted>, Failure> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for pid in processes()? {
        let patches = Process::open(pid, Access::Read).and_then(|p| invivo_apply::list(&p));
        for patch in patches.unwrap_or_default() {
            if wanted.iter().all(|other| other.build_id != patch.build_id) {
                wanted.push(Wanted {
                    build_id: patch.build_id,
                    patch: None,
                });
            }
        }
    }
    Ok(wanted)
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
    let overview = Overview {
        schema: "invivo.status/1",
        processes: seen.iter().map(|(_, status)| status.clone()).collect(),
        unread: found.unread,
    };
    Ok((overview, seen))
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
    }
}

/// What a process would run if it were started again.
fn on_disk(process: &Process, build_id: &Hex, disk: &mut Disk) -> Option<&'static str> {
    let modules = process.modules().ok()?;
    let module = modules
        .iter()
        .find(|module| module.build_id == build_id.0)?;
    let root = format!("/proc/{}/root", process.pid());
    Some(
        match disk.look(root.as_ref(), module.path.as_ref(), build_id) {
            OnDisk::Same => "same",
            OnDisk::Final(_) => "fixed",
            OnDisk::Other => "other",
            OnDisk::Gone => "gone",
        },
    )
}

fn one(pid: i32, about: &Wanted, disk: &mut Disk) -> Result<ProcessStatus, TargetError> {
    let process = Process::open(pid, Access::Read)?;
    let exe = process.exe().map_or_else(
        || process.name().to_owned(),
        |exe| started_as(&exe).display().to_string(),
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
    Ok(ProcessStatus {
        on_disk: on_disk(&process, &about.build_id, disk),
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
    anstream::println!("{all} processes run it; {} are patched", applied.count());
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
        Some(what) => format!("; on disk: {what}"),
    };
    anstream::println!(
        "{} {}: {}{live}{disk}{why}",
        process.pid,
        process.exe,
        process.state
    );
}
