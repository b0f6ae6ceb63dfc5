//! The commands of the program for Windows.

mod exchange;
mod legacy;
mod processes;
mod status;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use invivo_apply::TargetError;
use invivo_apply::hotp1::LegacyRecord;
use invivo_apply::hpat::{self, HotPatchRecord, Refitted};
use invivo_format::hotp1;
use invivo_format::hpat::{HotPatch, read};
use invivo_image::pe::PeImage;
use invivo_windows::{Access, Process};
use serde::Serialize;

use crate::arguments::{Apply, Arguments, Command, List, Processes, Revert};
use crate::failure::{Failure, REFUSED, USAGE};
use crate::looked::{self, Looked, Unseen};
use crate::output::{Output, milliseconds};
use legacy::State;
use processes::{look_at, look_at_each, tell_unseen};

const WE: &str = concat!("invivo ", env!("CARGO_PKG_VERSION"));

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    match &arguments.command {
        Command::Apply(apply) => self::apply(apply, output),
        Command::Revert(revert) => self::revert(revert, output),
        Command::Recover(processes) => recover(processes, output),
        Command::Install(install) => exchange::install(install, output),
        Command::Uninstall(uninstall) => exchange::uninstall(uninstall, output),
        Command::List(list) => self::list(list, output),
        Command::Status(status) => status::status(status, output),
    }
}

/// How often processes are looked for that started meanwhile.
const LOOKS: usize = 10;

/// What was done with one base of a process.
#[derive(Debug, Serialize)]
struct Done {
    pid: u32,
    /// `applied`, `reverted` or `settled`.
    state: &'static str,
    base: String,
    /// Of the patch that is live now; 0 where none is.
    sequence: u32,
    fresh: usize,
    replaced: usize,
    restored: usize,
    /// True if jumps that nothing leads to had to be left, since a thread was always there.
    left: bool,
    /// True if a tool that died had left something in the middle.
    settled: bool,
    /// Patches that were to be unloaded, and why they were not.
    unloaded: Vec<(String, Option<String>)>,
    wall_us: u64,
    stopped_us: u64,
}

/// What was done, by the kind of patch.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Change {
    Modern(Done),
    Older(legacy::Done),
}

#[derive(Debug, Serialize)]
struct Outcomes {
    schema: &'static str,
    processes: Vec<Change>,
    /// Processes in which a tool had died while all threads stood, and how many went on.
    let_go: Vec<(u32, usize)>,
    /// Where all were wanted: who could not be looked at.
    unseen: Vec<Unseen>,
}

fn done(pid: u32, state: &'static str, refitted: Refitted, begin: Instant) -> Change {
    let outcome = refitted.outcome;
    Change::Modern(Done {
        pid,
        state,
        base: refitted.base,
        sequence: refitted.sequence,
        fresh: outcome.fresh,
        replaced: outcome.replaced,
        restored: outcome.restored,
        left: outcome.left,
        settled: refitted.settled,
        unloaded: refitted.unloaded,
        wall_us: micros(begin.elapsed()),
        stopped_us: micros(outcome.stopped),
    })
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Does `work` in each process, or in all that `find` finds; prints all that was done; returns the
/// worst exit code.
fn each(
    chosen: &Processes,
    output: &Output,
    find: &dyn Fn() -> Result<Looked<u32>, Failure>,
    work: &dyn Fn(&mut Process, u32, Instant) -> Result<Vec<Change>, Failure>,
) -> Result<u8, Failure> {
    let (mut all, mut let_go, mut code) = (Vec::new(), Vec::new(), 0);
    let (mut seen, mut looks, mut unseen) = (BTreeSet::new(), 0, Vec::new());
    let mut pids = if chosen.all {
        let looked = find()?;
        unseen = looked.unseen;
        looked.found
    } else {
        chosen.pid.clone()
    };
    while !pids.is_empty() {
        for pid in pids {
            seen.insert(pid);
            let patience = chosen.timeout.saturating_mul(1000);
            let done = Process::open(pid, Access::Write { patience })
                .map_err(Failure::from)
                .and_then(|mut process| {
                    if process.let_go() > 0 {
                        let_go.push((pid, process.let_go()));
                    }
                    work(&mut process, pid, Instant::now())
                });
            match done {
                Ok(done) => all.extend(done),
                Err(failure) => {
                    code = code.max(failure.print());
                }
            }
        }
        // Those that started meanwhile. What was done is told, whatever comes of it.
        looks += 1;
        pids = match chosen.all && looks < LOOKS {
            true => match find() {
                Ok(looked) => {
                    unseen = looked.unseen;
                    looked.found
                }
                Err(failure) => {
                    code = code.max(failure.print());
                    Vec::new()
                }
            },
            false => Vec::new(),
        };
        pids.retain(|pid| !seen.contains(pid));
    }
    let outcomes = Outcomes {
        schema: "invivo.windows-outcome/1",
        processes: all,
        let_go,
        unseen,
    };
    code = code.max(looked::code(&outcomes.unseen));
    output.data(&outcomes, || {
        if seen.is_empty() {
            anstream::println!("nothing to do: no process is concerned");
        }
        for (pid, threads) in &outcomes.let_go {
            anstream::println!(
                "process {pid}: {threads} threads go on that a tool which died had stopped"
            );
        }
        for change in &outcomes.processes {
            match change {
                Change::Modern(done) => tell(done),
                Change::Older(done) => legacy::tell(done),
            }
        }
        tell_unseen(&outcomes.unseen);
    })?;
    Ok(code)
}

fn tell(done: &Done) {
    let mut parts = Vec::new();
    for (count, what) in [
        (done.fresh, "redirected"),
        (done.replaced, "redirected anew"),
        (done.restored, "restored"),
    ] {
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{count} function{plural} {what}"));
        }
    }
    parts.push(stood(done.stopped_us));
    anstream::println!(
        "process {}: {} in {}: {} ({})",
        done.pid,
        done.state,
        done.base,
        parts.join(", "),
        milliseconds(done.wall_us)
    );
    tell_unloaded(&done.unloaded);
}

fn stood(stopped_us: u64) -> String {
    match stopped_us {
        0 => "no thread stopped".to_owned(),
        time => format!("all threads stopped for {}", milliseconds(time)),
    }
}

fn tell_unloaded(unloaded: &[(String, Option<String>)]) {
    for (patch, kept) in unloaded {
        match kept {
            Some(why) => anstream::println!("    {patch} stays loaded: {why}"),
            None => anstream::println!("    {patch} was unloaded"),
        }
    }
}

/// The name by which every process finds a file.
fn whole_path(path: &Path) -> Result<String, Failure> {
    let whole = std::path::absolute(path)
        .map_err(|error| Failure::new(USAGE, format!("{}: {error}", path.display())))?;
    Ok(whole.to_string_lossy().into_owned())
}

fn apply(apply: &Apply, output: &Output) -> Result<u8, Failure> {
    let path = whole_path(&apply.patch)?;
    let older = hotp1::is_legacy(&image(&apply.patch)?);
    let find = || match older {
        true => legacy::concerned(&path, &[State::NotPatched, State::Removed, State::Cold]),
        false => status::modern(&image(&apply.patch)?, &metadata(&apply.patch)?),
    };
    each(&apply.processes, output, &find, &|process, pid, begin| {
        if older {
            return legacy::apply(process, pid, &path, begin);
        }
        let refitted = hpat::apply(process, &path, WE)?;
        Ok(vec![done(pid, "applied", refitted, begin)])
    })
}

fn revert(revert: &Revert, output: &Output) -> Result<u8, Failure> {
    let which = match &revert.patch {
        Some(path) if !hotp1::is_legacy(&image(path)?) => {
            let text = format!("{} is no patch module of older Windows", path.display());
            let hint = "there is one patch of a final image at most; leave the name out";
            return Err(Failure::new(USAGE, text).hint(hint));
        }
        Some(path) => Some(whole_path(path)?),
        None => None,
    };
    let find = || match &which {
        Some(path) if !revert.unload => legacy::concerned(path, &[State::Active]),
        Some(path) => legacy::concerned(path, &[State::Active, State::Removed]),
        None => changed(),
    };
    each(&revert.processes, output, &find, &|process, pid, begin| {
        let which = which.as_deref();
        let mut all = legacy::revert(process, pid, which, revert.unload, begin)?;
        if which.is_none() {
            let modern = hpat::revert(process, revert.unload, WE)?;
            all.extend(
                modern
                    .into_iter()
                    .map(|one| done(pid, "reverted", one, begin)),
            );
        }
        Ok(all)
    })
}

/// Processes in which anything was done that is still there.
fn changed() -> Result<Looked<u32>, Failure> {
    look_at_each(&|pid, _, process| {
        let (standing, images, modules) = seen(process)?;
        let has = standing > 0 || !images.is_empty() || !modules.is_empty();
        Ok(has.then_some(pid).into_iter().collect())
    })
}

fn recover(chosen: &Processes, output: &Output) -> Result<u8, Failure> {
    each(chosen, output, &changed, &|process, pid, begin| {
        let mut all = legacy::recover(process, pid, begin)?;
        let modern = hpat::recover(process, WE)?.into_iter();
        all.extend(modern.map(|one| done(pid, "settled", one, begin)));
        Ok(all)
    })
}

#[derive(Debug, Serialize)]
struct Listing {
    schema: &'static str,
    processes: Vec<Listed>,
    /// Who could not be looked at.
    unseen: Vec<Unseen>,
}

#[derive(Debug, Serialize)]
struct Listed {
    pid: u32,
    exe: String,
    /// Threads that stand since a tool died.
    standing: usize,
    images: Vec<HotPatchRecord>,
    /// Modules that patches of older Windows hang on.
    modules: Vec<LegacyRecord>,
}

fn list(list: &List, output: &Output) -> Result<u8, Failure> {
    let all = list.pid.is_empty();
    let looked = look_at(&list.pid, &|pid, exe, process| {
        let (standing, images, modules) = seen(process)?;
        let any = standing > 0 || !images.is_empty() || !modules.is_empty();
        let listed = Listed {
            pid,
            exe: exe.to_owned(),
            standing,
            images,
            modules,
        };
        Ok((any || !all).then_some(listed).into_iter().collect())
    })?;
    for pid in &list.pid {
        if let Some(one) = looked.unseen.iter().find(|one| one.pid == *pid) {
            return Err(Failure::new(
                one.code,
                format!("process {pid}: {}", one.why),
            ));
        }
        if !looked.found.iter().any(|one| one.pid == *pid) {
            return Err(TargetError::Gone(pid.cast_signed()).into());
        }
    }
    let listing = Listing {
        schema: "invivo.windows-list/1",
        processes: looked.found,
        unseen: looked.unseen,
    };
    output.data(&listing, || {
        for process in &listing.processes {
            anstream::println!("{} {}", process.pid, process.exe);
            if process.standing > 0 {
                anstream::println!(
                    "  {} threads stand, since a tool died; invivo recover lets them go",
                    process.standing
                );
            }
            for image in &process.images {
                anstream::println!("  {}: {}", image.path, state(image));
                for patch in &image.patches {
                    anstream::println!("    {} loaded at {:#x}", patch.path, patch.at);
                }
            }
            process.modules.iter().for_each(legacy::tell_record);
        }
        tell_unseen(&listing.unseen);
    })?;
    Ok(0)
}

/// How many threads stand since a tool died, and what was done with images and modules.
fn seen(process: &Process) -> Result<(usize, Vec<HotPatchRecord>, Vec<LegacyRecord>), Failure> {
    let found = hpat::list(process)?;
    let images = found.into_iter().map(|patched| patched.now()).collect();
    let modules = invivo_apply::hotp1::list(process)?;
    Ok((process.standing(), images, modules))
}

/// What a record tells, in words.
fn state(record: &HotPatchRecord) -> String {
    if !record.words.is_empty() {
        return "a tool died at work; invivo recover settles it".to_owned();
    }
    let live = record.entries.iter().filter(|entry| entry.live).count();
    match record.sequence {
        0 => "no patch is live".to_owned(),
        sequence => format!("patch {sequence} is live, {live} functions redirected"),
    }
}

fn metadata(path: &Path) -> Result<HotPatch, Failure> {
    let parsed = read(&image(path)?)
        .map_err(|error| Failure::new(REFUSED, format!("{}: {error}", path.display())))?;
    Ok(parsed.patch)
}

fn image(path: &Path) -> Result<PeImage, Failure> {
    let name = path.display();
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(USAGE, format!("cannot read {name}: {error}")))?;
    PeImage::parse(Arc::from(bytes))
        .map_err(|error| Failure::new(USAGE, format!("{name}: {error}")))
}
