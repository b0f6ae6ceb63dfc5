//! `invivo status --watch`: what changes, as it changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use invivo_linux::Incarnation;

use super::{Overview, ProcessStatus, Seen, print, print_one};
use crate::failure::Failure;
use crate::live::Run;
use crate::output::Output;

type Processes = BTreeMap<Incarnation, ProcessStatus>;

/// Looks again and again until the user stops it. The first look is printed whole, then
/// only what is different; as JSON the whole again each time that something is.
pub(super) fn run(
    seconds: f64,
    output: &Output,
    mut look: impl FnMut() -> Result<(Overview, Seen), Failure>,
) -> Result<u8, Failure> {
    let run = Run::new(output);
    let mut before: Option<Processes> = None;
    // Patched processes that ended, by program: the next one of it takes their place.
    let mut ended: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    while !run.is_interrupted() {
        let (mut overview, seen) = look()?;
        let mut now: Processes = seen.into_iter().collect();
        if let Some(known) = &before {
            find_lost(known, &mut now, &mut ended);
        }
        if before.as_ref() != Some(&now) {
            overview.processes = now.values().cloned().collect();
            output.data(&overview, || match &before {
                None => print(&overview),
                Some(known) => print_changes(known, &now),
            })?;
        }
        before = Some(now);
        let next = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < next && !run.is_interrupted() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(0)
}

/// Marks processes that run old code where a patched one of the same program ended.
fn find_lost(known: &Processes, now: &mut Processes, ended: &mut BTreeMap<String, Vec<i32>>) {
    for (process, status) in known {
        let was_patched = matches!(status.state.as_str(), "applied" | "pending");
        if was_patched && !now.contains_key(process) {
            ended
                .entry(status.exe.clone())
                .or_default()
                .push(process.pid);
        }
    }
    for (process, status) in now {
        if !matches!(status.state.as_str(), "unpatched" | "checked" | "refused") {
            continue;
        }
        match known.get(process) {
            Some(old) if old.state == "lost" => *status = old.clone(),
            Some(_) => {}
            None => take_place(status, ended),
        }
    }
}

fn take_place(status: &mut ProcessStatus, ended: &mut BTreeMap<String, Vec<i32>>) {
    let Some(pid) = ended.get_mut(&status.exe).and_then(Vec::pop) else {
        return;
    };
    status.state = "lost".to_owned();
    status.reason = Some(if pid == status.pid {
        "it executed its program anew, which drops patches".to_owned()
    } else {
        format!("restarted: process {pid}, which was patched, ended")
    });
}

fn print_changes(known: &Processes, now: &Processes) {
    for (process, status) in known {
        if !now.contains_key(process) {
            anstream::println!("{} {}: ended", status.pid, status.exe);
        }
    }
    let changed = now
        .iter()
        .filter(|(process, status)| known.get(process) != Some(status));
    changed.for_each(|(_, status)| print_one(status));
}
