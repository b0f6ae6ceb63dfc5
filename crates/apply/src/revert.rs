//! Revert: the base's bytes come back, all of them, together.

use std::collections::BTreeSet;

use invivo_image::LiveAddr;
use invivo_patch::Moment;

use crate::callouts;
use crate::changes::taken_back;
use crate::found::{find_all, read_all};
use crate::pages::Pages;
use crate::quiet::Aside;
use crate::record::{Record, State, rewrite};
use crate::settle::recover;
use crate::spare::{self, Spare};
use crate::switch::{Change, Job, switch};
use crate::{
    ApplyError, Consistency, Options, Outcome, OutcomeState, Target, TargetError, refused,
};

/// Takes the live patch called `name` back, or every live patch where no name is given.
///
/// It is taken back as it was applied: a patch that waited for a quiet moment waits
/// for one again.
///
/// # Errors
/// When it is refused, blocked or fails, and when the target holds no patch of that name, live
/// or taken back; the target is as it was.
pub fn revert(
    target: &mut dyn Target,
    name: Option<&str>,
    options: &Options<'_>,
) -> Result<Vec<Outcome>, ApplyError> {
    options.step("settle", || recover(target, options))?;
    let all = read_all(target)?;
    if let Some(name) = name
        && all.iter().all(|(record, _)| record.name != name)
    {
        return refused(format!(
            "{} holds no patch called {name}; {}",
            target.describe(),
            held(all.iter().map(|(record, _)| record.name.as_str()))
        ));
    }
    let live: Vec<Record> = all
        .iter()
        .filter(|(record, state)| {
            *state == State::Applied && name.is_none_or(|name| record.name == name)
        })
        .map(|(record, _)| record.clone())
        .collect();
    let known: Vec<Record> = all.into_iter().map(|(record, _)| record).collect();
    live.iter()
        .map(|record| {
            let spare = Spare::noted(record.module, [record].into_iter().chain(&known));
            revert_one(target, record, spare.as_ref(), options)
        })
        .collect()
}

/// Words for the patches that a target holds.
pub fn held<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: BTreeSet<&str> = names.collect();
    match names.len() {
        0 => "it holds none".to_owned(),
        _ => format!(
            "what is there: {}",
            names.into_iter().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// What takes a live patch back. Places that hold the base's bytes again already are left out.
fn changes_back(target: &dyn Target, record: &Record) -> Result<Vec<Change>, ApplyError> {
    let mut pages = Pages::of(target);
    let mut changes = Vec::new();
    for hook in &record.hooks {
        if pages.holds(hook.at, &hook.new.0)? {
            changes.push(taken_back(hook));
        } else if !pages.holds(hook.at, &hook.old.0)? {
            return refused(format!(
                "the hook of {} at {} was changed by somebody else; it cannot be taken back",
                record.name, hook.at
            ));
        }
    }
    changes.sort_by_key(|change| change.rank);
    Ok(changes)
}

fn revert_one(
    target: &mut dyn Target,
    record: &Record,
    spare: Option<&Spare>,
    options: &Options<'_>,
) -> Result<Outcome, ApplyError> {
    changes_back(target, record)?;
    let consistency = if record.quiescent {
        Consistency::Quiescent
    } else {
        Consistency::Entry
    };
    let options = Options {
        consistency,
        ..options.clone()
    };
    let mut called = Vec::new();
    let asked = callouts::ask(target, record, Moment::BeforeRevert, &mut called)?;
    // Much may have happened while that ran.
    let changes = changes_back(target, record)?;
    let busy = [record.code()];
    // A hook is one instruction, so no thread can be in the middle of one; but a
    // thread that took a short jump may still stand before the long one in the padding.
    let torn = record.pads();
    let job = Job {
        changes: &changes,
        busy: &busy,
        torn: &torn,
        spare,
        options: &options,
    };
    let record = &mut record.clone();
    // A tool that died may have left the place of an earlier move.
    record.scratch = (LiveAddr(0), 0);
    rewrite(target, record, State::Reverting)?;
    let mut journal = |target: &mut dyn Target, aside: Aside| {
        record.spare = aside.spare;
        rewrite(target, &record.moving(aside), State::Reverting)
    };
    let mut switched = options.step("switch", || switch(target, &job, &mut journal));
    if let Err(ApplyError::Blocked(blockers)) = &switched
        && consistency == Consistency::Entry
        && blockers.iter().all(|blocker| blocker.function.is_none())
    {
        // Where stacks cannot be proved at all, the padding stays as it is: nothing
        // leads there any more, and the next patch may use it again.
        let entries = changes.iter().filter(|change| !change.is_padding());
        let entries: Vec<Change> = entries.cloned().collect();
        let job = Job {
            changes: &entries,
            busy: &[],
            torn: &[],
            spare,
            options: &options,
        };
        switched = switch(target, &job, &mut journal);
    }
    let switched = match switched {
        Ok(switched) => switched,
        Err(error) => {
            let holds = |change: &Change| target.holds(change.at, &change.from).unwrap_or(false);
            // A refusal comes before the first write.
            let live = matches!(error, ApplyError::Refused(_)) || changes.iter().all(holds);
            let unfinished = matches!(error, ApplyError::Target(TargetError::Unfinished(_)));
            // Where it is not as before, the next command finishes it.
            if live && !unfinished {
                rewrite(target, record, State::Applied)?;
            }
            return Err(error);
        }
    };
    if switched.used_up {
        record.spare = (LiveAddr(0), 0);
    }
    rewrite(target, record, State::Reverted)?;
    let mut visited = switched.visited + asked;
    if !switched.used_up {
        let all = find_all(target)?;
        visited += spare::give_back(target, &all);
    }
    let told = callouts::tell(target, record, Moment::AfterRevert, &mut called)?;
    callouts::leave(target, record)?;
    // The patch's memory stays, even if no thread is inside: new code may have left
    // pointers to its constants, variables and functions in the base's data (a text
    // in a global, say), and nobody knows where. The next apply of it uses it again.
    Ok(Outcome {
        consistency,
        hooks: record.hooks.iter().filter(|hook| !hook.pad).count(),
        switch: switched.kind,
        visited: visited + told,
        stopped: switched.stopped,
        called,
        ..Outcome::new(OutcomeState::Reverted, &record.name)
    })
}
