//! References to places in the same image, small and soon sorted: large programs have millions.

use invivo_image::{EntityId, Image, LinkAddr};

use super::Use;

/// A reference of a function in one word, so that millions are sorted soon: what it refers
/// to, relative to the image; who; and whether it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Near(u64);

impl Near {
    pub(super) fn new(image: &Image, target: LinkAddr, by: Use) -> Option<Near> {
        let target = u32::try_from(target.checked_sub(image.base)?).ok()?;
        let user = by.by.0.checked_mul(2)? | u32::from(by.branch);
        Some(Near(u64::from(target) << 32 | u64::from(user)))
    }

    pub(super) fn target(self, image: &Image) -> LinkAddr {
        LinkAddr(image.base.0 + (self.0 >> 32))
    }

    /// True if both refer to the same place.
    pub(super) fn is_to_that_of(self, other: Near) -> bool {
        self.0 >> 32 == other.0 >> 32
    }

    /// Who refers, `offset` bytes into an entity.
    pub(super) fn by(self, offset: u64) -> Use {
        let user = self.0 as u32;
        Use {
            by: EntityId(user / 2),
            branch: user & 1 != 0 && offset == 0,
        }
    }
}

/// The references that a function was last found to have. Most that are found twice are found
/// soon again: calls of one function, or the fields of one variable.
pub(super) struct Lately([Near; LATELY]);

const LATELY: usize = 256;

impl Default for Lately {
    fn default() -> Self {
        Lately([Near(u64::MAX); LATELY])
    }
}

impl Lately {
    /// False if `near` was asked for before and nothing took its room since.
    pub(super) fn is_new(&mut self, near: Near) -> bool {
        let target = near.0 >> 32;
        let kept = &mut self.0[(target ^ target >> 8) as usize % LATELY];
        std::mem::replace(kept, near) != near
    }
}

/// All references of `groups`, in order, each once.
pub(super) fn in_order(groups: Vec<Vec<Near>>) -> Vec<Near> {
    /// So many groups of near targets are made at most: what is in one then fits the caches.
    const MOST: u64 = 1 << 14;
    let all = || groups.iter().flatten();
    let target = |near: &Near| near.0 >> 32;
    let highest = all().map(target).max().unwrap_or(0);
    let shift = (0..u32::BITS)
        .find(|shift| highest >> shift < MOST)
        .unwrap_or(0);
    let bucket = |near: &Near| (target(near) >> shift) as usize;
    let mut places = vec![0usize; (highest >> shift) as usize + 1];
    all().for_each(|near| places[bucket(near)] += 1);
    let mut before = 0;
    for place in &mut places {
        let size = std::mem::replace(place, before);
        before += size;
    }
    let mut list = vec![Near(0); before];
    for near in groups.into_iter().flatten() {
        let place = &mut places[bucket(&near)];
        list[*place] = near;
        *place += 1;
    }
    // Now they are where each bucket ends.
    let mut start = 0;
    for end in places {
        list[start..end].sort_unstable();
        start = end;
    }
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::{Lately, Near, in_order};

    #[test]
    fn they_come_in_order_and_once_wherever_they_lead() {
        let mut state = 1u64;
        let mut next = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 16
        };
        for bits in [0, 1, 10, 20, 32] {
            let mut near = || {
                let target = next() & ((1 << bits) - 1);
                Near((target << 32) | (next() % 50))
            };
            let groups: Vec<Vec<Near>> = (0..20)
                .map(|n| (0..n * 10).map(|_| near()).collect())
                .collect();
            let mut plain: Vec<Near> = groups.iter().flatten().copied().collect();
            plain.sort_unstable();
            plain.dedup();
            assert_eq!(in_order(groups), plain, "{bits}");
        }
        assert_eq!(in_order(Vec::new()), Vec::new());
        let last = vec![Near(u64::MAX), Near(0), Near(u64::MAX)];
        assert_eq!(in_order(vec![last]), [Near(0), Near(u64::MAX)]);
    }

    #[test]
    fn only_what_was_found_is_known() {
        let mut lately = Lately::default();
        // To one place by two functions; elsewhere; and back.
        let (one, other) = (Near(7 << 32 | 1), Near(7 << 32 | 3));
        assert!(lately.is_new(one));
        assert!(!lately.is_new(one));
        assert!(lately.is_new(other));
        assert!(lately.is_new(one));
        for target in 0..5000u64 {
            assert!(lately.is_new(Near(target << 32)), "{target}");
            assert!(!lately.is_new(Near(target << 32)), "{target}");
        }
    }
}
