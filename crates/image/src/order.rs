//! Addresses in order, found with few looks at memory.

use crate::LinkAddr;

/// For stretches of equal length, how many of the addresses of a list lie before each.
///
/// A search by halves in a million addresses looks at twenty places far from each other, and
/// a comparison of large programs searches millions of times. With this at hand it looks
/// through one stretch, in which there are a few.
#[derive(Clone, Debug, Default)]
pub struct AddressIndex {
    first: u64,
    /// The length of a stretch, as a power of two.
    shift: u32,
    before: Vec<u32>,
}

impl AddressIndex {
    /// The index of `list`, which is in order.
    #[must_use]
    pub fn new(list: &[LinkAddr]) -> Self {
        let (Some(first), Some(last)) = (list.first(), list.last()) else {
            return AddressIndex::default();
        };
        let wide = last.0 - first.0;
        let shift = (0..u64::BITS).find(|shift| wide >> shift <= list.len() as u64);
        let mut index = AddressIndex {
            first: first.0,
            shift: shift.unwrap_or(u64::BITS - 1),
            before: Vec::new(),
        };
        let stretches = (wide >> index.shift) as usize + 1;
        index.before.reserve_exact(stretches + 1);
        for (number, at) in (0u32..).zip(list) {
            let stretch = (at.0.saturating_sub(first.0) >> index.shift) as usize;
            while index.before.len() <= stretch.min(stretches) {
                index.before.push(number);
            }
        }
        index
            .before
            .push(u32::try_from(list.len()).unwrap_or(u32::MAX));
        index
    }

    /// How many addresses of `list`, of which this is the index, are not behind `at`.
    #[must_use]
    #[inline]
    pub fn up_to(&self, list: &[LinkAddr], at: LinkAddr) -> usize {
        let Some(way) = at.0.checked_sub(self.first) else {
            return 0;
        };
        let stretch = usize::try_from(way >> self.shift).unwrap_or(usize::MAX);
        let bounds = self.before.get(stretch..).and_then(<[u32]>::first_chunk);
        let Some([from, to]) = bounds.map(|both: &[u32; 2]| both.map(|n| n as usize)) else {
            return list.len();
        };
        let near = list.get(from..to).unwrap_or_default();
        from + near.partition_point(|one| *one <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::AddressIndex;
    use crate::LinkAddr;

    #[test]
    fn it_finds_what_a_search_by_halves_finds() {
        let mut state = 1u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for (count, within) in [
            (0, 1),
            (1, 1),
            (2, 10),
            (100, 50),
            (1000, 1 << 31),
            (3000, 4000),
        ] {
            for far in [0, 0x40_0000, u64::MAX - (1 << 31)] {
                let mut list: Vec<LinkAddr> =
                    (0..count).map(|_| LinkAddr(far + next(within))).collect();
                if count == 1000 {
                    // As far away as a hostile file can have it.
                    list.extend([LinkAddr(0), LinkAddr(u64::MAX)]);
                }
                list.sort_unstable();
                let index = AddressIndex::new(&list);
                let near = list.iter().flat_map(|at| {
                    [at.0.wrapping_sub(1), at.0, at.0.wrapping_add(1)].map(LinkAddr)
                });
                let ends = [0, far, far + within, u64::MAX].map(LinkAddr);
                for at in near.chain(ends) {
                    let wanted = list.partition_point(|one| *one <= at);
                    assert_eq!(index.up_to(&list, at), wanted, "{at:?} of {count}");
                }
            }
        }
    }
}
