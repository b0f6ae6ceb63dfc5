//! What a tool that died left behind is finished or undone before anything else.

use invivo_image::LiveAddr;

use crate::quiescence::standing_in;
use crate::record::{Record, State, read_all, set_state};
use crate::switch::Change;
use crate::transaction::changes;
use crate::{ApplyError, Target};

/// Settles every record that is neither live nor taken back. Only one tool works on
/// a target at a time, so such a record has no owner any more.
pub(crate) fn settle(target: &mut dyn Target) -> Result<(), ApplyError> {
    let records = read_all(target)?;
    let applied = |id: &invivo_patch::Hex, module: LiveAddr| {
        let found = records
            .iter()
            .find(|(r, state)| *state == State::Applied && r.id == *id && r.module == module);
        found.map(|(record, _)| record)
    };
    for (record, state) in &records {
        let previous = record
            .replaces
            .as_ref()
            .and_then(|id| applied(id, record.module));
        match state {
            State::Applied => {
                // The last word of a replacement was not written.
                if let Some(previous) = previous {
                    set_state(target, previous, State::Reverted)?;
                }
            }
            State::Reverted => {}
            State::Prepared => set_state(target, record, State::Reverted)?,
            State::Switching => settle_apply(target, record, previous)?,
            State::Reverting => settle_revert(target, record)?,
        }
    }
    Ok(())
}

/// An apply that was cut off: live if every place is written, otherwise as before.
fn settle_apply(
    target: &mut dyn Target,
    record: &Record,
    previous: Option<&Record>,
) -> Result<(), ApplyError> {
    let changes = changes(previous, &record.hooks);
    let done = all(target, &changes, |change| &change.to);
    if !done && !all(target, &changes, |change| &change.from) {
        write_all(target, record, &changes, |change| &change.from)?;
    }
    give_back_scratch(target, record)?;
    set_state(
        target,
        record,
        if done {
            State::Applied
        } else {
            State::Reverted
        },
    )?;
    if let Some(previous) = previous.filter(|_| done) {
        set_state(target, previous, State::Reverted)?;
    }
    Ok(())
}

/// A revert that was cut off: live if no place is restored, otherwise it is finished.
fn settle_revert(target: &mut dyn Target, record: &Record) -> Result<(), ApplyError> {
    let changes = changes(None, &record.hooks);
    let live = all(target, &changes, |change| &change.to);
    if !live && !all(target, &changes, |change| &change.from) {
        write_all(target, record, &changes, |change| &change.from)?;
    }
    give_back_scratch(target, record)?;
    set_state(
        target,
        record,
        if live {
            State::Applied
        } else {
            State::Reverted
        },
    )?;
    Ok(())
}

/// True if every place holds what `side` says.
fn all(target: &dyn Target, changes: &[Change], side: fn(&Change) -> &Vec<u8>) -> bool {
    let holds = |change: &Change| target.holds(change.at, side(change)).unwrap_or(false);
    changes.iter().all(holds)
}

/// Writes `side` to every place, of which only some were written: as only a switch
/// with all threads stopped can leave them.
fn write_all(
    target: &mut dyn Target,
    record: &Record,
    changes: &[Change],
    side: fn(&Change) -> &Vec<u8>,
) -> Result<(), ApplyError> {
    for change in changes {
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
    }
    let pads = record.pads();
    let mut in_the_way = Vec::new();
    target.stop(&mut |all| {
        in_the_way = if pads.is_empty() {
            Vec::new()
        } else {
            standing_in(&all.stacks()?, &pads)
        };
        if !in_the_way.is_empty() {
            return Ok(());
        }
        // Backwards, as the order of writing is made for forwards.
        changes
            .iter()
            .rev()
            .try_for_each(|change| all.write(change.at, side(change)))
    })?;
    if in_the_way.is_empty() {
        Ok(())
    } else {
        Err(ApplyError::Blocked(in_the_way))
    }
}

/// Gives back text pages that were moved aside and not moved back: the file's own
/// pages show in their place, which is what was there before.
fn give_back_scratch(target: &mut dyn Target, record: &Record) -> Result<(), ApplyError> {
    let (scratch, size) = record.scratch;
    let end = LiveAddr(scratch.0.saturating_add(size));
    let left_over = size > 0
        && target
            .regions()?
            .iter()
            .any(|r| r.range.start == scratch && r.range.end <= end);
    if left_over {
        target.visit(&mut |visit| visit.unmap(scratch..end))?;
    }
    Ok(())
}
