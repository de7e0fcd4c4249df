//! Numbers that a seed decides, and nothing else.

/// SplitMix64: the same seed gives the same data and the same questions, whatever the version of a library.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// What `index` of a run with `seed` draws, whoever drew before it.
    pub(super) fn new(seed: u64, index: u64) -> Self {
        let mut whole = Self(seed);
        let base = whole.next();
        Self(base ^ index.wrapping_mul(0xd605_bbb5_8c8a_bc2d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    /// One of `low..=high`.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.next() % (high - low + 1).unsigned_abs()).unwrap()
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}
