//! Functions that compare neighbouring samples: `irate`, `idelta`, `changes`, `resets`.

use std::{borrow::Cow, sync::Arc};

use super::{
    Edges, Frame, RangeInput, Remarks,
    extended::anchor,
    put_histogram,
    rate::started_again,
    window::{self, Window},
};
use crate::{
    model::histogram::ResetHint,
    promql::{exec::rows::Row, histogram::FloatHistogram},
};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rate,
    Delta,
}

/// A sample of either kind.
#[derive(Clone, Copy, Debug)]
enum Sample<'a> {
    Float(f64),
    Histogram(&'a FloatHistogram),
}

/// `irate` and `idelta`: the difference of a window's last two samples.
pub(super) fn evaluate(kind: Kind, input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    window::for_each(input, |step, window| {
        let Some([(first_time, first), (last_time, last)]) = last_two(&window) else { return };
        #[expect(clippy::cast_precision_loss, reason = "times are divided as floats, as in Prometheus")]
        let seconds = (last_time - first_time) as f64 / 1000.0;
        if last_time == first_time {
            return;
        }
        let times = [first_time, last_time];
        let again = |starts: &[i64]| {
            let of_both = starts.len().checked_sub(2).map_or(&[][..], |from| &starts[from..]);
            kind == Kind::Rate && started_again(&times, of_both, 1)
        };
        match (first, last) {
            (Sample::Float(first), Sample::Float(last)) => {
                let started_again = again(window.starts);
                // After a reset the counter grew from zero to where it is.
                let reset = kind == Kind::Rate && (last < first || started_again);
                let growth = if reset { last } else { last - first };
                out.floats[step] = if kind == Kind::Rate { growth / seconds } else { growth };
            }
            (Sample::Histogram(first), Sample::Histogram(last)) => {
                let started_again = again(window.histogram_starts);
                if let Some(growth) = histogram_growth(kind, first, last, started_again, seconds, remarks) {
                    put_histogram(out, step, Arc::new(growth));
                }
            }
            (Sample::Float(_), Sample::Histogram(_)) | (Sample::Histogram(_), Sample::Float(_)) => {
                remarks.mixed = true;
            }
        }
    });
}

fn histogram_growth(
    kind: Kind,
    first: &FloatHistogram,
    last: &FloatHistogram,
    started_again: bool,
    seconds: f64,
    remarks: &mut Remarks,
) -> Option<FloatHistogram> {
    let gauges = [first, last].iter().filter(|h| h.reset_hint == ResetHint::Gauge).count();
    match kind {
        Kind::Rate => remarks.not_counter |= gauges > 0,
        Kind::Delta => remarks.not_gauge |= gauges < 2,
    }
    let mut growth = last.clone();
    let reset = kind == Kind::Rate && (started_again || last.detect_reset(first));
    if !reset {
        match growth.sub(first) {
            Ok(joined) => remarks.reconciled_in_subtraction |= joined.bounds_reconciled,
            Err(_) => {
                remarks.mixed_schemas = true;
                return None;
            }
        }
    }
    growth.reset_hint = ResetHint::Gauge;
    growth.compact();
    if kind == Kind::Rate {
        growth.div(seconds);
    }
    Some(growth)
}

/// The last two samples of a window, of either kind, with their times.
fn last_two<'a>(window: &Window<'a>) -> Option<[(i64, Sample<'a>); 2]> {
    let floats = window.times.iter().zip(window.values).rev().take(2);
    let histograms = window.histograms.iter().rev().take(2);
    let mut latest: Vec<(i64, Sample<'a>)> = floats
        .map(|(t, value)| (*t, Sample::Float(*value)))
        .chain(histograms.map(|(t, histogram)| (*t, Sample::Histogram(histogram))))
        .collect();
    latest.sort_by_key(|(t, _)| *t);
    match latest.as_slice() {
        [.., first, last] => Some([*first, *last]),
        [] | [_] => None,
    }
}

/// How often the value changed; from NaN to NaN is no change.
pub(super) fn changes(input: &RangeInput<'_>, out: &mut Row) {
    count_events(input, out, |series, i| match (series.at(i - 1), series.at(i)) {
        (Sample::Float(before), Sample::Float(now)) => before != now && !(before.is_nan() && now.is_nan()),
        (Sample::Histogram(before), Sample::Histogram(now)) => !before.equals(now),
        (Sample::Float(_), Sample::Histogram(_)) | (Sample::Histogram(_), Sample::Float(_)) => true,
    });
}

/// How often the counter started again.
pub(super) fn resets(input: &RangeInput<'_>, out: &mut Row) {
    count_events(input, out, |series, i| {
        let value = match (series.at(i - 1), series.at(i)) {
            (Sample::Float(before), Sample::Float(now)) => now < before,
            (Sample::Histogram(before), Sample::Histogram(now)) => now.detect_reset(before),
            (Sample::Float(_), Sample::Histogram(_)) | (Sample::Histogram(_), Sample::Float(_)) => true,
        };
        value || started_again(&series.times, &series.starts, i)
    });
}

/// All samples of a series in time order, whatever their kind.
struct Merged<'a> {
    times: Cow<'a, [i64]>,
    starts: Cow<'a, [i64]>,
    /// Empty if there are floats only.
    samples: Vec<Sample<'a>>,
    floats: &'a [f64],
}

impl<'a> Merged<'a> {
    fn new(input: &RangeInput<'a>) -> Self {
        if input.histograms.is_empty() {
            return Self {
                times: Cow::Borrowed(input.timestamps),
                starts: Cow::Borrowed(input.starts),
                samples: Vec::new(),
                floats: input.values,
            };
        }
        let start = |starts: &[i64], i: usize| starts.get(i).copied().unwrap_or(0);
        let floats = input.timestamps.iter().zip(input.values).enumerate();
        let floats = floats.map(|(i, (t, value))| (*t, start(input.starts, i), Sample::Float(*value)));
        let histograms = input.histograms.iter().enumerate();
        let histograms =
            histograms.map(|(i, (t, h))| (*t, start(input.histogram_starts, i), Sample::Histogram(h)));
        let mut all: Vec<(i64, i64, Sample<'a>)> = floats.chain(histograms).collect();
        all.sort_by_key(|(t, _, _)| *t);
        Self {
            times: all.iter().map(|(t, _, _)| *t).collect(),
            starts: all.iter().map(|(_, start, _)| *start).collect(),
            samples: all.into_iter().map(|(_, _, sample)| sample).collect(),
            floats: &[],
        }
    }

    fn at(&self, i: usize) -> Sample<'a> {
        self.samples.get(i).copied().unwrap_or_else(|| Sample::Float(self.floats[i]))
    }
}

/// Counts, for each window, the samples within it for which something holds of them and the one before.
fn count_events(input: &RangeInput<'_>, out: &mut Row, event: impl Fn(&Merged<'_>, usize) -> bool) {
    let merged = Merged::new(input);
    let mut count = 0.0;
    let before: Vec<f64> = (0..merged.times.len())
        .map(|i| {
            count += if i > 0 && event(&merged, i) { 1.0 } else { 0.0 };
            count
        })
        .collect();
    let own;
    let frame = if input.histograms.is_empty() {
        input.frame
    } else {
        own = Frame::of(&merged.times, input.steps, input.windows, input.range_ms, input.edges);
        &own
    };
    // The counts so far take the place of the values.
    let counted = RangeInput {
        timestamps: &merged.times,
        values: &before,
        starts: &[],
        histograms: &[],
        frame,
        ..*input
    };
    window::for_each(&counted, |step, window| {
        let anchor = match input.edges {
            Edges::Plain => 0,
            Edges::Anchored(_) | Edges::Smoothed(_) => anchor(window.times, |t| *t, window.after),
        };
        if let (Some(first), Some(last)) = (window.values.get(anchor), window.values.last()) {
            out.floats[step] = last - first;
        }
    });
}
