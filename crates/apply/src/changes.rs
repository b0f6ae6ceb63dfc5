//! What changes in the base's text, place by place, when patches go live or are taken back.

use std::ops::Range;

use invivo_image::LiveAddr;

use crate::switch::{Change, LAST};
use crate::{HookRecord, Record};

/// What changes when `previous` is replaced by `next`: places of both, in order.
///
/// Where the two hook an entry in different ways, its bytes change once.
pub(crate) fn changes(previous: Option<&Record>, next: &[HookRecord]) -> Vec<Change> {
    let mut changes: Vec<Change> = previous
        .into_iter()
        .flat_map(|record| &record.hooks)
        .map(taken_back)
        .collect();
    for hook in next {
        let next = Change {
            at: hook.at,
            from: hook.old.0.clone(),
            to: hook.new.0.clone(),
            rank: if hook.pad { 0 } else { 1 },
        };
        let same = |c: &Change| c.at == next.at && c.to.len() == next.to.len();
        let entry = |c: &Change| c.rank == 1 && next.rank == 1 && c.meets(&next.range());
        match changes.iter_mut().find(|c| same(c) || entry(c)) {
            Some(change) => *change = change.followed_by(&next),
            None => changes.push(next),
        }
    }
    changes.sort_by_key(|change| change.rank);
    changes
}

/// Bytes in the middle of which no thread may be when hooks of one form give way to hooks
/// of another: an instruction of the one may begin inside one of the other.
pub(crate) fn between_forms(
    name: &str,
    previous: &Record,
    next: &[HookRecord],
    changes: &[Change],
) -> Vec<(String, Range<LiveAddr>)> {
    let hooks = || previous.hooks.iter().chain(next);
    let other = |change: &&Change| {
        hooks().any(|hook| change.meets(&hook.range()) && hook.range() != change.range())
    };
    let inside = |change: &Change| LiveAddr(change.at.0 + 1)..change.range().end;
    let changes = changes.iter().filter(other);
    changes.map(|c| (name.to_owned(), inside(c))).collect()
}

/// Padding of `previous` in which a thread may stand, on its way, and where none of `next` goes on
/// from the same place.
pub(crate) fn pads_given_up(
    previous: &Record,
    next: &[HookRecord],
) -> Vec<(String, Range<LiveAddr>)> {
    let mut pads = previous.pads();
    // A jump there leads on, if to other code: as a call that is made then does.
    pads.retain(|(_, range)| !next.iter().any(|hook| hook.pad && hook.range() == *range));
    pads
}

/// The change that takes a hook back.
pub(crate) fn taken_back(hook: &HookRecord) -> Change {
    Change {
        at: hook.at,
        from: hook.new.0.clone(),
        to: hook.old.0.clone(),
        rank: if hook.pad { LAST } else { 1 },
    }
}

/// Two changes of the same bytes: padding that two patches use in different ways, so that
/// no order of writing is right for a thread on its way through it.
pub(crate) fn overlap(changes: &[Change]) -> bool {
    let mut places: Vec<(u64, u64)> = changes
        .iter()
        .map(|change| (change.at.0, change.range().end.0))
        .collect();
    places.sort_unstable();
    places.windows(2).any(|pair| pair[0].1 > pair[1].0)
}
