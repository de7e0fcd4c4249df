//! The windows of a range function, and the samples in each.

use std::{cell::OnceCell, sync::Arc};

use super::{Edges, RangeInput, rate::Stretch};
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

/// The samples of one step, and those beyond it that its [`Edges`] ask for.
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

/// Where the windows of all steps begin and end among a series' samples.
///
/// Series that are scraped together have the same times, so a frame is kept from one series to the next, and
/// with it whatever depends on times only.
#[derive(Debug, Default)]
pub struct Frame {
    /// The windows it is of; none if it is of none yet.
    of: Option<(Steps, Windows, i64, Edges)>,
    timestamps: Vec<i64>,
    /// Per step the first sample in its window and the first after it.
    bounds: Vec<(usize, usize)>,
    /// Samples in all windows.
    samples: u64,
    /// What rates are extrapolated by.
    stretches: OnceCell<Vec<Stretch>>,
}

impl Frame {
    /// A frame of windows over samples at these times.
    pub fn of(timestamps: &[i64], steps: Steps, windows: Windows, range_ms: i64, edges: Edges) -> Self {
        let mut frame = Self::default();
        frame.fit(timestamps, steps, windows, range_ms, edges);
        frame
    }

    /// Makes it that of other windows or times, if they are others.
    pub fn fit(&mut self, timestamps: &[i64], steps: Steps, windows: Windows, range_ms: i64, edges: Edges) {
        let of = Some((steps, windows, range_ms, edges));
        if self.of == of && self.timestamps == timestamps {
            return;
        }
        self.of = of;
        self.timestamps.clear();
        self.timestamps.extend_from_slice(timestamps);
        self.stretches = OnceCell::new();
        self.samples = 0;
        self.bounds.clear();
        let mut slide = Slide::default();
        for step in 0..steps.count {
            let end = windows.end(steps, step);
            let from = end.saturating_sub(range_ms).saturating_sub(edges.before());
            slide.advance(timestamps, |t| *t, from, end.saturating_add(edges.after()));
            self.samples += u64::try_from(slide.high - slide.low).unwrap_or(u64::MAX);
            self.bounds.push((slide.low, slide.high));
        }
    }

    /// Samples in all windows, those in several counted as often.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// How many samples each window has.
    pub fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.bounds.iter().map(|(low, high)| u64::try_from(high - low).unwrap_or(u64::MAX))
    }

    /// The numbers of each window's first sample and of the first after it.
    pub(super) fn bounds(&self) -> &[(usize, usize)] {
        &self.bounds
    }

    /// Makes windows that begin or end before a sample of which `is_end` holds reach to both sides of what ends with it.
    pub(super) fn round_out(&mut self, is_end: impl Fn(usize) -> bool) {
        self.stretches = OnceCell::new();
        self.samples = 0;
        for (low, high) in &mut self.bounds {
            let before = usize::from(*low > 0 && is_end(*low));
            (*low, *high) = (*low - before, *high + usize::from(is_end(*high)));
            self.samples += u64::try_from(*high - *low).unwrap_or(u64::MAX);
        }
    }

    /// What the rates of all steps are extrapolated by, if nothing is known of when counting started.
    pub(super) fn stretches(&self) -> &[Stretch] {
        self.stretches.get_or_init(|| {
            let Some((steps, windows, range_ms, _)) = self.of else { return Vec::new() };
            let stretch = |(step, (low, high)): (usize, &(usize, usize))| {
                let end = windows.end(steps, step);
                Stretch::of(&self.timestamps[*low..*high], None, end.saturating_sub(range_ms), end)
            };
            self.bounds.iter().enumerate().map(stretch).collect()
        })
    }
}

/// Hands `each` the number and the samples of every step, in time order.
pub(super) fn for_each<'a>(input: &RangeInput<'a>, mut each: impl FnMut(usize, Window<'a>)) {
    let mut histograms = Slide::default();
    let part = |slice: &'a [i64], low, high| slice.get(low..high).unwrap_or_default();
    for (step, (low, high)) in input.frame.bounds.iter().copied().enumerate() {
        if low == high && input.histograms.is_empty() {
            continue;
        }
        let end = input.windows.end(input.steps, step);
        let after = end.saturating_sub(input.range_ms);
        if !input.histograms.is_empty() {
            let from = after.saturating_sub(input.edges.before());
            let to = end.saturating_add(input.edges.after());
            histograms.advance(input.histograms, |(t, _)| *t, from, to);
            if low == high && histograms.is_empty() {
                continue;
            }
        }
        each(
            step,
            Window {
                times: &input.timestamps[low..high],
                values: &input.values[low..high],
                starts: part(input.starts, low, high),
                histograms: &input.histograms[histograms.low..histograms.high],
                histogram_starts: part(input.histogram_starts, histograms.low, histograms.high),
                first: low,
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
