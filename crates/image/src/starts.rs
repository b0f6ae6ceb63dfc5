//! Where functions and objects begin, made to be looked up millions of times.

use crate::LinkAddr;

/// Addresses in order, with a table that leads close to each.
///
/// A search by halves among a hundred thousand addresses waits for memory at each step, and
/// the references of a large program are more than ten million. The table has about one
/// bucket for each address, so that nearly all of a search is one look into it. Addresses
/// that a hostile file puts into one bucket are searched by halves as before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Starts {
    addresses: Vec<LinkAddr>,
    /// How many addresses lie before each bucket, and at the end how many there are.
    before: Vec<u32>,
    /// A bucket is so many bytes wide, as a power of two.
    shift: u32,
}

impl Starts {
    /// Of `addresses`, which are in order.
    pub(crate) fn new(addresses: Vec<LinkAddr>) -> Starts {
        let (Some(first), Some(last)) = (addresses.first(), addresses.last()) else {
            return Starts::default();
        };
        let span = last.0.saturating_sub(first.0);
        let mut shift = 0;
        while span >> shift >= addresses.len() as u64 {
            shift += 1;
        }
        let mut before = Vec::new();
        for (index, at) in (0u32..).zip(&addresses) {
            let bucket = (at.0.saturating_sub(first.0) >> shift) as usize;
            while before.len() <= bucket {
                before.push(index);
            }
        }
        before.push(u32::try_from(addresses.len()).unwrap_or(u32::MAX));
        Starts {
            addresses,
            before,
            shift,
        }
    }

    /// How many begin at `at` or before it.
    pub(crate) fn up_to(&self, at: LinkAddr) -> usize {
        let Some(first) = self.addresses.first() else {
            return 0;
        };
        let Some(distance) = at.checked_sub(*first) else {
            return 0;
        };
        let bucket = usize::try_from(distance >> self.shift).unwrap_or(usize::MAX);
        let (Some(from), Some(to)) = (
            self.before.get(bucket),
            self.before.get(bucket.saturating_add(1)),
        ) else {
            return self.addresses.len();
        };
        let (from, to) = (*from as usize, *to as usize);
        let near = self.addresses.get(from..to).unwrap_or_default();
        from + near.partition_point(|start| *start <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_plain_search_finds() {
        let lists = [
            vec![],
            vec![7],
            vec![7, 7, 7],
            vec![0, 1, 2, 3, 1 << 40, u64::MAX],
            (0..1000).map(|n| n * n * 13).collect(),
            vec![16, 32, 32, 48, 4096, 4097, 4098, 70_000],
        ];
        for list in lists {
            let addresses: Vec<LinkAddr> = list.iter().copied().map(LinkAddr).collect();
            let starts = Starts::new(addresses.clone());
            assert!(starts.before.len() <= addresses.len() + 2);
            let near = |at: &u64| [at.wrapping_sub(1), *at, at.wrapping_add(1)];
            let asked = list.iter().flat_map(near);
            for at in asked.chain([0, 5, 1 << 50, u64::MAX]).map(LinkAddr) {
                let plain = addresses.partition_point(|start| *start <= at);
                assert_eq!(starts.up_to(at), plain, "{at:?} in {list:?}");
            }
        }
    }
}
