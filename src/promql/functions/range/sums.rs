//! `sum_over_time`, `avg_over_time`, `stddev_over_time`, `stdvar_over_time`.

use std::sync::Arc;

use super::{
    RangeInput, Remarks, put_histogram,
    window::{self, Window},
};
use crate::promql::{
    exec::rows::Row,
    functions::neumaier::Neumaier,
    histogram::{FloatHistogram, HistogramMean, HistogramSum, Joined, Mismatch, reset::SeenHints},
};

pub(super) fn sum(input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    fold(input, sum_of, sum_of_histograms, out, remarks);
}

pub(super) fn avg(input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    fold(input, mean_of, mean_of_histograms, out, remarks);
}

/// The mean squared distance from the mean, by Welford's method with compensated sums.
pub(super) fn variance(
    input: &RangeInput<'_>,
    finish: impl Fn(f64) -> f64,
    out: &mut Row,
    remarks: &mut Remarks,
) {
    window::for_each(input, |step, window| {
        if !remarks.floats_of(&window, 1) {
            return;
        }
        let (mut count, mut mean, mut squares) = (0.0, Neumaier::default(), Neumaier::default());
        for value in window.values {
            count += 1.0;
            let delta = value - mean.corrected();
            mean.add(delta / count);
            squares.add(delta * (value - mean.corrected()));
        }
        out.floats[step] = finish(squares.corrected() / count);
    });
}

/// Folds each window's floats or its histograms; a mix has no result.
fn fold(
    input: &RangeInput<'_>,
    floats: impl Fn(&[f64]) -> f64,
    histograms: impl Fn(&Window<'_>, &mut Remarks) -> Result<FloatHistogram, Mismatch>,
    out: &mut Row,
    remarks: &mut Remarks,
) {
    window::for_each(input, |step, window| match (window.values.is_empty(), window.histograms.is_empty()) {
        (false, false) => remarks.mixed = true,
        (false, true) => out.floats[step] = floats(window.values),
        (true, _) => match histograms(&window, remarks) {
            Ok(result) => put_histogram(out, step, Arc::new(result)),
            Err(Mismatch::Schemas) => remarks.mixed_schemas = true,
        },
    });
}

fn sum_of(values: &[f64]) -> f64 {
    let mut sum = Neumaier::default();
    for value in values {
        sum.add(*value);
    }
    if sum.sum.is_infinite() { sum.sum } else { sum.corrected() }
}

/// Divides the sum, or goes on with the mean so far once the sum would be infinite.
fn mean_of(values: &[f64]) -> f64 {
    let Some((first, rest)) = values.split_first() else { return f64::NAN };
    let (mut sum, mut count, mut incremental) = (Neumaier::from(*first), 1.0, false);
    for value in rest {
        count += 1.0;
        if !incremental {
            let mut next = sum;
            next.add(*value);
            if !next.sum.is_infinite() {
                sum = next;
                continue;
            }
            incremental = true;
            sum.sum /= count - 1.0;
            sum.compensation /= count - 1.0;
        }
        sum.scale((count - 1.0) / count);
        sum.add(value / count);
    }
    if incremental { sum.corrected() } else { sum.sum / count + sum.compensation / count }
}

fn sum_of_histograms(window: &Window<'_>, remarks: &mut Remarks) -> Result<FloatHistogram, Mismatch> {
    let first = &window.histograms[0].1;
    let mut sum = HistogramSum::new(first);
    let mut hints = SeenHints::default();
    hints.see(first.reset_hint);
    for (_, histogram) in &window.histograms[1..] {
        hints.see(histogram.reset_hint);
        note(sum.add(histogram)?, remarks);
    }
    remarks.reset_collision |= hints.collide();
    let mut sum = sum.corrected();
    sum.compact();
    Ok(sum)
}

fn mean_of_histograms(window: &Window<'_>, remarks: &mut Remarks) -> Result<FloatHistogram, Mismatch> {
    let first = &window.histograms[0].1;
    let mut mean = HistogramMean::new(first);
    let mut hints = SeenHints::default();
    hints.see(first.reset_hint);
    for (_, histogram) in &window.histograms[1..] {
        hints.see(histogram.reset_hint);
        note(mean.add(histogram)?, remarks);
    }
    remarks.reset_collision |= hints.collide();
    let mut mean = mean.corrected();
    mean.compact();
    Ok(mean)
}

fn note(joined: Joined, remarks: &mut Remarks) {
    remarks.reconciled_in_aggregation |= joined.bounds_reconciled;
}
