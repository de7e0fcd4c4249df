//! Functions of one value: mathematics, rounding, limits, and the parts of a time.
//!
//! They know floats only: a histogram in the row is left out without a word. The exceptions are
//! [`histogram_stat`], which know histograms only.

use std::f64::consts::PI;

use super::calendar::Civil;
use crate::promql::exec::rows::{ABSENT, Row, is_absent};

/// A function that makes a float of a float (and scalars).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstantFunction {
    /// `abs`
    Abs,
    /// `ceil`
    Ceil,
    /// `floor`
    Floor,
    /// `exp`
    Exp,
    /// `ln`
    Ln,
    /// `log2`
    Log2,
    /// `log10`
    Log10,
    /// `sqrt`
    Sqrt,
    /// `sgn`
    Sgn,
    /// `round`: to a whole number, or to a multiple of the scalar
    Round,
    /// `clamp`: nothing is left if the lower limit is above the upper
    Clamp,
    /// `clamp_min`
    ClampMin,
    /// `clamp_max`
    ClampMax,
    /// `sin`
    Sin,
    /// `cos`
    Cos,
    /// `tan`
    Tan,
    /// `asin`
    Asin,
    /// `acos`
    Acos,
    /// `atan`
    Atan,
    /// `sinh`
    Sinh,
    /// `cosh`
    Cosh,
    /// `tanh`
    Tanh,
    /// `asinh`
    Asinh,
    /// `acosh`
    Acosh,
    /// `atanh`
    Atanh,
    /// `deg`: from radians to degrees
    Deg,
    /// `rad`: from degrees to radians
    Rad,
    /// `year`
    Year,
    /// `month`
    Month,
    /// `day_of_month`
    DayOfMonth,
    /// `day_of_week`: 0 is Sunday
    DayOfWeek,
    /// `day_of_year`
    DayOfYear,
    /// `days_in_month`
    DaysInMonth,
    /// `hour`
    Hour,
    /// `minute`
    Minute,
}

impl InstantFunction {
    /// The function called `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "abs" => Self::Abs,
            "ceil" => Self::Ceil,
            "floor" => Self::Floor,
            "exp" => Self::Exp,
            "ln" => Self::Ln,
            "log2" => Self::Log2,
            "log10" => Self::Log10,
            "sqrt" => Self::Sqrt,
            "sgn" => Self::Sgn,
            "round" => Self::Round,
            "clamp" => Self::Clamp,
            "clamp_min" => Self::ClampMin,
            "clamp_max" => Self::ClampMax,
            "sin" => Self::Sin,
            "cos" => Self::Cos,
            "tan" => Self::Tan,
            "asin" => Self::Asin,
            "acos" => Self::Acos,
            "atan" => Self::Atan,
            "sinh" => Self::Sinh,
            "cosh" => Self::Cosh,
            "tanh" => Self::Tanh,
            "asinh" => Self::Asinh,
            "acosh" => Self::Acosh,
            "atanh" => Self::Atanh,
            "deg" => Self::Deg,
            "rad" => Self::Rad,
            "year" => Self::Year,
            "month" => Self::Month,
            "day_of_month" => Self::DayOfMonth,
            "day_of_week" => Self::DayOfWeek,
            "day_of_year" => Self::DayOfYear,
            "days_in_month" => Self::DaysInMonth,
            "hour" => Self::Hour,
            "minute" => Self::Minute,
            _ => return None,
        })
    }
}

/// Applies a function to all values of a row, in place; histograms go.
///
/// `params` are the scalar arguments in order, one value per step.
pub fn map(function: InstantFunction, row: &mut Row, params: &[&[f64]]) {
    use InstantFunction as F;
    row.histograms.clear();
    let param = |number: usize, step: usize| params.get(number).and_then(|p| p.get(step)).copied();
    match function {
        F::Abs => each(row, f64::abs),
        F::Ceil => each(row, f64::ceil),
        F::Floor => each(row, f64::floor),
        F::Exp => each(row, f64::exp),
        F::Ln => each(row, f64::ln),
        F::Log2 => each(row, f64::log2),
        F::Log10 => each(row, f64::log10),
        F::Sqrt => each(row, f64::sqrt),
        F::Sgn => each(row, sgn),
        F::Round => each_step(row, |step, v| round(v, param(0, step).unwrap_or(1.0))),
        F::Clamp => each_step(row, |step, v| {
            let (min, max) = (param(0, step).unwrap_or(f64::NAN), param(1, step).unwrap_or(f64::NAN));
            if min > max { ABSENT } else { go_max(min, go_min(max, v)) }
        }),
        F::ClampMin => each_step(row, |step, v| go_max(param(0, step).unwrap_or(f64::NAN), v)),
        F::ClampMax => each_step(row, |step, v| go_min(param(0, step).unwrap_or(f64::NAN), v)),
        F::Sin => each(row, f64::sin),
        F::Cos => each(row, f64::cos),
        F::Tan => each(row, f64::tan),
        F::Asin => each(row, f64::asin),
        F::Acos => each(row, f64::acos),
        F::Atan => each(row, f64::atan),
        F::Sinh => each(row, |x| if overflows_in_go(x) { x.signum() * f64::INFINITY } else { x.sinh() }),
        F::Cosh => each(row, |x| if overflows_in_go(x) { f64::INFINITY } else { x.cosh() }),
        F::Tanh => each(row, f64::tanh),
        F::Asinh => each(row, f64::asinh),
        F::Acosh => each(row, f64::acosh),
        F::Atanh => each(row, f64::atanh),
        F::Deg => each(row, |v| v * 180.0 / PI),
        F::Rad => each(row, |v| v * PI / 180.0),
        F::Year => each_time(row, |civil| {
            #[expect(clippy::cast_precision_loss, reason = "no year an i64 of seconds reaches is above 2^53")]
            let year = civil.year as f64;
            year
        }),
        F::Month => each_time(row, |civil| f64::from(civil.month)),
        F::DayOfMonth => each_time(row, |civil| f64::from(civil.day)),
        F::DayOfWeek => each_time(row, |civil| f64::from(civil.weekday)),
        F::DayOfYear => each_time(row, |civil| f64::from(civil.day_of_year)),
        F::DaysInMonth => each_time(row, |civil| f64::from(civil.days_in_month())),
        F::Hour => each_time(row, |civil| f64::from(civil.hour)),
        F::Minute => each_time(row, |civil| f64::from(civil.minute)),
    }
}

/// A number that a histogram comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HistogramStat {
    /// `histogram_count`
    Count,
    /// `histogram_sum`
    Sum,
    /// `histogram_avg`
    Avg,
    /// `histogram_stddev`
    Stddev,
    /// `histogram_stdvar`
    Stdvar,
}

impl HistogramStat {
    /// The function called `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "histogram_count" => Self::Count,
            "histogram_sum" => Self::Sum,
            "histogram_avg" => Self::Avg,
            "histogram_stddev" => Self::Stddev,
            "histogram_stdvar" => Self::Stdvar,
            _ => return None,
        })
    }
}

/// Puts a number in the place of each histogram of a row; floats go.
pub fn histogram_stat(stat: HistogramStat, row: &mut Row) {
    row.floats.fill(ABSENT);
    for (step, histogram) in std::mem::take(&mut row.histograms) {
        let value = match stat {
            HistogramStat::Count => histogram.count,
            HistogramStat::Sum => histogram.sum,
            HistogramStat::Avg => histogram.mean(),
            HistogramStat::Stddev => histogram.variance().sqrt(),
            HistogramStat::Stdvar => histogram.variance(),
        };
        let place = usize::try_from(step).ok().and_then(|step| row.floats.get_mut(step));
        if let Some(place) = place {
            *place = value;
        }
    }
}

/// The larger of two; NaN if one is, unless the other is +Inf. (`f64::max` passes NaN over.)
pub fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == b {
        // Of the two zeros the positive one is larger.
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// The smaller of two; NaN if one is, unless the other is −Inf. (`f64::min` passes NaN over.)
pub fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

fn each(row: &mut Row, function: impl Fn(f64) -> f64) {
    each_step(row, |_, value| function(value));
}

fn each_step(row: &mut Row, function: impl Fn(usize, f64) -> f64) {
    for (step, value) in row.floats.iter_mut().enumerate() {
        if !is_absent(*value) {
            *value = function(step, *value);
        }
    }
}

/// Takes each value for seconds since the epoch; what is no time has no parts.
fn each_time(row: &mut Row, part: impl Fn(Civil) -> f64) {
    each(row, |value| {
        if value.is_nan() {
            return f64::NAN;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what lies beyond the ends of time is taken for them"
        )]
        let seconds = value as i64;
        part(Civil::from_unix_seconds(seconds))
    });
}

fn sgn(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
}

/// To the nearest multiple, halves up; the inverse is what makes `round(x, 0.1)` come out even.
fn round(value: f64, to_nearest: f64) -> f64 {
    let inverse = 1.0 / to_nearest;
    (value * inverse + 0.5).floor() / inverse
}

/// Whether half of `exp` is infinite, as which Go reckons `sinh` and `cosh` far from zero: between 709.78 and
/// 710.47 they would still be finite.
fn overflows_in_go(x: f64) -> bool {
    x.abs().exp() == f64::INFINITY
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::promql::histogram::FloatHistogram;

    const NAN: f64 = f64::NAN;
    const INF: f64 = f64::INFINITY;

    fn call(name: &str, values: &[f64], params: &[f64]) -> Vec<f64> {
        let mut row = Row { floats: values.to_vec(), histograms: Vec::new() };
        let params: Vec<Vec<f64>> = params.iter().map(|p| vec![*p; values.len()]).collect();
        let params: Vec<&[f64]> = params.iter().map(Vec::as_slice).collect();
        map(InstantFunction::by_name(name).unwrap(), &mut row, &params);
        row.floats
    }

    fn check(name: &str, values: &[f64], params: &[f64], expected: &[f64]) {
        let got = call(name, values, params);
        for ((value, got), expected) in values.iter().zip(&got).zip(expected) {
            let close = (got - expected).abs() <= 1e-12 * expected.abs();
            let same = got.to_bits() == expected.to_bits()
                || (got.is_nan() && expected.is_nan() && !is_absent(*got) && !is_absent(*expected));
            assert!(close || same, "{name}({value}, {params:?}) = {got}, not {expected}");
        }
    }

    #[test]
    fn every_function_has_its_value() {
        check("abs", &[-1.5, 0.0, -INF, NAN], &[], &[1.5, 0.0, INF, NAN]);
        check("ceil", &[1.2, -1.2, INF], &[], &[2.0, -1.0, INF]);
        check("floor", &[1.2, -1.2, NAN], &[], &[1.0, -2.0, NAN]);
        check("exp", &[0.0, 1.0, -INF], &[], &[1.0, std::f64::consts::E, 0.0]);
        check("ln", &[1.0, 0.0, -1.0], &[], &[0.0, -INF, NAN]);
        check("log2", &[8.0, 0.5], &[], &[3.0, -1.0]);
        check("log10", &[1000.0, 0.01], &[], &[3.0, -2.0]);
        check("sqrt", &[9.0, -1.0], &[], &[3.0, NAN]);
        check("sgn", &[-3.0, 7.0, 0.0, -0.0, NAN], &[], &[-1.0, 1.0, 0.0, -0.0, NAN]);
        check("sin", &[0.0, PI / 2.0], &[], &[0.0, 1.0]);
        check("cos", &[0.0, PI], &[], &[1.0, -1.0]);
        check("tan", &[0.0, PI / 4.0], &[], &[0.0, 1.0]);
        check("asin", &[1.0, 2.0], &[], &[PI / 2.0, NAN]);
        check("acos", &[1.0, -1.0], &[], &[0.0, PI]);
        check("atan", &[1.0, INF], &[], &[PI / 4.0, PI / 2.0]);
        check("sinh", &[0.0, 1.0], &[], &[0.0, 1.175_201_193_643_801_4]);
        check("cosh", &[0.0, 1.0], &[], &[1.0, 1.543_080_634_815_243_7]);
        check("tanh", &[0.0, INF], &[], &[0.0, 1.0]);
        check("asinh", &[0.0, 1.0], &[], &[0.0, 0.881_373_587_019_543]);
        check("acosh", &[1.0, 0.5], &[], &[0.0, NAN]);
        check("atanh", &[0.0, 1.0], &[], &[0.0, INF]);
        check("deg", &[PI, -PI / 2.0], &[], &[180.0, -90.0]);
        check("rad", &[180.0, -90.0], &[], &[PI, -PI / 2.0]);
    }

    #[test]
    fn rounding_takes_halves_up() {
        check("round", &[2.5, -2.5, 1.4, -1.6, INF, NAN], &[], &[3.0, -2.0, 1.0, -2.0, INF, NAN]);
        check("round", &[7.0, 2.5, -2.6], &[5.0], &[5.0, 5.0, -5.0]);
        check("round", &[0.15, 0.25], &[0.1], &[0.2, 0.3]);
    }

    #[test]
    fn clamping_keeps_nan_and_refuses_crossed_limits() {
        check("clamp", &[-5.0, 5.0, 50.0, NAN, -INF], &[0.0, 10.0], &[0.0, 5.0, 10.0, NAN, 0.0]);
        check("clamp", &[1.0, 2.0], &[10.0, 0.0], &[ABSENT, ABSENT]);
        check("clamp", &[1.0], &[NAN, 5.0], &[NAN]);
        check("clamp_min", &[-5.0, 5.0, NAN], &[1.0], &[1.0, 5.0, NAN]);
        check("clamp_max", &[-5.0, 5.0, NAN], &[1.0], &[-5.0, 1.0, NAN]);
        check("clamp_max", &[-5.0], &[NAN], &[NAN]);
    }

    #[test]
    fn max_and_min_are_gos() {
        assert!(go_max(1.0, NAN).is_nan() && go_min(NAN, 1.0).is_nan());
        assert_eq!(go_max(NAN, INF), INF);
        assert_eq!(go_min(NAN, -INF), -INF);
        assert!(go_max(NAN, -INF).is_nan());
        assert_eq!(go_max(-0.0, 0.0).to_bits(), 0.0_f64.to_bits());
        assert_eq!(go_min(0.0, -0.0).to_bits(), (-0.0_f64).to_bits());
        assert_eq!((go_max(1.0, 2.0), go_min(1.0, 2.0)), (2.0, 1.0));
    }

    #[test]
    fn a_time_has_parts() {
        // 2008-12-31T23:59:59.9Z, a Wednesday in a leap year
        let t = [1_230_767_999.9];
        for (name, part) in [
            ("year", 2008.0),
            ("month", 12.0),
            ("day_of_month", 31.0),
            ("day_of_week", 3.0),
            ("day_of_year", 366.0),
            ("days_in_month", 31.0),
            ("hour", 23.0),
            ("minute", 59.0),
        ] {
            check(name, &t, &[], &[part]);
            check(name, &[NAN], &[], &[NAN]);
            assert!(call(name, &[INF, -INF, 1e300], &[]).iter().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn what_is_absent_stays_absent_and_histograms_go() {
        let mut row =
            Row { floats: vec![-1.0, ABSENT], histograms: vec![(1, Arc::new(FloatHistogram::default()))] };
        map(InstantFunction::Abs, &mut row, &[]);
        assert_eq!(row.floats[0], 1.0);
        assert!(is_absent(row.floats[1]) && row.histograms.is_empty());
    }

    #[test]
    fn a_histogram_comes_down_to_a_number() {
        let histogram = FloatHistogram { count: 4.0, sum: 10.0, ..FloatHistogram::default() };
        for (name, expected) in [("histogram_count", 4.0), ("histogram_sum", 10.0), ("histogram_avg", 2.5)] {
            let mut row =
                Row { floats: vec![7.0, ABSENT], histograms: vec![(1, Arc::new(histogram.clone()))] };
            histogram_stat(HistogramStat::by_name(name).unwrap(), &mut row);
            assert!(is_absent(row.floats[0]) && row.histograms.is_empty());
            assert_eq!(row.floats[1], expected);
        }
    }
}
