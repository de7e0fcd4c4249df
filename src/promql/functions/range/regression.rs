//! Trends: `deriv` and `predict_linear` by least squares, and exponential smoothing.

use super::{RangeInput, Remarks, window};
use crate::promql::{
    QueryError,
    exec::rows::{Row, is_absent},
    functions::neumaier::Neumaier,
};

/// `deriv`: the slope per second.
pub(super) fn deriv(input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    window::for_each(input, |step, window| {
        if remarks.floats_of(&window, 2) {
            // Times relative to a sample's are small, and small numbers lose less.
            out.floats[step] = line(window.times, window.values, window.times[0]).slope;
        }
    });
}

/// `predict_linear`: where the line will be, so many seconds after the step's own time.
pub(super) fn predict_linear(input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    window::for_each(input, |step, window| {
        if remarks.floats_of(&window, 2) {
            let line = line(window.times, window.values, input.steps.at(step));
            out.floats[step] = line.slope * param(input, 0, step) + line.intercept;
        }
    });
}

fn param(input: &RangeInput<'_>, number: usize, step: usize) -> f64 {
    let value = input.params.get(number).and_then(|param| param.get(step)).copied();
    value.filter(|value| !is_absent(*value)).unwrap_or(f64::NAN)
}

struct Line {
    slope: f64,
    intercept: f64,
}

/// The line with the least squared distances, and its height at `origin`.
fn line(times: &[i64], values: &[f64], origin: i64) -> Line {
    let first = values[0];
    if values.iter().all(|value| *value == first) {
        // A constant has no slope at all, which sums of rounded products would not say.
        return if first.is_infinite() {
            Line { slope: f64::NAN, intercept: f64::NAN }
        } else {
            Line { slope: 0.0, intercept: first }
        };
    }
    let (mut n, [mut sum_x, mut sum_y, mut sum_xy, mut sum_xx]) = (0.0, [Neumaier::default(); 4]);
    for (time, value) in times.iter().zip(values) {
        #[expect(clippy::cast_precision_loss, reason = "times are computed with as floats")]
        let x = time.saturating_sub(origin) as f64 / 1e3;
        n += 1.0;
        sum_x.add(x);
        sum_y.add(*value);
        sum_xy.add(x * value);
        sum_xx.add(x * x);
    }
    let [x, y, xy, xx] = [sum_x, sum_y, sum_xy, sum_xx].map(Neumaier::corrected);
    let covariance = xy - x * y / n;
    let variance = xx - x * x / n;
    let slope = covariance / variance;
    Line { slope, intercept: y / n - slope * x / n }
}

/// `double_exponential_smoothing`: a smoothed value that follows the trend (Holt's linear method).
pub(super) fn smooth(input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) -> Result<(), QueryError> {
    let mut refused = None;
    window::for_each(input, |step, window| {
        let (smoothing, trend) = (param(input, 0, step), param(input, 1, step));
        for (name, factor, sign) in [("smoothing", smoothing, "sf"), ("trend", trend, "tf")] {
            if factor <= 0.0 || factor >= 1.0 {
                refused.get_or_insert_with(|| {
                    format!("invalid {name} factor. Expected: 0 < {sign} < 1, got: {factor:.6}")
                });
            }
        }
        if refused.is_none() && remarks.floats_of(&window, 2) {
            out.floats[step] = smoothed(window.values, smoothing, trend);
        }
    });
    refused.map_or(Ok(()), |text| Err(QueryError::Execution(text)))
}

fn smoothed(values: &[f64], smoothing: f64, trend: f64) -> f64 {
    let (mut before, mut level, mut slope) = (0.0, values[0], values[1] - values[0]);
    for (i, value) in values.iter().enumerate().skip(1) {
        let new = smoothing * value;
        if i > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let expected = (1.0 - smoothing) * (level + slope);
        (before, level) = (level, new + expected);
    }
    level
}
