//! What each function takes and returns: the parser checks calls against this table.

use std::{collections::HashMap, sync::LazyLock};

use crate::promql::parse::ValueType::{self, InstantVector, RangeVector, Scalar, String};

/// A function's name and types.
#[derive(Debug, PartialEq, Eq)]
pub struct Signature {
    /// As written; case matters.
    pub name: &'static str,
    /// What it takes. With `variadic`, the last one may be absent or repeated.
    pub args: &'static [ValueType],
    /// 0: exactly `args`. n > 0: the last may be absent, or stand up to n times. −1: the last repeats without bound.
    pub variadic: i32,
    /// What it gives.
    pub returns: ValueType,
    /// Behind Prometheus' `promql-experimental-functions`.
    pub experimental: bool,
}

impl Signature {
    /// A function that takes exactly `args`.
    const fn new(name: &'static str, args: &'static [ValueType], returns: ValueType) -> Self {
        Self { name, args, variadic: 0, returns, experimental: false }
    }

    const fn variadic(self, variadic: i32) -> Self {
        Self { variadic, ..self }
    }

    const fn experimental(self) -> Self {
        Self { experimental: true, ..self }
    }

    /// Fewest and most arguments it may be called with; no most if there is no bound.
    pub fn arity(&self) -> (usize, Option<usize>) {
        if self.variadic == 0 {
            return (self.args.len(), Some(self.args.len()));
        }
        let least = self.args.len() - 1;
        (least, usize::try_from(self.variadic).ok().map(|more| least + more))
    }
}

/// The function called `name`.
pub fn lookup(name: &str) -> Option<&'static Signature> {
    static BY_NAME: LazyLock<HashMap<&'static str, &'static Signature>> =
        LazyLock::new(|| TABLE.iter().map(|s| (s.name, s)).collect());
    BY_NAME.get(name).copied()
}

/// All functions, by name.
pub const TABLE: &[Signature] = &[
    Signature::new("abs", &[InstantVector], InstantVector),
    Signature::new("absent", &[InstantVector], InstantVector),
    Signature::new("absent_over_time", &[RangeVector], InstantVector),
    Signature::new("acos", &[InstantVector], InstantVector),
    Signature::new("acosh", &[InstantVector], InstantVector),
    Signature::new("asin", &[InstantVector], InstantVector),
    Signature::new("asinh", &[InstantVector], InstantVector),
    Signature::new("atan", &[InstantVector], InstantVector),
    Signature::new("atanh", &[InstantVector], InstantVector),
    Signature::new("avg_over_time", &[RangeVector], InstantVector),
    Signature::new("ceil", &[InstantVector], InstantVector),
    Signature::new("changes", &[RangeVector], InstantVector),
    Signature::new("clamp", &[InstantVector, Scalar, Scalar], InstantVector),
    Signature::new("clamp_max", &[InstantVector, Scalar], InstantVector),
    Signature::new("clamp_min", &[InstantVector, Scalar], InstantVector),
    Signature::new("cos", &[InstantVector], InstantVector),
    Signature::new("cosh", &[InstantVector], InstantVector),
    Signature::new("count_over_time", &[RangeVector], InstantVector),
    Signature::new("day_of_month", &[InstantVector], InstantVector).variadic(1),
    Signature::new("day_of_week", &[InstantVector], InstantVector).variadic(1),
    Signature::new("day_of_year", &[InstantVector], InstantVector).variadic(1),
    Signature::new("days_in_month", &[InstantVector], InstantVector).variadic(1),
    Signature::new("deg", &[InstantVector], InstantVector),
    Signature::new("delta", &[RangeVector], InstantVector),
    Signature::new("deriv", &[RangeVector], InstantVector),
    Signature::new("double_exponential_smoothing", &[RangeVector, Scalar, Scalar], InstantVector)
        .experimental(),
    Signature::new("end", &[], Scalar).experimental(),
    Signature::new("exp", &[InstantVector], InstantVector),
    Signature::new("first_over_time", &[RangeVector], InstantVector),
    Signature::new("floor", &[InstantVector], InstantVector),
    Signature::new("histogram_avg", &[InstantVector], InstantVector),
    Signature::new("histogram_count", &[InstantVector], InstantVector),
    Signature::new("histogram_fraction", &[Scalar, Scalar, InstantVector], InstantVector),
    Signature::new("histogram_quantile", &[Scalar, InstantVector], InstantVector),
    Signature::new("histogram_quantiles", &[InstantVector, String, Scalar], InstantVector)
        .variadic(9)
        .experimental(),
    Signature::new("histogram_stddev", &[InstantVector], InstantVector),
    Signature::new("histogram_stdvar", &[InstantVector], InstantVector),
    Signature::new("histogram_sum", &[InstantVector], InstantVector),
    Signature::new("hour", &[InstantVector], InstantVector).variadic(1),
    Signature::new("idelta", &[RangeVector], InstantVector),
    Signature::new("increase", &[RangeVector], InstantVector),
    Signature::new("info", &[InstantVector, InstantVector], InstantVector).variadic(1).experimental(),
    Signature::new("irate", &[RangeVector], InstantVector),
    Signature::new("label_join", &[InstantVector, String, String, String], InstantVector).variadic(-1),
    Signature::new("label_replace", &[InstantVector, String, String, String, String], InstantVector),
    Signature::new("last_over_time", &[RangeVector], InstantVector),
    Signature::new("ln", &[InstantVector], InstantVector),
    Signature::new("log10", &[InstantVector], InstantVector),
    Signature::new("log2", &[InstantVector], InstantVector),
    Signature::new("mad_over_time", &[RangeVector], InstantVector).experimental(),
    Signature::new("max_of", &[Scalar, Scalar], Scalar).experimental(),
    Signature::new("max_over_time", &[RangeVector], InstantVector),
    Signature::new("min_of", &[Scalar, Scalar], Scalar).experimental(),
    Signature::new("min_over_time", &[RangeVector], InstantVector),
    Signature::new("minute", &[InstantVector], InstantVector).variadic(1),
    Signature::new("month", &[InstantVector], InstantVector).variadic(1),
    Signature::new("pi", &[], Scalar),
    Signature::new("predict_linear", &[RangeVector, Scalar], InstantVector),
    Signature::new("present_over_time", &[RangeVector], InstantVector),
    Signature::new("quantile_over_time", &[Scalar, RangeVector], InstantVector),
    Signature::new("rad", &[InstantVector], InstantVector),
    Signature::new("range", &[], Scalar).experimental(),
    Signature::new("rate", &[RangeVector], InstantVector),
    Signature::new("resets", &[RangeVector], InstantVector),
    Signature::new("round", &[InstantVector, Scalar], InstantVector).variadic(1),
    Signature::new("scalar", &[InstantVector], Scalar),
    Signature::new("sgn", &[InstantVector], InstantVector),
    Signature::new("sin", &[InstantVector], InstantVector),
    Signature::new("sinh", &[InstantVector], InstantVector),
    Signature::new("sort", &[InstantVector], InstantVector),
    Signature::new("sort_by_label", &[InstantVector, String], InstantVector).variadic(-1).experimental(),
    Signature::new("sort_by_label_desc", &[InstantVector, String], InstantVector).variadic(-1).experimental(),
    Signature::new("sort_desc", &[InstantVector], InstantVector),
    Signature::new("sqrt", &[InstantVector], InstantVector),
    Signature::new("start", &[], Scalar).experimental(),
    Signature::new("start_timestamp", &[InstantVector], InstantVector).experimental(),
    Signature::new("stddev_over_time", &[RangeVector], InstantVector),
    Signature::new("stdvar_over_time", &[RangeVector], InstantVector),
    Signature::new("step", &[], Scalar).experimental(),
    Signature::new("sum_over_time", &[RangeVector], InstantVector),
    Signature::new("tan", &[InstantVector], InstantVector),
    Signature::new("tanh", &[InstantVector], InstantVector),
    Signature::new("time", &[], Scalar),
    Signature::new("timestamp", &[InstantVector], InstantVector),
    Signature::new("ts_of_first_over_time", &[RangeVector], InstantVector).experimental(),
    Signature::new("ts_of_last_over_time", &[RangeVector], InstantVector).experimental(),
    Signature::new("ts_of_max_over_time", &[RangeVector], InstantVector).experimental(),
    Signature::new("ts_of_min_over_time", &[RangeVector], InstantVector).experimental(),
    Signature::new("vector", &[Scalar], InstantVector),
    Signature::new("year", &[InstantVector], InstantVector).variadic(1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_by_its_exact_name() {
        for signature in TABLE {
            assert_eq!(lookup(signature.name), Some(signature));
        }
        assert_eq!(lookup("Rate"), None);
        assert_eq!(lookup("holt_winters"), None);
    }

    #[test]
    fn the_table_is_sorted_and_complete() {
        assert!(TABLE.windows(2).all(|w| w[0].name < w[1].name));
        assert_eq!(TABLE.len(), 90);
        assert_eq!(TABLE.iter().filter(|s| s.experimental).count(), 17);
    }

    #[test]
    fn the_last_argument_of_a_variadic_function_may_be_absent() {
        assert_eq!(lookup("round").unwrap().arity(), (1, Some(2)));
        assert_eq!(lookup("hour").unwrap().arity(), (0, Some(1)));
        assert_eq!(lookup("label_join").unwrap().arity(), (3, None));
        assert_eq!(lookup("histogram_quantiles").unwrap().arity(), (2, Some(11)));
        assert_eq!(lookup("rate").unwrap().arity(), (1, Some(1)));
    }
}
