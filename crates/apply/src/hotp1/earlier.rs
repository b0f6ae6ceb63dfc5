//! What the active patches of a module wrote, by place.

use std::ops::Range;

use invivo_image::LiveAddr;

use super::Listed;
use super::hooks::Descriptor;

/// Hooks in order of place, each with its turn among all.
pub(super) struct Earlier<'l>(Vec<(usize, &'l Descriptor)>);

impl<'l> Earlier<'l> {
    /// Those of the active patches of a list, which has the latest last.
    pub(super) fn of(list: &'l [Listed]) -> Earlier<'l> {
        let active = list.iter().filter(|listed| listed.active);
        let hooks = active.flat_map(|listed| &listed.hooks);
        let mut all: Vec<(usize, &Descriptor)> = hooks.enumerate().collect();
        all.sort_by_key(|(turn, hook)| (hook.at, *turn));
        Earlier(all)
    }

    /// Those that begin in a range.
    fn within(&self, range: Range<LiveAddr>) -> &[(usize, &'l Descriptor)] {
        let first = self.0.partition_point(|(_, hook)| hook.at < range.start);
        let end = self.0.partition_point(|(_, hook)| hook.at < range.end);
        &self.0[first..end.max(first)]
    }

    /// What was written at exactly this place, the latest.
    pub(super) fn at(&self, at: LiveAddr, length: usize) -> Option<&'l Descriptor> {
        let mut here = self.within(at..LiveAddr(at.0.saturating_add(1))).iter();
        let found = here.rfind(|(_, hook)| hook.code.len() == length);
        found.map(|(_, hook)| *hook)
    }

    /// True if one of these places, which are in order, meets one of them.
    pub(super) fn meets(&self, places: &[Range<LiveAddr>]) -> bool {
        let mut places = places.iter().peekable();
        self.0.iter().any(|(_, hook)| {
            let own = hook.range();
            while places.next_if(|place| place.end <= own.start).is_some() {}
            places.peek().is_some_and(|place| place.start < own.end)
        })
    }

    /// Makes of what the target holds at `start` what it held before, the latest first. What meets `own`
    /// stays: a hook may lie over one of its kind, and over nothing else.
    pub(super) fn take_off(&self, start: LiveAddr, held: &mut [u8], own: Option<Range<u64>>) {
        let end = LiveAddr(start.0.saturating_add(held.len() as u64));
        let mut over = self.within(start..end).to_vec();
        over.sort_by_key(|(turn, _)| std::cmp::Reverse(*turn));
        for (_, hook) in over {
            let (from, to) = (hook.at.0, hook.range().end.0);
            let is_own = own
                .as_ref()
                .is_some_and(|own| own.start < to && from < own.end);
            let place = usize::try_from(from - start.0).ok();
            if let Some(place) = place.filter(|_| !is_own)
                && let Some(over) = held.get_mut(place..place + hook.code.len())
                && *over == hook.code
            {
                over.copy_from_slice(&hook.original);
            }
        }
    }
}
