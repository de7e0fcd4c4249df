//! The windows of a range function, and the samples in each.

use std::sync::Arc;

use super::RangeInput;
use crate::promql::{exec::rows::Steps, histogram::FloatHistogram};

/// Where the window of each step ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// At the step's time, moved back by `offset`.
    Moving {
        /// In milliseconds; negative looks ahead.
        offset_ms: i64,
    },
    /// At the same instant for all steps: `@`, with the offset already taken off.
    Fixed {
        /// The instant, in milliseconds.
        end: i64,
    },
}

impl Windows {
    /// The end of step `i`'s window; the window includes it.
    #[inline]
    pub fn end(&self, steps: Steps, i: usize) -> i64 {
        match *self {
            Self::Moving { offset_ms } => steps.at(i).saturating_sub(offset_ms),
            Self::Fixed { end } => end,
        }
    }
}

/// The samples of one step, and those beyond it that its [`Edges`](super::Edges) ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    pub(super) times: &'a [i64],
    pub(super) values: &'a [f64],
    /// As long as `values`, or empty.
    pub(super) starts: &'a [i64],
    pub(super) histograms: &'a [(i64, Arc<FloatHistogram>)],
    pub(super) histogram_starts: &'a [i64],
    /// Number of `times[0]` among all samples of the series.
    pub(super) first: usize,
    /// The window is later than this …
    pub(super) after: i64,
    /// … up to and including this.
    pub(super) end: i64,
}

/// Hands `each` the number and the samples of every step, in time order.
pub(super) fn for_each<'a>(input: &RangeInput<'a>, mut each: impl FnMut(usize, Window<'a>)) {
    let mut floats = Slide::default();
    let mut histograms = Slide::default();
    let part = |slice: &'a [i64], slide: &Slide| slice.get(slide.low..slide.high).unwrap_or_default();
    for step in 0..input.steps.count {
        let end = input.windows.end(input.steps, step);
        let after = end.saturating_sub(input.range_ms);
        let from = after.saturating_sub(input.edges.before());
        let to = end.saturating_add(input.edges.after());
        floats.advance(input.timestamps, |t| *t, from, to);
        histograms.advance(input.histograms, |(t, _)| *t, from, to);
        if floats.is_empty() && histograms.is_empty() {
            continue;
        }
        each(
            step,
            Window {
                times: &input.timestamps[floats.low..floats.high],
                values: &input.values[floats.low..floats.high],
                starts: part(input.starts, &floats),
                histograms: &input.histograms[histograms.low..histograms.high],
                histogram_starts: part(input.histogram_starts, &histograms),
                first: floats.low,
                after,
                end,
            },
        );
    }
}

/// Two indices that follow the windows.
#[derive(Clone, Copy, Debug, Default)]
struct Slide {
    low: usize,
    high: usize,
}

impl Slide {
    fn advance<T>(&mut self, samples: &[T], time: impl Fn(&T) -> i64, after: i64, end: i64) {
        self.high = seek(samples, self.high, |sample| time(sample) <= end);
        self.low = seek(samples, self.low, |sample| time(sample) <= after);
        // An empty range ends before it begins.
        self.low = self.low.min(self.high);
    }

    fn is_empty(self) -> bool {
        self.low == self.high
    }
}

/// The first sample from `from` on that is not `before`: a few steps on foot, then by doubling strides.
fn seek<T>(samples: &[T], from: usize, before: impl Fn(&T) -> bool) -> usize {
    let mut low = from;
    for _ in 0..4 {
        if !samples.get(low).is_some_and(&before) {
            return low;
        }
        low += 1;
    }
    let mut stride = 8;
    while samples.get(low + stride).is_some_and(&before) {
        low += stride;
        stride *= 2;
    }
    let high = (low + stride).min(samples.len());
    low + samples[low..high].partition_point(before)
}
