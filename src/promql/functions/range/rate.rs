//! `rate`, `increase` and `delta`: how much a series grew over a window, extrapolated to its edges.
//!
//! ```text
//!      |···first ─────────────── last·····|
//!    after  └─ sampled interval ──┘      end
//! ```
//!
//! The growth between the first and the last sample is stretched towards both edges: all the way if
//! the edge is near (within 1.1 average distances), else by half a distance, and a counter never
//! further back than to where it would have been zero. A sample that knows when its counter started
//! within the window needs no guess on that side.
//!
//! Resets are looked for once per series. A window adds the values before its resets in time order,
//! which is the order in which a loop over all its samples would.

use std::sync::Arc;

use super::{
    RangeInput, Remarks, put_histogram,
    window::{self, Window},
};
use crate::{
    model::histogram::ResetHint,
    promql::{
        exec::rows::Row,
        histogram::{FloatHistogram, HistogramSum, Mismatch},
    },
};

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rate,
    Increase,
    Delta,
}

impl Kind {
    pub(super) fn is_counter(self) -> bool {
        match self {
            Self::Rate | Self::Increase => true,
            Self::Delta => false,
        }
    }
}

pub(super) fn evaluate(kind: Kind, input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    let resets = if kind.is_counter() { float_resets(input) } else { Vec::new() };
    let overlaps =
        if kind.is_counter() { start_overlaps(input.timestamps, input.starts) } else { Vec::new() };
    let (mut low, mut high) = (0, 0);
    window::for_each(input, |step, window| {
        if !window.values.is_empty() && !window.histograms.is_empty() {
            remarks.mixed = true;
            return;
        }
        if !window.histograms.is_empty() {
            if let Some(result) = of_histograms(kind, input, &window, remarks) {
                put_histogram(out, step, Arc::new(result));
            }
            return;
        }
        // A reset lies between two samples; both have to be in the window.
        let last = window.first + window.values.len();
        while resets.get(high).is_some_and(|at| *at < last) {
            high += 1;
        }
        while resets.get(low).is_some_and(|at| *at <= window.first) {
            low += 1;
        }
        let in_window = resets.get(low..high).unwrap_or_default();
        if !remarks.start_time_overlap {
            let next = overlaps.partition_point(|at| *at <= window.first);
            remarks.start_time_overlap = overlaps.get(next).is_some_and(|at| *at < last);
        }
        if let Some(result) = of_floats(kind, input, &window, step, in_window) {
            out.floats[step] = result;
            remarks.float_from_counter |= kind.is_counter();
        }
    });
}

/// The samples before which the counter started again.
fn float_resets(input: &RangeInput<'_>) -> Vec<usize> {
    let fell = |i: &usize| input.values[*i] < input.values[i - 1];
    if input.starts.is_empty() {
        return (1..input.values.len()).filter(fell).collect();
    }
    (1..input.values.len()).filter(|i| fell(i) || started_again(input.timestamps, input.starts, *i)).collect()
}

/// Whether the start timestamp of sample `i` says that the counter started after the sample before it.
///
/// A start that equals the time of the sample before means a reset for deltas, each of which starts
/// where the last one ended; it means none if the sample before does not know its own start.
pub(super) fn started_again(times: &[i64], starts: &[i64], i: usize) -> bool {
    let (Some(start), Some(previous)) = (starts.get(i), starts.get(i - 1)) else {
        return false;
    };
    *start != 0
        && *start < times[i]
        && (*start > times[i - 1] || (*start == times[i - 1] && *previous != 0 && *previous < times[i - 1]))
}

/// The samples that claim to have started before the one before them was taken, and not with it.
fn start_overlaps(times: &[i64], starts: &[i64]) -> Vec<usize> {
    let overlaps = |i: &usize| starts[*i] != 0 && starts[*i] < times[i - 1] && starts[*i] != starts[i - 1];
    (1..starts.len().min(times.len())).filter(overlaps).collect()
}

/// The time at which the first sample's counter started, if that is within the window and before the sample.
fn start_in_window(first_time: i64, starts: &[i64], window: &Window<'_>) -> Option<i64> {
    let start = *starts.first()?;
    (start != 0 && window.after < start && start < first_time).then_some(start)
}

fn of_floats(
    kind: Kind,
    input: &RangeInput<'_>,
    window: &Window<'_>,
    step: usize,
    resets: &[usize],
) -> Option<f64> {
    let (first, last) = (*window.values.first()?, *window.values.last()?);
    let start =
        if kind.is_counter() { start_in_window(window.times[0], window.starts, window) } else { None };
    if window.values.len() < 2 && start.is_none() {
        return None;
    }
    // From a known start the counter grew from zero.
    let mut growth = if start.is_some() { last } else { last - first };
    for at in resets {
        growth += input.values[at - 1];
    }
    let zero = (kind.is_counter() && start.is_none() && growth > 0.0 && first >= 0.0).then(|| first / growth);
    let stretch = match start {
        Some(_) => Stretch::of(window.times, start, window.after, window.end),
        None => input.frame.stretches()[step],
    };
    Some(growth * stretch.factor(kind, input.range_ms, zero))
}

/// How far the samples of a window reach, and how far beyond them on both sides, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    sampled: f64,
    to_start: f64,
    to_end: f64,
}

impl Stretch {
    /// Of samples at these times within the window; `start` is when the counter started, if known.
    pub(super) fn of(times: &[i64], start: Option<i64>, after: i64, end: i64) -> Self {
        let (Some(first), Some(last)) = (times.first(), times.last()) else {
            return Self { sampled: 0.0, to_start: 0.0, to_end: 0.0 };
        };
        Self::between([*first, *last], times.len() as u64, start, after, end)
    }

    /// Of so many samples from a first time to a last.
    pub(super) fn between(
        [first, last]: [i64; 2],
        count: u64,
        start: Option<i64>,
        after: i64,
        end: i64,
    ) -> Self {
        let between = seconds(last - first);
        #[expect(clippy::cast_precision_loss, reason = "windows hold fewer than 2^53 samples")]
        let average = if count > 1 { between / (count - 1) as f64 } else { 0.0 };
        let threshold = average * 1.1;

        let (sampled, mut to_start) = match start {
            Some(start) => (seconds(last - start), 0.0),
            None => (between, seconds(first - after)),
        };
        let mut to_end = seconds(end - last);
        if start.is_none() && to_start >= threshold {
            to_start = average / 2.0;
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        Self { sampled, to_start, to_end }
    }

    /// What the growth between the samples is multiplied with to be that of the window (per second).
    ///
    /// `zero` is a counter's first value as a part of the growth: it is not stretched to below zero.
    #[inline]
    pub(super) fn factor(&self, kind: Kind, range_ms: i64, zero: Option<f64>) -> f64 {
        let Self { sampled, mut to_start, to_end } = *self;
        if let Some(zero) = zero {
            let to_zero = sampled * zero;
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        let factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
        match kind {
            Kind::Rate => factor / seconds(range_ms),
            Kind::Increase | Kind::Delta => factor,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "times are divided as floats, as in Prometheus")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

fn of_histograms(
    kind: Kind,
    input: &RangeInput<'_>,
    window: &Window<'_>,
    remarks: &mut Remarks,
) -> Option<FloatHistogram> {
    let samples = window.histograms;
    let (first_time, first) = samples.first()?;
    let times: Vec<i64> = samples.iter().map(|(t, _)| *t).collect();
    let start =
        if kind.is_counter() { start_in_window(*first_time, window.histogram_starts, window) } else { None };
    if samples.len() < 2 && start.is_none() {
        return None;
    }
    if kind.is_counter() {
        remarks.start_time_overlap |= !start_overlaps(&times, window.histogram_starts).is_empty();
    }
    let mut growth = match histogram_growth(kind, window, &times, start.is_some(), remarks) {
        Ok(growth) => growth,
        Err(Mismatch::Schemas) => {
            remarks.mixed_schemas = true;
            return None;
        }
    };
    let zero = (kind.is_counter() && start.is_none() && growth.count > 0.0 && first.count >= 0.0)
        .then(|| first.count / growth.count);
    let stretch = Stretch::of(&times, start, window.after, window.end);
    growth.mul(stretch.factor(kind, input.range_ms, zero));
    growth.reset_hint = ResetHint::Gauge;
    growth.compact();
    Some(growth)
}

/// The growth from the first histogram (or from nothing) to the last.
fn histogram_growth(
    kind: Kind,
    window: &Window<'_>,
    times: &[i64],
    from_zero: bool,
    remarks: &mut Remarks,
) -> Result<FloatHistogram, Mismatch> {
    let samples: Vec<&FloatHistogram> = window.histograms.iter().map(|(_, h)| &**h).collect();
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    let gauge = |h: &FloatHistogram| h.reset_hint == ResetHint::Gauge;
    let restarted = |i: usize, previous: &FloatHistogram| {
        samples[i].detect_reset(previous) || started_again(times, window.histogram_starts, i)
    };
    if !kind.is_counter() {
        remarks.not_gauge |= !gauge(first) || !gauge(last);
        let mut growth = last.clone();
        remarks.reconciled_in_subtraction |= growth.sub(first)?.bounds_reconciled;
        return Ok(growth);
    }
    remarks.not_counter |= samples.iter().any(|h| gauge(h));

    // If the counter starts again right after the first sample, that sample's layout does not matter:
    // it would be taken away and added again.
    let skips_first = from_zero || (samples.len() > 1 && restarted(1, first));
    let relevant = if skips_first && samples.len() > 1 { &samples[1..] } else { &samples[..] };
    if relevant.iter().any(|h| h.uses_custom_buckets() != last.uses_custom_buckets()) {
        return Err(Mismatch::Schemas);
    }
    let mut growth = HistogramSum::new(last);
    if !skips_first {
        remarks.reconciled_in_subtraction |= growth.subtract(first)?.bounds_reconciled;
    }
    for i in 1..samples.len() {
        // The first reset of a skipped first sample gives back what was not taken away.
        if i == 1 && skips_first && !from_zero {
            continue;
        }
        if restarted(i, samples[i - 1]) {
            remarks.reconciled_in_addition |= growth.add(samples[i - 1])?.bounds_reconciled;
        }
    }
    Ok(growth.uncorrected())
}
