//! The last steps of an apply: the switch, and what undoes all of it where that fails.

use std::ops::Range;
use std::time::Duration;

use invivo_image::LiveAddr;

use crate::callouts;
use crate::changes::{between_forms, changes, overlap, pads_given_up};
use crate::expected::{Left, as_expected};
use crate::found::find_all;
use crate::record::{HookRecord, Record, State, rewrite, set_state, write_record};
use crate::spare::{self, Spare};
use crate::switch::{Change, Job, Switched, switch};
use crate::{ApplyError, Options, Target, TargetError, refused};

/// What the switch must know beside the patch's own record.
pub(crate) struct Going<'g> {
    /// The live patch that it replaces.
    pub(crate) previous: Option<&'g Record>,
    /// Code in which no thread may be, for a patch that waits for a quiet moment.
    pub(crate) busy: Vec<(String, Range<LiveAddr>)>,
    /// Where clean copies of the image's code are kept, or may be.
    pub(crate) spare: Option<Spare>,
    /// True if its memory was there before, and stays where it does not go live.
    pub(crate) kept: bool,
}

/// Makes a prepared patch live.
pub(crate) fn go_live(
    target: &mut dyn Target,
    going: &Going<'_>,
    record: &mut Record,
    options: &Options<'_>,
) -> Result<Switched, ApplyError> {
    let changes = changes(going.previous, &record.hooks);
    if overlap(&changes) {
        return refused(
            "the patch needs padding in another way than the one that it would replace; \
             revert that one first",
        );
    }
    let changes = as_expected(target, changes)?;
    let torn = torn(&record.name, &record.hooks, going.previous, &changes);
    let job = Job {
        changes: &changes,
        busy: &going.busy,
        torn: &torn,
        spare: going.spare.as_ref(),
        options,
    };
    // A tool that died may have left the place of an earlier move.
    record.scratch = (LiveAddr(0), 0);
    write_record(target, record, State::Switching)?;
    let switched = switch(target, &job, &mut |target, aside| {
        record.spare = aside.spare;
        rewrite(target, &record.moving(aside), State::Switching)
    })?;
    callouts::goes_live(target, record)?;
    rewrite(target, record, State::Applied)?;
    if let Some(previous) = going.previous {
        callouts::leave(target, previous)?;
        set_state(target, previous, State::Reverted)?;
    }
    Ok(switched)
}

/// Bytes in the middle of which no thread may be while the patch `name` with these hooks takes the
/// place of `previous`.
pub(crate) fn torn(
    name: &str,
    hooks: &[HookRecord],
    previous: Option<&Record>,
    changes: &[Change],
) -> Vec<(String, Range<LiveAddr>)> {
    let several = hooks.iter().filter(|hook| tears(hook, previous));
    let mut torn: Vec<_> = several
        .map(|hook| (name.to_owned(), hook.inside()))
        .collect();
    if let Some(previous) = previous {
        torn.extend(pads_given_up(previous, hooks));
        torn.extend(between_forms(name, previous, hooks, changes));
    }
    torn
}

/// True if several instructions give way to `hook`, and are not given way by a hook of `previous` already:
/// then no thread is between them, as none was when that went live, and nothing leads there.
pub(crate) fn tears(hook: &HookRecord, previous: Option<&Record>) -> bool {
    let mut hooked = previous.into_iter().flat_map(|record| &record.hooks);
    hook.several && !hooked.any(|other| other.several && other.range() == hook.range())
}

/// Undoes what `prepare` did after a later step failed.
pub(crate) fn take_down(
    target: &mut dyn Target,
    record: &Record,
    going: &Going<'_>,
    error: ApplyError,
) -> ApplyError {
    let open = matches!(
        error,
        ApplyError::Inconsistent(_)
            | ApplyError::Target(TargetError::Unfinished(_) | TargetError::Gone(_))
    );
    if open {
        return error;
    }
    let untouched = match is_untouched(target, record, going, &error) {
        Ok(untouched) => untouched,
        // Nothing is left that could be inconsistent.
        Err(gone) => return gone.into(),
    };
    if !untouched {
        // Hooks lead to the new code: it stays, and the next command settles the rest.
        return ApplyError::Inconsistent(format!("{error}; hooks are written"));
    }
    if record.registering || going.kept || record.callouts.is_some() {
        // The language's runtime points into this memory, or what a callout has made may:
        // it stays, unused.
        let undone = set_state(target, record, State::Reverted).map_err(ApplyError::from);
        if let Ok(all) = find_all(target) {
            spare::give_back(target, &all);
        }
        // What is due and cannot be called now, the next command calls.
        let _ = undone.and_then(|()| callouts::finish(target, record, false));
        return error;
    }
    unmap(target, record, error)
}

/// True if no place holds anything of what the switch would have written.
fn is_untouched(
    target: &dyn Target,
    record: &Record,
    going: &Going<'_>,
    error: &ApplyError,
) -> Result<bool, TargetError> {
    let is = |at, bytes: &[u8]| match target.holds(at, bytes) {
        Err(TargetError::Gone(pid)) => Err(TargetError::Gone(pid)),
        other => Ok(other.ok()),
    };
    // A refusal comes before the first write, perhaps because a place is not as it was: then it
    // is enough that it does not lead to the new code.
    if matches!(error, ApplyError::Refused(_)) {
        for hook in record.hooks.iter().filter(|hook| !hook.pad) {
            if is(hook.at, &hook.new.0)? == Some(true) {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let mut left = Left::of(target);
    for change in changes(going.previous, &record.hooks) {
        let is_left = |left: &mut Left<'_>| left.at(&change).ok().flatten().is_some();
        if is(change.at, &change.from)? != Some(true) && !is_left(&mut left) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives a patch's memory back, which no thread can have reached; `error` says why.
pub(crate) fn unmap(target: &mut dyn Target, record: &Record, error: ApplyError) -> ApplyError {
    match release(target, record) {
        Ok(_) => error,
        Err(second) => ApplyError::Refused(format!(
            "{error}; its memory could not be given back: {second}"
        )),
    }
}

/// Gives a patch's memory back.
pub(crate) fn release(target: &mut dyn Target, record: &Record) -> Result<Duration, TargetError> {
    let copies = spare::left(&target.regions()?, record, &find_all(target)?);
    target.visit(&mut |visit| {
        // Should this program die, the record still tells of the rest.
        for copy in &copies {
            visit.unmap(copy.clone())?;
        }
        let range = |(start, size): (LiveAddr, u64)| start..LiveAddr(start.0 + size);
        let (code, data) = (range(record.region), range(record.data));
        // Both in one step where they lie side by side: should this program die, nothing is left of
        // which no record tells.
        if code.end == data.start {
            return visit.unmap(code.start..data.end);
        }
        if !data.is_empty() {
            visit.unmap(data)?;
        }
        visit.unmap(code)
    })
}
