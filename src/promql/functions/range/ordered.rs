//! The values of a moving window, in order.
//!
//! All samples of the series are sorted once. A window is a set of ranks among them, a bit for each; a sample that
//! comes in or goes out sets or clears its bit, and the n-th value of the window is the n-th bit that is set.
//! Counts per [`WORDS`] words make that quick to find.

use super::distribution::nan_first;

/// Words that are counted together.
const WORDS: usize = 16;

/// The samples of a window by rank.
#[derive(Debug)]
pub(super) struct Ordered<'a> {
    values: &'a [f64],
    /// The samples in order of their values.
    sample: Vec<u32>,
    /// The place of each sample among those.
    rank: Vec<u32>,
    /// Which of the places are in the window.
    words: Vec<u64>,
    /// How many are, in every [`WORDS`] words.
    counts: Vec<u32>,
    low: usize,
    high: usize,
}

impl<'a> Ordered<'a> {
    /// An empty window over samples, of which there are fewer than 2³².
    pub(super) fn new(values: &'a [f64]) -> Self {
        let mut sample: Vec<u32> = (0..).take(values.len()).collect();
        sample.sort_unstable_by(|a, b| {
            nan_first(&values[*a as usize], &values[*b as usize]).then_with(|| a.cmp(b))
        });
        let mut rank = vec![0; values.len()];
        for (place, sample) in (0_u32..).zip(&sample) {
            rank[*sample as usize] = place;
        }
        let words = values.len().div_ceil(64);
        Self {
            values,
            sample,
            rank,
            words: vec![0; words],
            counts: vec![0; words.div_ceil(WORDS)],
            low: 0,
            high: 0,
        }
    }

    /// Makes it the window of the samples from `low` up to, but without `high`; neither ever goes back.
    pub(super) fn move_to(&mut self, low: usize, high: usize) {
        for sample in self.high.max(low)..high {
            let place = self.rank[sample] as usize;
            self.words[place / 64] |= 1 << (place % 64);
            self.counts[place / 64 / WORDS] += 1;
        }
        for sample in self.low..low.min(self.high) {
            let place = self.rank[sample] as usize;
            self.words[place / 64] &= !(1 << (place % 64));
            self.counts[place / 64 / WORDS] -= 1;
        }
        (self.low, self.high) = (low, high);
    }

    /// The value that `n` others come before, and the one after it, or itself if it is the last.
    pub(super) fn at_and_after(&self, n: usize) -> (f64, f64) {
        let (mut left, mut word) = (n, 0);
        for count in &self.counts {
            let count = *count as usize;
            if left < count {
                break;
            }
            left -= count;
            word += WORDS;
        }
        while let Some(bits) = self.words.get(word) {
            let ones = bits.count_ones() as usize;
            if left < ones {
                break;
            }
            left -= ones;
            word += 1;
        }
        let Some(mut bits) = self.words.get(word).copied() else { return (f64::NAN, f64::NAN) };
        for _ in 0..left {
            bits &= bits - 1;
        }
        let value = |word: usize, bits: u64| {
            self.values[self.sample[word * 64 + bits.trailing_zeros() as usize] as usize]
        };
        let at = value(word, bits);
        bits &= bits - 1;
        while bits == 0 {
            word += 1;
            match self.words.get(word) {
                Some(next) => bits = *next,
                None => return (at, at),
            }
        }
        (at, value(word, bits))
    }
}
