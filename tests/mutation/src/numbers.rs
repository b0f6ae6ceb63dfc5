//! Pseudo-random numbers: the same seed gives the same mutations on every machine.

/// SplitMix64: any seed is a good one, also 0 and its neighbours.
pub(crate) struct Numbers(u64);

impl Numbers {
    /// The numbers of mutation `index` of a run with `seed`, so that each can be repeated alone.
    pub(crate) fn of(seed: u64, index: u64) -> Numbers {
        let mut mixed = Numbers(seed);
        Numbers(mixed.next() ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}
