//! `rate`, `increase` and `delta` of `anchored` and `smoothed` ranges: what the value was at the
//! window's edges, instead of a guess at it.
//!
//! ```text
//!   ·     |   ·     ·     ·  |   ·
//! anchor after              end next
//! ```
//!
//! An anchored window begins with the last sample at or before it; a smoothed one with the value on
//! the line to that sample, and ends with the value on the line to the next. A line across a reset
//! begins at zero. Samples that far outside are looked for no further than the lookback.

use std::sync::Arc;

use super::{RangeInput, Remarks, put_histogram, rate::Kind, window, window::Window};
use crate::{
    model::histogram::ResetHint,
    promql::{
        exec::rows::Row,
        histogram::{FloatHistogram, Mismatch},
    },
};

/// How far beyond a window samples are looked for, in milliseconds, and what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edges {
    /// Not at all.
    #[default]
    Plain,
    /// Before the window, for the value it begins with.
    Anchored(i64),
    /// On both sides, for the values at its edges.
    Smoothed(i64),
}

impl Edges {
    /// How far before the window samples are looked for.
    pub fn before(self) -> i64 {
        match self {
            Self::Plain => 0,
            Self::Anchored(lookback) | Self::Smoothed(lookback) => lookback,
        }
    }

    /// How far after it.
    pub fn after(self) -> i64 {
        match self {
            Self::Plain | Self::Anchored(_) => 0,
            Self::Smoothed(lookback) => lookback,
        }
    }
}

pub(super) fn evaluate(kind: Kind, input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    let smoothed = matches!(input.edges, Edges::Smoothed(_));
    #[expect(clippy::cast_precision_loss, reason = "times are divided as floats, as in Prometheus")]
    let seconds = input.range_ms as f64 / 1000.0;
    window::for_each(input, |step, window| {
        if !window.values.is_empty() && !window.histograms.is_empty() {
            remarks.mixed = true;
        } else if window.histograms.is_empty() {
            if let Some(growth) = of_floats(kind, smoothed, &window) {
                out.floats[step] = if kind == Kind::Rate { growth / seconds } else { growth };
                remarks.float_from_counter |= kind.is_counter();
            }
        } else {
            match of_histograms(kind, smoothed, &window, remarks) {
                Ok(Some(mut growth)) => {
                    if kind == Kind::Rate {
                        growth.div(seconds);
                    }
                    growth.reset_hint = ResetHint::Gauge;
                    growth.compact();
                    put_histogram(out, step, Arc::new(growth));
                }
                Ok(None) => {}
                Err(Mismatch::Schemas) => remarks.mixed_schemas = true,
            }
        }
    });
}

/// The sample that the window begins with: the last at or before it, or else the first of all.
///
/// The very last sample is not taken for it, as in Prometheus.
pub(super) fn anchor<T>(samples: &[T], time: impl Fn(&T) -> i64, after: i64) -> usize {
    let but_last = samples.len().saturating_sub(1);
    samples[..but_last].partition_point(|sample| time(sample) <= after).saturating_sub(1)
}

/// The first and the last sample that count, if the window has any.
fn ends<T>(
    samples: &[T],
    time: impl Fn(&T) -> i64,
    smoothed: bool,
    window: &Window<'_>,
) -> Option<(usize, usize)> {
    let first = anchor(samples, &time, window.after);
    let mut last = samples.len().checked_sub(1)?;
    if smoothed {
        last = samples[..last].partition_point(|sample| time(sample) < window.end);
    }
    let none = time(&samples[last]) <= window.after || smoothed && time(&samples[first]) > window.end;
    (!none).then_some((first, last))
}

fn of_floats(kind: Kind, smoothed: bool, window: &Window<'_>) -> Option<f64> {
    let (times, values) = (window.times, window.values);
    let (mut first, mut last) = ends(times, |t| *t, smoothed, window)?;
    let between = |i: usize, at: i64| {
        let reset = kind.is_counter() && values[i + 1] < values[i];
        let (from, to) = (if reset { 0.0 } else { values[i] }, values[i + 1]);
        from + (to - from) * float(at - times[i]) / float(times[i + 1] - times[i])
    };
    let left =
        if smoothed && times[first] < window.after { between(first, window.after) } else { values[first] };
    let right = if smoothed && last > 0 && times[last] > window.end {
        between(last - 1, window.end)
    } else {
        values[last]
    };
    let mut growth = right - left;
    if kind.is_counter() {
        // Resets at the edges are in the values there.
        if times[first] <= window.after {
            first += 1;
        }
        last += usize::from(times[last] < window.end);
        let (mut correction, mut previous) = (0.0, left);
        for value in values.get(first..last).unwrap_or_default().iter().copied().chain([right]) {
            if value < previous {
                correction += previous;
            }
            previous = value;
        }
        growth += correction;
    }
    Some(growth)
}

fn of_histograms(
    kind: Kind,
    smoothed: bool,
    window: &Window<'_>,
    remarks: &mut Remarks,
) -> Result<Option<FloatHistogram>, Mismatch> {
    let samples = window.histograms;
    let Some((first, last)) = ends(samples, |(t, _)| *t, smoothed, window) else { return Ok(None) };
    let counting = &samples[first..=last];
    let custom = samples[first].1.uses_custom_buckets();
    if counting.iter().any(|(_, h)| h.uses_custom_buckets() != custom) {
        return Err(Mismatch::Schemas);
    }
    remarks.not_counter |=
        kind.is_counter() && counting.iter().any(|(_, h)| h.reset_hint == ResetHint::Gauge);

    let begins_before = smoothed && samples[first].0 < window.after;
    let left = if begins_before {
        between(&samples[first], &samples[first + 1], window.after, kind, remarks)?
    } else {
        FloatHistogram::clone(&samples[first].1)
    };
    let right = if smoothed && last > 0 && samples[last].0 > window.end {
        between(&samples[last - 1], &samples[last], window.end, kind, remarks)?
    } else {
        FloatHistogram::clone(&samples[last].1)
    };
    let mut growth = right.clone();
    remarks.reconciled_in_subtraction |= growth.sub(&left)?.bounds_reconciled;
    if !kind.is_counter() {
        remarks.not_gauge |= [&left, &right].iter().any(|h| h.reset_hint != ResetHint::Gauge);
        return Ok(Some(growth));
    }
    let (mut previous, mut next) = (&left, first + 1);
    if begins_before && samples[next].1.detect_reset(&samples[first].1) {
        // That reset is in the value on the left.
        previous = &samples[next].1;
        next += 1;
    }
    if next <= last {
        for current in samples[next..last].iter().map(|(_, h)| &**h).chain([&right]) {
            if current.detect_reset(previous) {
                remarks.reconciled_in_addition |= growth.add(previous)?.bounds_reconciled;
            }
            previous = current;
        }
    }
    Ok(Some(growth))
}

type Timed = (i64, Arc<FloatHistogram>);

/// The histogram on the line between two.
fn between(
    (from_time, from): &Timed,
    (to_time, to): &Timed,
    at: i64,
    kind: Kind,
    remarks: &mut Remarks,
) -> Result<FloatHistogram, Mismatch> {
    let mut result = FloatHistogram::clone(to);
    if at == *to_time {
        return Ok(result);
    }
    let fraction = float(at - from_time) / float(to_time - from_time);
    if kind.is_counter() && to.detect_reset(from) {
        result.mul(fraction);
        return Ok(result);
    }
    remarks.reconciled_in_subtraction |= result.sub(from)?.bounds_reconciled;
    result.mul(fraction);
    remarks.reconciled_in_addition |= result.add(from)?.bounds_reconciled;
    Ok(result)
}

#[expect(clippy::cast_precision_loss, reason = "times are divided as floats, as in Prometheus")]
fn float(millis: i64) -> f64 {
    millis as f64
}
