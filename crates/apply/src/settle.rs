//! What a tool that died left behind is finished or undone before anything else.

use std::ops::Range;

use invivo_image::LiveAddr;

use crate::callouts;
use crate::changes::changes;
use crate::expected::Left;
use crate::found::{Found, find_all};
use crate::going_live::release;
use crate::quiet::{end_move, first_page};
use crate::record::{Record, State, set_state};
use crate::spare;
use crate::switch::{Change, Job, stopped};
use crate::{ApplyError, Consistency, HookRecord, Options, Outcome, OutcomeState, Target};

/// Finishes or undoes what a tool that died left: every record that is neither live
/// nor taken back. Only one tool works on a target at a time, so such a record has no
/// owner any more. Tells what became of each.
///
/// Every apply and revert begins with it.
///
/// # Errors
/// When it cannot be done now; what is left is not worse than before.
pub fn recover(target: &mut dyn Target, options: &Options<'_>) -> Result<Vec<Outcome>, ApplyError> {
    let all = find_all(target)?;
    // A replacement that was cut off may have taken all hooks of the one before back already.
    let applied = |id: &invivo_patch::Hex, module: LiveAddr| {
        let mut all = all.iter().filter(|f| f.noted == State::Applied && !f.gone);
        let found = all.find(|f| f.record.id == *id && f.record.module == module);
        found.map(|found| &found.record)
    };
    let mut outcomes = Vec::new();
    for found in &all {
        let record = &found.record;
        if found.gone {
            if forget(target, found)? {
                outcomes.push(Outcome::new(OutcomeState::Reverted, &record.name));
            }
            continue;
        }
        let previous = record
            .replaces
            .as_ref()
            .and_then(|id| applied(id, record.module));
        let live = match found.state {
            State::Applied => {
                // The last word of a replacement was not written. Where each of two has replaced
                // the other, the hooks tell which was the last.
                let in_place = |h: &HookRecord| target.holds(h.at, &h.new.0).unwrap_or(false);
                let Some(previous) = previous.filter(|_| record.hooks.iter().all(in_place)) else {
                    continue;
                };
                callouts::leave(target, previous)?;
                set_state(target, previous, State::Reverted)?;
                true
            }
            State::Reverted => continue,
            State::Filling => {
                release(target, record)?;
                false
            }
            State::Prepared => {
                set_state(target, record, State::Reverted)?;
                false
            }
            State::Switching => settle_apply(target, record, previous, options)?,
            State::Reverting => settle_revert(target, record, options)?,
        };
        outcomes.push(Outcome {
            replaced: previous.filter(|_| live).map(|record| record.name.clone()),
            ..Outcome::new(
                if live {
                    OutcomeState::Applied
                } else {
                    OutcomeState::Reverted
                },
                &record.name,
            )
        });
    }
    // Now that all is one or the other: copies of code that nobody needs, and callouts that are due.
    let settled = if outcomes.is_empty() {
        all
    } else {
        find_all(target)?
    };
    spare::give_back(target, &settled);
    for Found { record, state, .. } in settled.into_iter().filter(|found| !found.gone) {
        let is_live = state == State::Applied;
        if callouts::finish(target, &record, is_live)?
            && !outcomes.iter().any(|outcome| outcome.patch == record.name)
        {
            let state = if is_live {
                OutcomeState::Applied
            } else {
                OutcomeState::Reverted
            };
            outcomes.push(Outcome::new(state, &record.name));
        }
    }
    Ok(outcomes)
}

/// Settles what stands in the target about a patch whose image is no longer there: nothing is taken
/// back, as another image may be in its place, and none of its functions is called. True if a
/// tool had not come to an end with it.
fn forget(target: &mut dyn Target, found: &Found) -> Result<bool, ApplyError> {
    let record = &found.record;
    match found.noted {
        State::Reverted => return Ok(false),
        State::Filling => {
            release(target, record)?;
            return Ok(true);
        }
        State::Prepared | State::Switching | State::Applied | State::Reverting => {}
    }
    callouts::leave(target, record)?;
    set_state(target, record, State::Reverted)?;
    Ok(found.noted != State::Applied)
}

/// An apply that was cut off: live if every place is written, otherwise as before.
fn settle_apply(
    target: &mut dyn Target,
    record: &Record,
    previous: Option<&Record>,
    options: &Options<'_>,
) -> Result<bool, ApplyError> {
    let changes = changes(previous, &record.hooks);
    end_its_move(target, record, &changes)?;
    let live = all(target, &changes, |change| &change.to);
    if !live && !all(target, &changes, |change| &change.from) {
        undo(target, record, previous, &changes, options)?;
    }
    if live {
        callouts::goes_live(target, record)?;
    }
    finish(target, record, live)?;
    if let Some(previous) = previous.filter(|_| live) {
        callouts::leave(target, previous)?;
        set_state(target, previous, State::Reverted)?;
    }
    Ok(live)
}

/// A revert that was cut off: live if no place is restored, otherwise it is finished.
fn settle_revert(
    target: &mut dyn Target,
    record: &Record,
    options: &Options<'_>,
) -> Result<bool, ApplyError> {
    let changes = changes(None, &record.hooks);
    end_its_move(target, record, &changes)?;
    let live = all(target, &changes, |change| &change.to);
    if !live && !all(target, &changes, |change| &change.from) {
        undo(target, record, None, &changes, options)?;
    }
    finish(target, record, live)?;
    Ok(live)
}

/// Text that was moved aside is back before anything is read of it.
fn end_its_move(
    target: &mut dyn Target,
    record: &Record,
    changes: &[Change],
) -> Result<(), ApplyError> {
    let place = match record.text {
        (place, 1..) => Some(place),
        // An older program moved all that changes, or the way back of it.
        _ => first_page(changes),
    };
    match place {
        Some(place) => end_move(target, record.scratch, place),
        None => Ok(()),
    }
}

fn finish(target: &mut dyn Target, record: &Record, live: bool) -> Result<(), ApplyError> {
    let state = if live {
        State::Applied
    } else {
        State::Reverted
    };
    Ok(set_state(target, record, state)?)
}

/// True if every place holds what `side` says.
fn all(target: &dyn Target, changes: &[Change], side: fn(&Change) -> &Vec<u8>) -> bool {
    let holds = |change: &Change| target.holds(change.at, side(change)).unwrap_or(false);
    changes.iter().all(holds)
}

/// Takes places back of which only some were written: as only a switch with all threads
/// stopped can leave them.
fn undo(
    target: &mut dyn Target,
    record: &Record,
    previous: Option<&Record>,
    changes: &[Change],
    options: &Options<'_>,
) -> Result<(), ApplyError> {
    let (mut back, mut left) = (Vec::new(), Left::of(target));
    // Backwards, as the order of writing is made for forwards.
    for change in changes.iter().rev() {
        let mut now = vec![0; change.to.len()];
        target.read(change.at, &mut now)?;
        // A store may have been torn as well: each byte must be one of the two.
        let mut bytes = now.iter().zip(change.from.iter().zip(&change.to));
        let is_one = bytes.all(|(now, (from, to))| now == from || now == to);
        if !is_one && left.at(change)?.is_some() {
            // It was never written: what another patch left there in padding is there still.
            continue;
        }
        if !is_one {
            return Err(ApplyError::Inconsistent(format!(
                "the hook of {} at {} is neither written nor taken back",
                record.name, change.at
            )));
        }
        back.push(Change {
            from: now,
            to: change.from.clone(),
            ..change.clone()
        });
    }
    let options = Options {
        consistency: Consistency::Entry,
        ..options.clone()
    };
    let mut torn = record.pads();
    if let Some(previous) = previous {
        torn.extend(between(target, previous, record));
    }
    let job = Job {
        changes: &back,
        busy: &[],
        torn: &torn,
        spare: None,
        options: &options,
    };
    stopped(target, &job).map(|_| ())
}

/// Several instructions of the base that are there again, or in part, and to which a jump of `previous` comes back:
/// since the tool died threads run through them. Where `record` has its own jump there, nobody does.
fn between(
    target: &dyn Target,
    previous: &Record,
    record: &Record,
) -> Vec<(String, Range<LiveAddr>)> {
    let is_there = |hook: &HookRecord| target.holds(hook.at, &hook.new.0).unwrap_or(false);
    let is_taken = |hook: &HookRecord| {
        let mut own = record.hooks.iter();
        own.any(|own| own.several && own.range() == hook.range() && is_there(own))
    };
    let several = previous.hooks.iter().filter(|hook| hook.several);
    several
        .filter(|hook| !is_there(hook) && !is_taken(hook))
        .map(|hook| (previous.name.clone(), hook.inside()))
        .collect()
}
