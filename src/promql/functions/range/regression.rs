//! Trends: `deriv` and `predict_linear` by least squares, and exponential smoothing.

use super::{
    RangeInput, Remarks,
    blocks::{Blocks, Long, Moments},
    window::{self, Window},
};
use crate::promql::{
    QueryError,
    exec::rows::{Row, is_absent},
    functions::neumaier::Neumaier,
};

/// `deriv`: the slope per second.
pub(super) fn deriv(input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    // Times relative to a sample's are small, and small numbers lose less.
    lines(input, |_, window| window.times[0], |step, line| out.floats[step] = line.slope, remarks);
}

/// `predict_linear`: where the line will be, so many seconds after the step's own time.
pub(super) fn predict_linear(input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    let at = |step, line: Line| out.floats[step] = line.slope * param(input, 0, step) + line.intercept;
    lines(input, |step, _| input.steps.at(step), at, remarks);
}

/// Windows longer than this, some 34 years, share nothing: squares of their times add up to too much.
const LONGEST: i64 = 1 << 40;

/// Hands `each` the line through each window's samples.
fn lines(
    input: &RangeInput<'_>,
    origin: impl Fn(usize, &Window<'_>) -> i64,
    mut each: impl FnMut(usize, Line),
    remarks: &mut Remarks,
) {
    let (mut blocks, mut long) = (Blocks::<Moments>::new(), Long::new(input));
    // From where on the samples up to the window's last have one value.
    let (mut same, mut seen) = (0, 0);
    window::for_each(input, |step, window| {
        if !remarks.floats_of(&window, 2) {
            return;
        }
        let origin = origin(step, &window);
        let last = window.first + window.values.len();
        for i in seen.max(1)..last {
            if input.values[i] != input.values[i - 1] {
                same = i;
            }
        }
        seen = seen.max(last);
        if same <= window.first {
            return each(step, Line::level(window.values[0]));
        }
        let shared = input.range_ms <= LONGEST && long.is(&window);
        let part = if shared { blocks.part(input, &window) } else { None };
        let line = part.and_then(|(moments, border)| line_of(&moments, origin.checked_sub(border)?));
        each(step, line.unwrap_or_else(|| line_through(window.times, window.values, origin)));
    });
}

/// The line of what samples add up to, and its height so many milliseconds after where their times are counted
/// from. None where times are too large for sums of their squares.
fn line_of(moments: &Moments, origin: i64) -> Option<Line> {
    let (count, origin) = (i128::from(moments.count), i128::from(origin));
    let times = moments.times.checked_sub(count.checked_mul(origin)?)?;
    let twice = moments.times.checked_mul(origin)?.checked_mul(2)?;
    let squares = moments.squares.checked_sub(twice)?.checked_add(count.checked_mul(origin * origin)?)?;
    #[expect(clippy::cast_precision_loss, reason = "times are computed with as floats")]
    let [n, x, xx, origin] = [count as f64, times as f64 / 1e3, squares as f64 / 1e6, origin as f64 / 1e3];
    let y = moments.values.corrected();
    let xy = moments.products.corrected() - origin * y;
    let covariance = xy - x * y / n;
    let variance = xx - x * x / n;
    let slope = covariance / variance;
    Some(Line { slope, intercept: y / n - slope * x / n })
}

fn param(input: &RangeInput<'_>, number: usize, step: usize) -> f64 {
    let value = input.params.get(number).and_then(|param| param.get(step)).copied();
    value.filter(|value| !is_absent(*value)).unwrap_or(f64::NAN)
}

struct Line {
    slope: f64,
    intercept: f64,
}

impl Line {
    /// Through samples that all have one value: it has no slope at all, which sums of rounded products would not say.
    fn level(value: f64) -> Self {
        if value.is_infinite() {
            Self { slope: f64::NAN, intercept: f64::NAN }
        } else {
            Self { slope: 0.0, intercept: value }
        }
    }
}

/// The line with the least squared distances, and its height at `origin`.
fn line_through(times: &[i64], values: &[f64], origin: i64) -> Line {
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
