//! Sums over long windows, put together of parts that neighbouring windows share.
//!
//! Time is cut into blocks as long as the window, counted from the epoch. A window then consists of the end
//! of one block and the beginning of the next, and both grow sample by sample:
//!
//! ```text
//! blocks     |   ·   ·  ·  ·   |   ·  ·   ·   ·  |
//! window             (─────────┼───────]
//!               tail: · + (·)  |  (· + ·) + · :head
//! ```
//!
//! All tails of a block are summed once, from its end backwards, and the head goes along with the windows, so
//! that a window costs as much as it has new samples, however long it is. Where blocks begin depends on
//! nothing but the window's length: a window has the same sum whatever query it is in and whichever of its
//! steps are evaluated together. Compensated sums may be added in any order without losing anything that
//! matters, but the last bit may be another than that of a loop from the first to the last sample. So short
//! windows, which a loop is as quick for, are left to it.

use super::{
    RangeInput,
    window::{self, Window},
};
use crate::promql::functions::neumaier::Neumaier;

/// Samples from which on a window is put together of parts.
pub(super) const LONG: usize = 64;

/// Beyond this a sum of as many samples as there may be could leave the range of floats on its way.
const TAME: f64 = 1e290;

fn is_tame(value: f64) -> bool {
    value.abs() < TAME
}

/// Whether sums of no window of these leave the range of floats, so that all long ones are put together of parts.
pub(super) fn are_tame(values: &[f64]) -> bool {
    values.iter().all(|value| is_tame(*value))
}

/// What is known of a stretch of samples.
pub(super) trait Part: Copy {
    /// Of none.
    const NONE: Self;

    /// With a sample before it.
    fn before(self, sample: Sample) -> Self;

    /// With a sample after it.
    fn after(self, sample: Sample) -> Self;

    /// With another stretch after it.
    fn join(self, later: Self) -> Self;
}

/// A sample, its time in milliseconds since where blocks meet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) time: i64,
    pub(super) value: f64,
}

/// The block ends within the windows seen last, and what was summed on both of its sides.
#[derive(Debug)]
pub(super) struct Blocks<P> {
    /// Where the blocks meet.
    border: Option<i64>,
    /// The part from each sample to the border, the last sample first.
    tails: Vec<P>,
    /// The first sample after the border.
    middle: usize,
    /// The part from there on …
    head: P,
    /// … up to but without this sample.
    upto: usize,
}

impl<P: Part> Blocks<P> {
    pub(super) fn new() -> Self {
        Self { border: None, tails: Vec::new(), middle: 0, head: P::NONE, upto: 0 }
    }

    /// The part that a window is, and where its blocks meet; none at the ends of time. Windows must come in order.
    pub(super) fn part(&mut self, input: &RangeInput<'_>, window: &Window<'_>) -> Option<(P, i64)> {
        let border = window.end.div_euclid(input.range_ms).checked_mul(input.range_ms)?;
        let sample = |i: usize| Sample { time: input.timestamps[i] - border, value: input.values[i] };
        let last = window.first + window.values.len();
        if self.border != Some(border) {
            self.border = Some(border);
            self.middle = window.first + window.times.partition_point(|t| *t <= border);
            self.tails.clear();
            let mut tail = P::NONE;
            for i in (window.first..self.middle).rev() {
                tail = tail.before(sample(i));
                self.tails.push(tail);
            }
            (self.head, self.upto) = (P::NONE, self.middle);
        }
        for i in self.upto..last {
            self.head = self.head.after(sample(i));
        }
        self.upto = self.upto.max(last);
        let tail = (self.middle.checked_sub(window.first + 1)).map_or(P::NONE, |back| self.tails[back]);
        Some((tail.join(self.head), border))
    }
}

/// Tells the windows that are better put together of parts from those to loop over.
///
/// What it says of a window depends on its samples alone.
#[derive(Debug)]
pub(super) struct Long {
    /// The samples whose sums could leave the range of floats, or that are no numbers.
    wild: Vec<usize>,
    /// How many of them are before the window.
    passed: usize,
}

impl Long {
    pub(super) fn new(input: &RangeInput<'_>) -> Self {
        let long = input.values.len() >= LONG;
        let wild = |i: &usize| !is_tame(input.values[*i]);
        Self {
            wild: if long { (0..input.values.len()).filter(wild).collect() } else { Vec::new() },
            passed: 0,
        }
    }

    /// Whether a window is long and sums of it are tame. Windows must come in order.
    pub(super) fn is(&mut self, window: &Window<'_>) -> bool {
        if window.values.len() < LONG {
            return false;
        }
        while self.wild.get(self.passed).is_some_and(|i| *i < window.first) {
            self.passed += 1;
        }
        self.wild.get(self.passed).is_none_or(|i| *i >= window.first + window.values.len())
    }
}

/// A sum.
impl Part for Neumaier {
    const NONE: Self = Self { sum: 0.0, compensation: 0.0 };

    #[inline]
    fn before(mut self, sample: Sample) -> Self {
        self.add(sample.value);
        self
    }

    #[inline]
    fn after(self, sample: Sample) -> Self {
        self.before(sample)
    }

    fn join(mut self, later: Self) -> Self {
        self.merge(later);
        self
    }
}

/// Count, mean, and the sum of the squared distances from it, as Welford keeps them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub(super) count: f64,
    mean: Neumaier,
    squares: Neumaier,
}

impl Spread {
    /// The mean squared distance from the mean.
    pub(super) fn variance(&self) -> f64 {
        self.squares.corrected() / self.count
    }
}

impl Part for Spread {
    const NONE: Self = Self { count: 0.0, mean: Neumaier::NONE, squares: Neumaier::NONE };

    #[inline]
    fn before(mut self, sample: Sample) -> Self {
        self.count += 1.0;
        let delta = sample.value - self.mean.corrected();
        self.mean.add(delta / self.count);
        self.squares.add(delta * (sample.value - self.mean.corrected()));
        self
    }

    #[inline]
    fn after(self, sample: Sample) -> Self {
        self.before(sample)
    }

    fn join(mut self, later: Self) -> Self {
        if self.count == 0.0 || later.count == 0.0 {
            return if self.count == 0.0 { later } else { self };
        }
        let count = self.count + later.count;
        let delta = later.mean.corrected() - self.mean.corrected();
        self.mean.add(delta * (later.count / count));
        self.squares.merge(later.squares);
        self.squares.add(delta * delta * (self.count * (later.count / count)));
        self.count = count;
        self
    }
}

/// What the line with the least squared distances is computed of. Times are whole numbers, so their sums are exact.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    pub(super) count: i64,
    pub(super) times: i128,
    pub(super) squares: i128,
    pub(super) values: Neumaier,
    /// The sum of time in seconds × value.
    pub(super) products: Neumaier,
}

impl Part for Moments {
    const NONE: Self =
        Self { count: 0, times: 0, squares: 0, values: Neumaier::NONE, products: Neumaier::NONE };

    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "times are computed with as floats")]
    fn before(mut self, Sample { time, value }: Sample) -> Self {
        self.count += 1;
        self.times += i128::from(time);
        self.squares += i128::from(time) * i128::from(time);
        self.values.add(value);
        self.products.add(time as f64 / 1e3 * value);
        self
    }

    #[inline]
    fn after(self, sample: Sample) -> Self {
        self.before(sample)
    }

    fn join(mut self, later: Self) -> Self {
        self.count += later.count;
        self.times += later.times;
        self.squares += later.squares;
        self.values.merge(later.values);
        self.products.merge(later.products);
        self
    }
}

/// Hands `long` the windows that are better put together of parts, and `short` the others.
pub(super) fn for_each<'a, P: Part>(
    input: &RangeInput<'a>,
    mut wanted: impl FnMut(&Window<'a>, usize) -> bool,
    mut long: impl FnMut(usize, &Window<'a>, P, i64),
    mut short: impl FnMut(usize, &Window<'a>),
) {
    let (mut blocks, mut are_long) = (Blocks::<P>::new(), Long::new(input));
    window::for_each(input, |step, window| {
        if !wanted(&window, step) {
            return;
        }
        let part = if are_long.is(&window) { blocks.part(input, &window) } else { None };
        match part {
            Some((part, border)) => long(step, &window, part, border),
            None => short(step, &window),
        }
    });
}
