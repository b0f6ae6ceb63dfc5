//! What the commands do with patch modules of older Windows.

use std::time::Instant;

use invivo_apply::hotp1::{self, Concerned, LegacyRecord};
use invivo_apply::hpat::OnDisk;
use invivo_apply::shown;
use invivo_windows::Process;
use serde::Serialize;

use super::WE;
use super::outcome::{Change, micros, stood, tell_unloaded};
use super::processes::{look_at_each, tell_unseen};
use crate::failure::Failure;
use crate::looked::{Looked, Unseen};
use crate::output::{Output, milliseconds};

/// What became of a patch module.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Became {
    Applied,
    Removed,
    Settled,
    /// Only memory was given back.
    Unloaded,
}

impl Became {
    fn name(self) -> &'static str {
        match self {
            Became::Applied => "applied",
            Became::Removed => "removed",
            Became::Settled => "settled",
            Became::Unloaded => "unloaded",
        }
    }
}

/// What was done with one module of a process.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pid: u32,
    state: Became,
    module: String,
    patch: String,
    /// Places that were changed, all in one step.
    hooks: usize,
    /// Patches of the module that are active now.
    active: usize,
    /// True if a tool that died had left something in the middle.
    settled: bool,
    /// Patches that were to be unloaded, and why they were not.
    unloaded: Vec<(String, Option<String>)>,
    wall_us: u64,
    stopped_us: u64,
}

fn change(pid: u32, state: Became, done: hotp1::Done, begin: Instant) -> Change {
    Change::Older(Done {
        pid,
        state,
        module: done.target,
        patch: done.patch,
        hooks: done.outcome.hooks,
        active: done.active,
        settled: done.settled,
        unloaded: done.unloaded,
        wall_us: micros(begin.elapsed()),
        stopped_us: micros(done.outcome.stopped),
    })
}

pub(super) fn apply(
    process: &mut Process,
    pid: u32,
    path: &str,
    begin: Instant,
) -> Result<Vec<Change>, Failure> {
    let done = hotp1::apply(process, path, WE)?;
    Ok(vec![change(pid, Became::Applied, done, begin)])
}

pub(super) fn revert(
    process: &mut Process,
    pid: u32,
    which: Option<&str>,
    unload: bool,
    begin: Instant,
) -> Result<Vec<Change>, Failure> {
    let all = hotp1::revert(process, which, unload, WE)?.into_iter();
    let state = |done: &hotp1::Done| match done.patch.is_empty() {
        true => Became::Unloaded,
        false => Became::Removed,
    };
    Ok(all
        .map(|done| change(pid, state(&done), done, begin))
        .collect())
}

pub(super) fn recover(
    process: &mut Process,
    pid: u32,
    begin: Instant,
) -> Result<Vec<Change>, Failure> {
    let all = hotp1::recover(process, WE)?.into_iter();
    Ok(all
        .map(|done| change(pid, Became::Settled, done, begin))
        .collect())
}

pub(super) fn tell(done: &Done) {
    if done.hooks > 0 || done.settled && done.unloaded.is_empty() {
        let plural = if done.hooks == 1 { "" } else { "s" };
        anstream::println!(
            "process {}: {} {} in {}: {} hook{plural} in one step, {}, {} active ({})",
            done.pid,
            done.state.name(),
            done.patch,
            done.module,
            done.hooks,
            stood(done.stopped_us),
            done.active,
            milliseconds(done.wall_us)
        );
    } else {
        anstream::println!("process {}: {} is as it was", done.pid, done.module);
    }
    tell_unloaded(&done.unloaded);
}

/// Prints what hangs on a module; what is in the middle is a dead tool's, unless one is at work.
pub(super) fn tell_record(record: &LegacyRecord, at_work: bool) {
    let died = match at_work || record.words.is_empty() {
        true => "",
        false => ": a tool died at work; invivo recover settles it",
    };
    anstream::println!("  {}{died}", record.path);
    for patch in &record.patches {
        let state = if patch.active { "active" } else { "removed" };
        anstream::println!(
            "    {} {state}, {} hooks, loaded at {:#x}",
            patch.path,
            patch.hooks.len(),
            patch.at
        );
    }
}

#[derive(Debug, Serialize)]
struct Overview {
    schema: &'static str,
    processes: Vec<Standing>,
    /// Who could not be looked at.
    unseen: Vec<Unseen>,
}

/// What a patch module is in a process that has its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Active,
    Removed,
    /// The target that runs was patched on disk.
    Cold,
    #[serde(rename = "not patched")]
    NotPatched,
}

impl State {
    fn of(one: &Concerned) -> State {
        match (one.active, one.cold, one.removed) {
            (true, ..) => State::Active,
            (_, true, _) => State::Cold,
            (.., true) => State::Removed,
            _ => State::NotPatched,
        }
    }

    /// What runs, for a person.
    fn running(self) -> &'static str {
        match self {
            State::Active => "patched",
            State::Removed => "removed",
            State::Cold => "patched on disk",
            State::NotPatched => "not patched",
        }
    }
}

#[derive(Debug, Serialize)]
struct Standing {
    pid: u32,
    exe: String,
    module: String,
    state: State,
    /// What has the module's name now, and starts next.
    on_disk: OnDisk,
    /// What that calls itself, where it was patched on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_disk_name: Option<String>,
}

/// Processes that have the module of a patch loaded in which the patch is in one of these states.
pub(super) fn concerned(path: &str, states: &[State]) -> Result<Looked<u32>, Failure> {
    let is_meant = |one: Standing| states.contains(&one.state).then_some(one.pid);
    Ok(holders(path)?.map(is_meant))
}

fn holders(path: &str) -> Result<Looked<Standing>, Failure> {
    look_at_each(&|pid, exe, process| {
        let all = hotp1::standing(process, path)?.into_iter();
        Ok(all
            .map(|one| Standing {
                pid,
                exe: exe.to_owned(),
                state: State::of(&one),
                module: one.path,
                on_disk: one.on_disk,
                on_disk_name: one.on_disk_name,
            })
            .collect())
    })
}

/// What is on disk, for a person: another file than the one in question tells its name.
pub(super) fn told_on_disk(on_disk: OnDisk, name: Option<&str>) -> String {
    match (on_disk, name) {
        (OnDisk::Other, Some(name)) => format!("{on_disk} ({})", shown(name)),
        _ => on_disk.to_string(),
    }
}

pub(super) fn status(path: &str, output: &Output) -> Result<u8, Failure> {
    let looked = holders(path)?;
    let overview = Overview {
        schema: "invivo.windows-older-status/1",
        processes: looked.found,
        unseen: looked.unseen,
    };
    output.data(&overview, || {
        for one in &overview.processes {
            let running = one.state.running();
            let disk = told_on_disk(one.on_disk, one.on_disk_name.as_deref());
            anstream::println!(
                "{} {}: {}: running: {running}; on disk: {disk}",
                one.pid,
                one.exe,
                one.module
            );
        }
        if overview.processes.is_empty() {
            anstream::println!("no process has the module loaded");
        }
        tell_unseen(&overview.unseen);
    })?;
    Ok(0)
}
