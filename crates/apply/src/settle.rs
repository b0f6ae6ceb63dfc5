//! What a tool that died left behind is finished or undone before anything else.

use invivo_image::LiveAddr;

use crate::callouts;
use crate::changes::changes;
use crate::going_live::release;
use crate::record::{Record, State, read_all, set_state};
use crate::switch::{Change, Job, end_move, first_page, stopped};
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
    let records = read_all(target)?;
    let applied = |id: &invivo_patch::Hex, module: LiveAddr| {
        let found = records
            .iter()
            .find(|(r, state)| *state == State::Applied && r.id == *id && r.module == module);
        found.map(|(record, _)| record)
    };
    let mut outcomes = Vec::new();
    for (record, state) in &records {
        let previous = record
            .replaces
            .as_ref()
            .and_then(|id| applied(id, record.module));
        let live = match state {
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
    // Now that all is one or the other: callouts that are due.
    let settled = if outcomes.is_empty() {
        records
    } else {
        read_all(target)?
    };
    for (record, state) in settled {
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
        undo(target, record, &changes, options)?;
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
        undo(target, record, &changes, options)?;
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
    match first_page(changes) {
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
    changes: &[Change],
    options: &Options<'_>,
) -> Result<(), ApplyError> {
    let mut back = Vec::new();
    // Backwards, as the order of writing is made for forwards.
    for change in changes.iter().rev() {
        let mut now = vec![0; change.to.len()];
        target.read(change.at, &mut now)?;
        // A store may have been torn as well: each byte must be one of the two.
        let mut bytes = now.iter().zip(change.from.iter().zip(&change.to));
        if !bytes.all(|(now, (from, to))| now == from || now == to) {
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
    let job = Job {
        changes: &back,
        busy: &[],
        torn: &record.pads(),
        options: &options,
    };
    stopped(target, &job).map(|_| ())
}
