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

/// Padding of `previous` in which a thread may stand, on its way, and where `next` does not have it go on to
/// what takes the place of the same code.
///
/// It is not enough that both have a jump there: one may lead there from the function behind the padding, and
/// the other from one before it.
pub(crate) fn pads_given_up(
    previous: &Record,
    next: &[HookRecord],
) -> Vec<(String, Range<LiveAddr>)> {
    let mut pads = previous.pads();
    pads.retain(|(_, range)| {
        let both = next.iter().any(|hook| hook.pad && hook.range() == *range);
        let (old, new) = (
            ways_to(range.start, &previous.hooks),
            ways_to(range.start, next),
        );
        !both || old.is_empty() || old != new
    });
    pads
}

/// From where short jumps of these hooks lead to `pad`.
fn ways_to(pad: LiveAddr, hooks: &[HookRecord]) -> Vec<LiveAddr> {
    let leads = |hook: &&HookRecord| match hook.new.0.as_slice() {
        [0xeb, distance, ..] if !hook.pad => {
            let behind = hook.at.checked_add(2);
            let to = behind.and_then(|at| at.checked_offset(distance.cast_signed().into()));
            to == Some(pad)
        }
        _ => false,
    };
    let mut from: Vec<LiveAddr> = hooks.iter().filter(leads).map(|hook| hook.at).collect();
    from.sort_unstable();
    from
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

#[cfg(test)]
mod tests {
    use invivo_patch::Hex;

    use super::*;
    use crate::record::sample;

    /// A jump in padding at 0x1000, and a short one at `site` that leads there.
    fn padded(site: u64) -> Record {
        let mut record = sample();
        let hook = |at: u64, new: Vec<u8>, pad| HookRecord {
            at: LiveAddr(at),
            old: Hex(vec![0x90; new.len()]),
            new: Hex(new),
            pad,
            several: false,
        };
        let distance = i8::try_from(0x1000 - i64::try_from(site + 2).unwrap()).unwrap();
        record.hooks = vec![
            hook(0x1000, vec![0xe9, 1, 2, 3, 4], true),
            hook(site, vec![0xeb, distance.cast_unsigned()], false),
        ];
        record
    }

    #[test]
    fn padding_that_another_function_takes_over_is_given_up() {
        let (own, before) = (padded(0x1005), padded(0xff0));
        assert_eq!(pads_given_up(&own, &own.hooks), []);
        // A thread at the padding has come from the function behind it.
        assert_eq!(pads_given_up(&own, &before.hooks), own.pads());
        let both: Vec<HookRecord> = own
            .hooks
            .iter()
            .chain(&before.hooks[1..])
            .cloned()
            .collect();
        assert_eq!(pads_given_up(&own, &both), own.pads());
        assert_eq!(pads_given_up(&own, &[]), own.pads());
    }
}
