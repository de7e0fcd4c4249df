//! `sum_over_time`, `avg_over_time`, `stddev_over_time`, `stdvar_over_time`.

use std::sync::Arc;

use super::{
    RangeInput, Remarks,
    blocks::{self, Blocks, Long, Spread},
    lanes::{Lanes, Sum},
    put_histogram,
    window::{self, Window},
};
use crate::promql::{
    exec::rows::Row,
    functions::neumaier::Neumaier,
    histogram::{FloatHistogram, HistogramMean, HistogramSum, Joined, Mismatch, reset::SeenHints},
};

pub(super) fn sum(input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    let of_short = |_: &[f64], sum: Sum| total(sum.sum);
    fold(input, of_short, |sum, _| total(sum), sum_of_histograms, out, remarks);
}

pub(super) fn avg(input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    let of_short = |values: &[f64], sum: Sum| {
        if sum.overflowed { mean_of(values) } else { mean(sum.sum, values.len()) }
    };
    fold(input, of_short, mean, mean_of_histograms, out, remarks);
}

/// The mean squared distance from the mean, by Welford's method with compensated sums.
pub(super) fn variance(
    input: &RangeInput<'_>,
    finish: impl Fn(f64) -> f64,
    out: &mut Row,
    remarks: &mut Remarks,
) {
    let floats = std::cell::RefCell::new(&mut out.floats);
    blocks::for_each(
        input,
        |window, _| remarks.floats_of(window, 1),
        |step, _, spread: Spread, _| floats.borrow_mut()[step] = finish(spread.variance()),
        |step, window| {
            let (mut count, mut mean, mut squares) = (0.0, Neumaier::default(), Neumaier::default());
            for value in window.values {
                count += 1.0;
                let delta = value - mean.corrected();
                mean.add(delta / count);
                squares.add(delta * (value - mean.corrected()));
            }
            floats.borrow_mut()[step] = finish(squares.corrected() / count);
        },
    );
}

/// Folds each window's floats or its histograms; a mix has no result.
fn fold(
    input: &RangeInput<'_>,
    of_short: impl Fn(&[f64], Sum) -> f64,
    of_long: impl Fn(Neumaier, usize) -> f64,
    histograms: impl Fn(&Window<'_>, &mut Remarks) -> Result<FloatHistogram, Mismatch>,
    out: &mut Row,
    remarks: &mut Remarks,
) {
    let (mut lanes, mut blocks, mut long) = (Lanes::new(), Blocks::<Neumaier>::new(), Long::new(input));
    window::for_each(input, |step, window| match (window.values.is_empty(), window.histograms.is_empty()) {
        (false, false) => remarks.mixed = true,
        (false, true) => {
            let part = if long.is(&window) { blocks.part(input, &window) } else { None };
            match part {
                Some((sum, _)) => out.floats[step] = of_long(sum, window.values.len()),
                None => lanes.push(input.values, step, &window, |step, values, sum| {
                    out.floats[step] = of_short(values, sum);
                }),
            }
        }
        (true, _) => match histograms(&window, remarks) {
            Ok(result) => put_histogram(out, step, Arc::new(result)),
            Err(Mismatch::Schemas) => remarks.mixed_schemas = true,
        },
    });
    lanes.finish(input.values, |step, values, sum| out.floats[step] = of_short(values, sum));
}

fn total(sum: Neumaier) -> f64 {
    if sum.sum.is_infinite() { sum.sum } else { sum.corrected() }
}

#[expect(clippy::cast_precision_loss, reason = "windows hold fewer than 2^53 samples")]
fn mean(sum: Neumaier, count: usize) -> f64 {
    sum.sum / count as f64 + sum.compensation / count as f64
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
