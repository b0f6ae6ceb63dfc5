//! Back to an earlier patch, from what the target itself still holds of it.

use std::ops::Range;

use invivo_image::LiveAddr;
use invivo_patch::Hex;
use sha2::{Digest as _, Sha256};

use crate::clean::CleanCode;
use crate::found::find_all;
use crate::going_live::Going;
use crate::preflight::{is_alone, is_whole};
use crate::settle::recover;
use crate::spare::Spare;
use crate::transaction::make_live;
use crate::{
    ApplyError, Consistency, Module, Options, Outcome, OutcomeState, Record, State, Target, refused,
};

/// Makes the patch called `name`, which was live before, live again in the place of whichever is:
/// in one switch, and without its file. Its memory is in the target since then; all of it is
/// checked before, as are the base's code and what it takes from other images.
///
/// # Errors
/// When it is refused, blocked or fails; the target is as it was.
pub fn revert_to(
    target: &mut dyn Target,
    name: &str,
    options: &Options<'_>,
) -> Result<Outcome, ApplyError> {
    options.step("settle", || recover(target, options))?;
    let mut all = find_all(target)?;
    // What is left of images that were closed counts only where there is nothing else.
    if all
        .iter()
        .any(|found| !found.gone && found.record.name == name)
    {
        all.retain(|found| !found.gone);
    }
    let live = |module: LiveAddr| {
        let mut live = all
            .iter()
            .filter(|found| found.state == State::Applied && found.record.module == module);
        live.next().map(|found| &found.record)
    };
    let of_that_name = || all.iter().filter(|found| found.record.name == name);
    if let Some(live) = of_that_name().find(|found| found.state == State::Applied) {
        is_whole(target, &live.record)?;
        return Ok(Outcome::new(OutcomeState::NothingToDo, name));
    }
    let mut known = of_that_name().map(|found| &found.record);
    let Some(wanted) = known.next() else {
        return refused(format!(
            "{} holds no patch called {name}; give its file to invivo replace",
            target.describe()
        ));
    };
    if known.any(|record| record.id != wanted.id || record.module != wanted.module) {
        return refused(format!(
            "{} holds several patches called {name}; give the file of one to invivo replace",
            target.describe()
        ));
    }
    let previous = live(wanted.module);
    if let Some(previous) = previous {
        is_whole(target, previous)?;
    }
    let here = all.iter().filter(|found| !found.gone);
    let records = here.map(|found| found.record.clone()).collect();
    options.step("check", || is_as_before(target, wanted, previous, records))?;
    let mut record = Record {
        applied_by: options.applied_by.clone(),
        replaces: previous.map(|previous| previous.id.clone()),
        ..wanted.clone()
    };
    let mut options = options.clone();
    let quiet = wanted.quiescent || previous.is_some_and(|previous| previous.quiescent);
    options.consistency = if quiet {
        Consistency::Quiescent
    } else {
        Consistency::Entry
    };
    record.quiescent = quiet;
    let known = previous
        .into_iter()
        .chain(all.iter().map(|found| &found.record));
    let spare = Spare::noted(record.module, known);
    record.spare = spare.as_ref().map_or(record.spare, Spare::note);
    let functions = record.functions.join(", ");
    let end = |start: LiveAddr, size: u64| LiveAddr(start.0.saturating_add(size));
    let replaced = record.replaced.iter();
    let busy = replaced
        .map(|(start, size)| (functions.clone(), *start..end(*start, *size)))
        .chain(previous.map(Record::code))
        .collect();
    let going = Going {
        previous,
        busy,
        spare,
        kept: true,
    };
    let outcome = Outcome {
        consistency: options.consistency,
        hooks: record.hooks.iter().filter(|hook| !hook.pad).count(),
        replaced: previous.map(|record| record.name.clone()),
        ..Outcome::new(OutcomeState::NothingToDo, name)
    };
    make_live(target, &mut record, &going, None, &options, outcome)
}

/// `Ok` if everything that was proved when `wanted` went live holds still.
fn is_as_before(
    target: &dyn Target,
    wanted: &Record,
    previous: Option<&Record>,
    records: Vec<Record>,
) -> Result<(), ApplyError> {
    let changed = |what: &str| {
        refused(format!(
            "{what} since {} was live; give its file to invivo replace",
            wanted.name
        ))
    };
    let modules = target.modules()?;
    let is_its_image = |m: &&Module| m.start == wanted.module && m.build_id == wanted.build_id.0;
    let Some(module) = modules.iter().find(is_its_image) else {
        return changed("the image that it is for was loaded elsewhere");
    };
    if wanted.registering != wanted.registered {
        return changed("it is not known whether its unwind data are registered");
    }
    let shared = |name: &&String| previous.is_some_and(|p| p.variables.contains(name));
    if let Some(name) = wanted.variables.iter().find(shared) {
        return refused(format!(
            "the variable {name} lives in the live patch and in {}; revert the live one first if \
             its value may be lost",
            wanted.name
        ));
    }
    if wanted.contents.is_none() || wanted.contents != Some(digest_of(target, wanted)?) {
        return changed("its memory is not what it was");
    }
    let mut ranges: Vec<Range<LiveAddr>> = Vec::new();
    let mut left = module.end.0.saturating_sub(module.start.0);
    for (start, size) in &wanted.replaced {
        let end = LiveAddr(start.0.saturating_add(*size));
        // No function is replaced twice, so that all of them are not larger than their image.
        let fits = module.start <= *start && end <= module.end && *size <= left;
        if !fits {
            return changed("its record is not what it was");
        }
        left -= size;
        ranges.push(*start..end);
    }
    let code = CleanCode { target, records };
    if wanted.code.is_none() || wanted.code != Some(code.digest(ranges.into_iter())?) {
        return changed("the code that it replaces is not what it was");
    }
    is_alone(target, &wanted.unshared, module)?;
    let imports: Vec<_> = wanted
        .imports
        .iter()
        .map(|import| (import.name.as_str(), import.version.as_ref()))
        .collect();
    if !imports.is_empty() {
        let found = target.look_up(module, &imports)?;
        for (found, import) in found.iter().zip(&wanted.imports) {
            if *found != Ok(import.at) {
                return changed(&format!("{}, which it needs, is elsewhere", import.name));
            }
        }
    }
    Ok(())
}

/// SHA-256 of all that stands behind the record of a patch.
fn digest_of(target: &dyn Target, record: &Record) -> Result<Hex, ApplyError> {
    const PIECE: usize = 1 << 20;
    let end = record.region.0.0.saturating_add(record.region.1);
    let mut at = record.region.0.0.saturating_add(record.room);
    let (mut digest, mut piece) = (Sha256::new(), vec![0; PIECE]);
    while at < end {
        let size = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
        target.read(LiveAddr(at), &mut piece[..size])?;
        digest.update(&piece[..size]);
        at += size as u64;
    }
    Ok(Hex(digest.finalize().to_vec()))
}
