//! `invivo apply`, `invivo replace`

use std::collections::BTreeSet;

use invivo_apply::{
    ApplyError, Consistency, Options, Outcome, Preflight, State, Target, TargetError, list,
};
use invivo_linux::{Access, Incarnation, Process, Scan};
use invivo_patch::{Hex, Patch};

use crate::arguments::{self, Apply};
use crate::chosen::Found;
use crate::commands::trust;
use crate::commands::xen::verbs;
use crate::everywhere::everywhere;
use crate::failure::{Failure, USAGE};
use crate::images::read_file;
use crate::live::Run;
use crate::output::Output;
use crate::patch_file::{parse, payload_of};

type Engine = fn(&mut dyn Target, &Patch, &Hex, &Options<'_>) -> Result<Outcome, ApplyError>;
type Proof = fn(&dyn Target, &Patch, &Hex) -> Result<Preflight, ApplyError>;

/// What may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replaces {
    /// An earlier patch.
    Earlier,
    /// Any patch.
    Any,
}

pub(crate) fn run(apply: &Apply, replaces: Replaces, output: &Output) -> Result<u8, Failure> {
    let (engine, proof): (Engine, Proof) = match replaces {
        Replaces::Earlier => (invivo_apply::apply, Preflight::new),
        Replaces::Any => (invivo_apply::replace, Preflight::replacing),
    };
    let bytes = read_file(&apply.patch)?;
    // Before anybody reads what is in it.
    trust::require(&apply.patch, &bytes, &apply.payload.cert)?;
    if let Some(payload) = payload_of(&apply.patch, &bytes)? {
        return verbs::apply(&payload, apply, replaces, output);
    }
    let file = parse(&apply.patch, &bytes)?;
    apply.targets.required()?;
    of_processes(apply)?;
    if apply.dry_run {
        return super::plan::show(&file, &apply.targets, proof, output);
    }
    let consistency = match apply.consistency {
        arguments::Consistency::Entry => Consistency::Entry,
        arguments::Consistency::Quiescent => Consistency::Quiescent,
    };
    let run = Run::new(output).timed(apply.time);
    let options = run.options(consistency, &apply.effort);
    let work = |pid| {
        let mut process = Process::open(pid, Access::Write(&options))?;
        let outcome = engine(&mut process, &file.patch, &file.id, &options)?;
        Ok(vec![outcome])
    };
    let judgements = &file.patch.judgements;
    let targets = &apply.targets;
    if targets.are_named() {
        return run.each(&targets.selectors.pid, judgements, output, &work);
    }
    let mut scan = Scan::default();
    let id = &file.patch.target.build_id.0;
    let none = BTreeSet::new();
    targets.confirm("apply it", &mut || concerned(&mut scan, id, &none), output)?;
    let _busy = output.busy("applying");
    let mut known = BTreeSet::new();
    let find = || {
        let (found, unread) = concerned(&mut scan, id, &known)?;
        // Children of patched processes are born patched: those that come later are only
        // of interest where they are not.
        let is_first = known.is_empty();
        let new = found.into_iter().filter(|process| known.insert(*process));
        let (new, unread) = targets.keep((new.collect(), unread))?;
        let left = new.into_iter();
        let left = left.filter(|process| is_first || !is_live(process.pid, &file.id));
        Ok((left.collect(), unread))
    };
    everywhere(&run, apply.effort.timeout, judgements, output, find, work)
}

/// Refuses what only a payload for Xen can have.
fn of_processes(apply: &Apply) -> Result<(), Failure> {
    let payload = &apply.payload;
    for (given, option) in [
        (payload.name.is_some(), "--name"),
        (payload.rendezvous.is_some(), "--rendezvous"),
    ] {
        if given {
            let text = format!("{option} is for payloads of Xen, and this is a patch of processes");
            return Err(Failure::new(USAGE, text).hint(format!("leave {option} out")));
        }
    }
    Ok(())
}

/// The processes that have an image loaded, but for those that are `known` already.
pub(crate) fn concerned(
    scan: &mut Scan,
    build_id: &[u8],
    known: &BTreeSet<Incarnation>,
) -> Result<Found, Failure> {
    let found = scan.find(&[build_id], known)?;
    let processes = found.processes.into_iter().map(|(process, _)| process);
    Ok((processes.collect(), found.unread))
}

/// True if the patch is live in the process, or nothing is left of the process.
fn is_live(pid: i32, id: &Hex) -> bool {
    let patches = Process::open(pid, Access::Read).and_then(|process| list(&process));
    match patches {
        Ok(patches) => patches.iter().any(|patch| {
            let is_whole = patch.state == State::Applied && patch.reason.is_none();
            is_whole && patch.id == id.to_string()
        }),
        Err(error) => matches!(error, TargetError::Gone(_)),
    }
}
