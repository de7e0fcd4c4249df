//! Functions over a range of samples per step: one series in, one row out.
//!
//! ```text
//! samples   ·   ·  ·   ·   ·  ·   ·   ·
//! window      (            ]                 end - range < t <= end
//! window          (            ]             one step later
//! ```
//!
//! Windows only move forward, so two indices per kind of sample follow them; nothing is copied. What a
//! function can know without looking at the whole window again, it keeps: `rate` walks the list of
//! resets, `max_over_time` a queue of candidates, `changes` and `resets` count in advance, and a quantile is
//! found among samples in order. All of it computes in the order in which a naive loop over the window would,
//! so results are the same to the bit; only sums over long windows ([`blocks`]) may differ in the last.
//!
//! Samples that the store has downsampled come with what lay between them; for those there is [`gapped`].
//!
//! Remarks are collected per series and made into texts once, at its end.

mod blocks;
mod distribution;
mod extended;
mod extremes;
pub mod gapped;
mod instants;
mod lanes;
mod ordered;
mod pick;
mod rate;
mod regression;
mod sums;
mod window;

use std::sync::Arc;

pub use distribution::quantile;
pub use extended::Edges;
pub use window::{Frame, Windows};

use crate::promql::{
    QueryError,
    annotations::{self, Annotations},
    exec::rows::{Row, Steps},
    histogram::FloatHistogram,
    parse::Span,
};
use window::Window;

/// One series' samples, stale markers already removed, as range functions see them.
#[derive(Clone, Copy, Debug)]
pub struct RangeInput<'a> {
    /// Times of the float samples, rising.
    pub timestamps: &'a [i64],
    /// Their values.
    pub values: &'a [f64],
    /// Their start timestamps, 0 where not known; empty if none is known or the feature is off.
    pub starts: &'a [i64],
    /// The histogram samples, times rising.
    pub histograms: &'a [(i64, Arc<FloatHistogram>)],
    /// Start timestamps of the histogram samples; empty if none is known or the feature is off.
    pub histogram_starts: &'a [i64],
    /// The output steps: times before `offset` and `@`.
    pub steps: Steps,
    /// Where each step's window ends: times after `offset` and `@`.
    pub windows: Windows,
    /// How long a window is; it is left-open.
    pub range_ms: i64,
    /// Where samples beyond a window are looked for.
    pub edges: Edges,
    /// Which of the floats are in which window.
    pub frame: &'a Frame,
    /// The scalar arguments in the order they are written, one value per step each.
    pub params: &'a [&'a [f64]],
    /// The series' metric name for remarks; empty if it has none.
    pub metric_name: &'a str,
    /// The series' `__type__` if that label and not the name says what a counter is; else none.
    pub type_label: Option<&'a str>,
    /// Where the range argument stands in the text; remarks point there.
    pub span: Span,
    /// Where the first scalar argument stands; remarks about it point there.
    pub param_span: Span,
}

/// A function over a range vector. `absent_over_time` looks at all series and is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RangeFunction {
    /// `rate`
    Rate,
    /// `increase`
    Increase,
    /// `delta`
    Delta,
    /// `irate`
    Irate,
    /// `idelta`
    Idelta,
    /// `deriv`
    Deriv,
    /// `predict_linear`
    PredictLinear,
    /// `double_exponential_smoothing`
    DoubleExponentialSmoothing,
    /// `changes`
    Changes,
    /// `resets`
    Resets,
    /// `avg_over_time`
    AvgOverTime,
    /// `sum_over_time`
    SumOverTime,
    /// `min_over_time`
    MinOverTime,
    /// `max_over_time`
    MaxOverTime,
    /// `count_over_time`
    CountOverTime,
    /// `stddev_over_time`
    StddevOverTime,
    /// `stdvar_over_time`
    StdvarOverTime,
    /// `mad_over_time`
    MadOverTime,
    /// `quantile_over_time`
    QuantileOverTime,
    /// `last_over_time`
    LastOverTime,
    /// `first_over_time`
    FirstOverTime,
    /// `present_over_time`
    PresentOverTime,
    /// `ts_of_first_over_time`
    TsOfFirstOverTime,
    /// `ts_of_last_over_time`
    TsOfLastOverTime,
    /// `ts_of_min_over_time`
    TsOfMinOverTime,
    /// `ts_of_max_over_time`
    TsOfMaxOverTime,
}

impl RangeFunction {
    /// The function called `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => Self::Rate,
            "increase" => Self::Increase,
            "delta" => Self::Delta,
            "irate" => Self::Irate,
            "idelta" => Self::Idelta,
            "deriv" => Self::Deriv,
            "predict_linear" => Self::PredictLinear,
            "double_exponential_smoothing" => Self::DoubleExponentialSmoothing,
            "changes" => Self::Changes,
            "resets" => Self::Resets,
            "avg_over_time" => Self::AvgOverTime,
            "sum_over_time" => Self::SumOverTime,
            "min_over_time" => Self::MinOverTime,
            "max_over_time" => Self::MaxOverTime,
            "count_over_time" => Self::CountOverTime,
            "stddev_over_time" => Self::StddevOverTime,
            "stdvar_over_time" => Self::StdvarOverTime,
            "mad_over_time" => Self::MadOverTime,
            "quantile_over_time" => Self::QuantileOverTime,
            "last_over_time" => Self::LastOverTime,
            "first_over_time" => Self::FirstOverTime,
            "present_over_time" => Self::PresentOverTime,
            "ts_of_first_over_time" => Self::TsOfFirstOverTime,
            "ts_of_last_over_time" => Self::TsOfLastOverTime,
            "ts_of_min_over_time" => Self::TsOfMinOverTime,
            "ts_of_max_over_time" => Self::TsOfMaxOverTime,
            _ => return None,
        })
    }

    /// The functions that take a range with `edges`, in the order of their names; none is all.
    pub fn taking(edges: Edges) -> Option<&'static [&'static str]> {
        match edges {
            Edges::Plain => None,
            Edges::Anchored(_) => Some(&["changes", "delta", "increase", "rate", "resets"]),
            Edges::Smoothed(_) => Some(&["delta", "increase", "rate"]),
        }
    }

    /// Whether it costs about as much as there are samples and steps, however many of them are in each window.
    pub fn is_shared(self, values: &[f64], edges: Edges) -> bool {
        match self {
            Self::Delta
            | Self::Deriv
            | Self::PredictLinear
            | Self::AvgOverTime
            | Self::SumOverTime
            | Self::StddevOverTime
            | Self::StdvarOverTime => edges == Edges::Plain && blocks::are_tame(values),
            Self::Irate
            | Self::Idelta
            | Self::Changes
            | Self::Resets
            | Self::MinOverTime
            | Self::MaxOverTime
            | Self::CountOverTime
            | Self::QuantileOverTime
            | Self::LastOverTime
            | Self::FirstOverTime
            | Self::PresentOverTime
            | Self::TsOfFirstOverTime
            | Self::TsOfLastOverTime
            | Self::TsOfMinOverTime
            | Self::TsOfMaxOverTime => true,
            // Not where values are infinite.
            Self::MadOverTime => blocks::are_tame(values),
            // Each window adds what its resets took.
            Self::Rate | Self::Increase | Self::DoubleExponentialSmoothing => false,
        }
    }

    /// Whether the result is still a value of the metric, so that its name stays.
    pub fn keeps_name(self) -> bool {
        matches!(self, Self::LastOverTime | Self::FirstOverTime)
    }
}

/// Evaluates over all steps into `out`, a row of `steps.count` places that are absent at first.
pub fn evaluate(
    function: RangeFunction,
    input: &RangeInput<'_>,
    out: &mut Row,
    notes: &mut Annotations,
) -> Result<(), QueryError> {
    use RangeFunction as F;
    debug_assert_eq!(input.timestamps.len(), input.values.len(), "a value for each time");
    debug_assert_eq!(out.floats.len(), input.steps.count, "a place for each step");

    let mut remarks = Remarks::default();
    let extended = input.edges != Edges::Plain;
    match function {
        F::Rate if extended => extended::evaluate(rate::Kind::Rate, input, out, &mut remarks),
        F::Increase if extended => extended::evaluate(rate::Kind::Increase, input, out, &mut remarks),
        F::Delta if extended => extended::evaluate(rate::Kind::Delta, input, out, &mut remarks),
        F::Rate => rate::evaluate(rate::Kind::Rate, input, out, &mut remarks),
        F::Increase => rate::evaluate(rate::Kind::Increase, input, out, &mut remarks),
        F::Delta => rate::evaluate(rate::Kind::Delta, input, out, &mut remarks),
        F::Irate => instants::evaluate(instants::Kind::Rate, input, out, &mut remarks),
        F::Idelta => instants::evaluate(instants::Kind::Delta, input, out, &mut remarks),
        F::Changes => instants::changes(input, out),
        F::Resets => instants::resets(input, out),
        F::Deriv => regression::deriv(input, out, &mut remarks),
        F::PredictLinear => regression::predict_linear(input, out, &mut remarks),
        F::DoubleExponentialSmoothing => regression::smooth(input, out, &mut remarks)?,
        F::AvgOverTime => sums::avg(input, out, &mut remarks),
        F::SumOverTime => sums::sum(input, out, &mut remarks),
        F::StddevOverTime => sums::variance(input, f64::sqrt, out, &mut remarks),
        F::StdvarOverTime => sums::variance(input, |variance| variance, out, &mut remarks),
        F::MinOverTime => extremes::value(extremes::Kind::Min, input, out, &mut remarks),
        F::MaxOverTime => extremes::value(extremes::Kind::Max, input, out, &mut remarks),
        F::TsOfMinOverTime => extremes::time(extremes::Kind::Min, input, out, &mut remarks),
        F::TsOfMaxOverTime => extremes::time(extremes::Kind::Max, input, out, &mut remarks),
        F::MadOverTime => distribution::mad(input, out, &mut remarks),
        F::QuantileOverTime => distribution::quantile_over_time(input, out, &mut remarks, notes),
        F::LastOverTime => pick::last(input, out),
        F::FirstOverTime => pick::first(input, out),
        F::TsOfFirstOverTime => pick::time_of_first(input, out),
        F::TsOfLastOverTime => pick::time_of_last(input, out),
        F::CountOverTime => pick::count(input, out),
        F::PresentOverTime => pick::present(input, out),
    }
    remarks.write(input, notes);
    Ok(())
}

/// Puts a histogram at step `step`, which is later than all that the row has.
fn put_histogram(out: &mut Row, step: usize, histogram: Arc<FloatHistogram>) {
    if let Ok(step) = u32::try_from(step) {
        out.histograms.push((step, histogram));
    }
}

/// What was noticed over all windows of a series.
#[derive(Clone, Copy, Debug, Default)]
struct Remarks {
    mixed: bool,
    histograms_ignored: bool,
    mixed_schemas: bool,
    not_counter: bool,
    not_gauge: bool,
    float_from_counter: bool,
    start_time_overlap: bool,
    reset_collision: bool,
    reconciled_in_addition: bool,
    reconciled_in_subtraction: bool,
    reconciled_in_aggregation: bool,
}

impl Remarks {
    /// Notes that a function for floats only saw a window; whether there is anything for it to do.
    fn floats_of(&mut self, window: &Window<'_>, at_least: usize) -> bool {
        self.histograms_ignored |= !window.values.is_empty() && !window.histograms.is_empty();
        window.values.len() >= at_least
    }

    fn write(self, input: &RangeInput<'_>, notes: &mut Annotations) {
        let (name, span) = (input.metric_name, input.span);
        if self.mixed {
            notes.warn(annotations::mixed_floats_histograms(name), span);
        }
        if self.mixed_schemas {
            notes.warn(annotations::mixed_exponential_custom(name), span);
        }
        if self.not_counter {
            notes.warn(annotations::histogram_not_counter(name), span);
        }
        if self.not_gauge {
            notes.warn(annotations::histogram_not_gauge(name), span);
        }
        if self.start_time_overlap {
            notes.warn(annotations::start_time_overlap(name), span);
        }
        if self.reset_collision {
            notes.warn(annotations::counter_reset_collision("aggregation"), span);
        }
        if self.histograms_ignored {
            notes.info(annotations::histograms_ignored_in_mixed_range(name), span);
        }
        for (reconciled, operation) in [
            (self.reconciled_in_addition, "addition"),
            (self.reconciled_in_subtraction, "subtraction"),
            (self.reconciled_in_aggregation, "aggregation"),
        ] {
            if reconciled {
                notes.info(annotations::mismatched_custom_buckets(operation), span);
            }
        }
        if self.float_from_counter {
            note_possible_non_counter(name, input.type_label, span, notes);
        }
    }
}

/// Notes that a function for counters was used on what does not look like one.
pub fn note_possible_non_counter(name: &str, type_label: Option<&str>, span: Span, notes: &mut Annotations) {
    if name.is_empty() {
        return;
    }
    match type_label {
        Some("counter" | "histogram") => {}
        Some(other) => notes.info(annotations::possible_non_counter_type(name, other), span),
        None if ["_total", "_sum", "_count", "_bucket"].iter().any(|end| name.ends_with(end)) => {}
        None => notes.info(annotations::possible_non_counter(name), span),
    }
}

#[cfg(test)]
mod tests;
