//! What a tool that died left behind is finished or undone before anything else.

use invivo_image::LiveAddr;

use crate::record::{Record, State, read_all, set_state};
use crate::{ApplyError, HookRecord, Target};

/// Settles every record that is neither live nor taken back. Only one tool works on
/// a target at a time, so such a record has no owner any more.
pub(crate) fn settle(target: &mut dyn Target) -> Result<(), ApplyError> {
    for (record, state) in read_all(target)? {
        match state {
            State::Applied | State::Reverted => {}
            State::Prepared => set_state(target, &record, State::Reverted)?,
            State::Switching | State::Reverting => settle_one(target, &record)?,
        }
    }
    Ok(())
}

fn settle_one(target: &mut dyn Target, record: &Record) -> Result<(), ApplyError> {
    let holds = |target: &dyn Target, hook: &HookRecord, bytes: &[u8]| {
        let mut now = vec![0; bytes.len()];
        target.read(hook.at, &mut now).is_ok() && now == bytes
    };
    let all_new = record.hooks.iter().all(|hook| holds(target, hook, &hook.new.0));
    let all_old = record.hooks.iter().all(|hook| holds(target, hook, &hook.old.0));
    if !all_new && !all_old {
        undo(target, record)?;
    }
    let (scratch, size) = record.scratch;
    let end = LiveAddr(scratch.0.saturating_add(size));
    let left_over = size > 0
        && target.regions()?.iter().any(|r| r.range.start == scratch && r.range.end <= end);
    if left_over {
        // Text pages that were moved aside and not moved back: the file's own pages
        // show in their place, which is what was there before.
        target.visit(&mut |visit| visit.unmap(scratch..end))?;
    }
    set_state(target, record, if all_new { State::Applied } else { State::Reverted })?;
    Ok(())
}

/// Takes back hooks of which only some were written, as only a switch with all threads
/// stopped can leave them.
fn undo(target: &mut dyn Target, record: &Record) -> Result<(), ApplyError> {
    for hook in &record.hooks {
        let mut now = vec![0; hook.old.0.len()];
        target.read(hook.at, &mut now)?;
        if now != hook.old.0 && now != hook.new.0 {
            return Err(ApplyError::Inconsistent(format!(
                "the hook of {} at {} is neither written nor taken back",
                record.name, hook.at
            )));
        }
    }
    target.stop(&mut |all| {
        record.hooks.iter().try_for_each(|hook| all.write(hook.at, &hook.old.0))
    })?;
    Ok(())
}
