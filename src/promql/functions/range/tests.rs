mod long;

use proptest::prelude::*;

use super::*;
use crate::{
    model::histogram::{ResetHint, Span as BucketSpan},
    promql::{exec::rows::is_absent, functions::neumaier::Neumaier},
};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

/// A series in the making: samples at times in seconds.
#[derive(Default)]
struct Series {
    timestamps: Vec<i64>,
    values: Vec<f64>,
    starts: Vec<i64>,
    histograms: Vec<(i64, Arc<FloatHistogram>)>,
    histogram_starts: Vec<i64>,
}

impl Series {
    fn floats(samples: &[(i64, f64)]) -> Self {
        Self {
            timestamps: samples.iter().map(|(t, _)| t * 1000).collect(),
            values: samples.iter().map(|(_, v)| *v).collect(),
            ..Self::default()
        }
    }

    /// One value per minute from 0 on.
    fn minutely(values: &[f64]) -> Self {
        let samples: Vec<(i64, f64)> = (0..).step_by(60).zip(values.iter().copied()).collect();
        Self::floats(&samples)
    }

    fn starting(mut self, starts_seconds: &[i64]) -> Self {
        self.starts = starts_seconds.iter().map(|s| s * 1000).collect();
        self
    }

    fn with_histograms(mut self, samples: &[(i64, FloatHistogram)]) -> Self {
        self.histograms = samples.iter().map(|(t, h)| (t * 1000, Arc::new(h.clone()))).collect();
        self
    }

    fn input(&self, end: i64, range: i64) -> RangeInput<'_> {
        let steps = Steps { start: end * 1000, step: 0, count: 1 };
        let windows = Windows::Moving { offset_ms: 0 };
        RangeInput {
            frame: framed(&self.timestamps, steps, windows, range * 1000, Edges::Plain),
            timestamps: &self.timestamps,
            values: &self.values,
            starts: &self.starts,
            histograms: &self.histograms,
            histogram_starts: &self.histogram_starts,
            steps,
            windows,
            range_ms: range * 1000,
            edges: Edges::Plain,
            params: &[],
            metric_name: "x_total",
            type_label: None,
            span: Span { start: 5, end: 6 },
            param_span: Span { start: 2, end: 3 },
        }
    }

    fn run(&self, function: &str, end: i64, range: i64, params: &[f64]) -> (Row, Annotations) {
        let params: Vec<&[f64]> = params.chunks(1).collect();
        let input = RangeInput { params: &params, ..self.input(end, range) };
        run(function, &input)
    }

    /// The float at `end` seconds over `range` seconds, none if there is none.
    fn float(&self, function: &str, end: i64, range: i64, params: &[f64]) -> Option<f64> {
        let (row, notes) = self.run(function, end, range, params);
        assert!(notes.is_empty(), "{notes:?}");
        assert!(row.histograms.is_empty());
        Some(row.floats[0]).filter(|v| !is_absent(*v))
    }
}

/// A frame for a test, which lives as long as it.
fn framed(timestamps: &[i64], steps: Steps, windows: Windows, range_ms: i64, edges: Edges) -> &'static Frame {
    Box::leak(Box::new(Frame::of(timestamps, steps, windows, range_ms, edges)))
}

/// Tests change the windows of an input; its frame follows them.
fn run(function: &str, input: &RangeInput<'_>) -> (Row, Annotations) {
    let RangeInput { timestamps, steps, windows, range_ms, edges, .. } = *input;
    let input = &RangeInput { frame: framed(timestamps, steps, windows, range_ms, edges), ..*input };
    let mut row = Row::absent(input.steps.count);
    let mut notes = Annotations::default();
    evaluate(RangeFunction::by_name(function).unwrap(), input, &mut row, &mut notes).unwrap();
    (row, notes)
}

#[track_caller]
fn check(series: &Series, function: &str, end: i64, range: i64, params: &[f64], expected: Option<f64>) {
    let got = series.float(function, end, range, params);
    let equal = match (got, expected) {
        (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * b.abs(),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    assert!(equal, "{function}: {got:?}, not {expected:?}");
}

/// A histogram with schema 0, whose buckets begin at index 1 (from 1 to 2).
fn histogram(buckets: &[f64]) -> FloatHistogram {
    FloatHistogram {
        count: buckets.iter().sum(),
        sum: buckets.iter().sum(),
        positive_spans: vec![BucketSpan { offset: 1, length: u32::try_from(buckets.len()).unwrap() }],
        positive_buckets: buckets.to_vec(),
        ..FloatHistogram::default()
    }
}

fn gauge(buckets: &[f64]) -> FloatHistogram {
    FloatHistogram { reset_hint: ResetHint::Gauge, ..histogram(buckets) }
}

fn custom(bounds: &[f64], buckets: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema: -53,
        custom_values: Arc::from(bounds),
        positive_spans: vec![BucketSpan { offset: 0, length: u32::try_from(buckets.len()).unwrap() }],
        ..histogram(buckets)
    }
}

#[test]
fn windows_leave_out_their_beginning_and_include_their_end() {
    let series = Series::minutely(&[1.0, 2.0, 3.0, 4.0]);
    check(&series, "count_over_time", 120, 60, &[], Some(1.0));
    check(&series, "count_over_time", 120, 61, &[], Some(2.0));
    check(&series, "count_over_time", 119, 60, &[], Some(1.0));
    check(&series, "count_over_time", 1000, 60, &[], None);
    check(&series, "count_over_time", -1, 60, &[], None);
    check(&series, "count_over_time", 180, i64::from(i32::MAX), &[], Some(4.0));
}

#[test]
fn offsets_move_windows_and_at_holds_them() {
    let series = Series::minutely(&[1.0, 2.0, 3.0, 4.0]);
    let steps = Steps { start: 60_000, step: 60_000, count: 3 };
    let input = RangeInput { steps, ..series.input(0, 60) };
    let moved = RangeInput { windows: Windows::Moving { offset_ms: 60_000 }, ..input };
    assert_eq!(run("last_over_time", &moved).0.floats, [1.0, 2.0, 3.0]);
    let ahead = RangeInput { windows: Windows::Moving { offset_ms: -60_000 }, ..input };
    let (row, _) = run("last_over_time", &ahead);
    assert_eq!(row.floats[..2], [3.0, 4.0]);
    assert!(is_absent(row.floats[2]));
    let held = RangeInput { windows: Windows::Fixed { end: 120_000 }, ..input };
    assert_eq!(run("last_over_time", &held).0.floats, [3.0, 3.0, 3.0]);
}

#[test]
fn the_ends_of_time_are_no_trouble() {
    let series =
        Series { timestamps: vec![i64::MIN, 0, i64::MAX], values: vec![1.0, 2.0, 3.0], ..Series::default() };
    for function in ["rate", "irate", "deriv", "sum_over_time", "changes", "ts_of_last_over_time"] {
        for end in [i64::MIN, 0, i64::MAX] {
            let steps = Steps { start: end, step: 0, count: 1 };
            let input = RangeInput { steps, range_ms: i64::MAX, ..series.input(0, 1) };
            run(function, &input);
        }
    }
}

#[test]
fn a_rate_is_extrapolated_to_the_edges_of_the_window() {
    // 60 s apart, 10 s and 50 s from the edges: both are near, so the window is filled: 30 * 300/240.
    let series = Series::floats(&[(70, 100.0), (130, 110.0), (190, 115.0), (250, 120.0), (310, 130.0)]);
    check(&series, "increase", 360, 300, &[], Some(30.0 * 300.0 / 240.0));
    check(&series, "rate", 360, 300, &[], Some(30.0 / 240.0));
    check(&series, "delta", 360, 300, &[], Some(30.0 * 300.0 / 240.0));
    // From 1.1 distances on it is half a distance: (120 + 30 + 30) / 120.
    let series = Series::floats(&[(120, 100.0), (180, 110.0), (240, 120.0)]);
    check(&series, "increase", 320, 300, &[], Some(20.0 * 180.0 / 120.0));
    // A counter is not extrapolated to below zero: it was zero 30 s before.
    let series = Series::floats(&[(60, 5.0), (120, 15.0), (180, 25.0)]);
    check(&series, "increase", 180, 180, &[], Some(20.0 * (120.0 + 30.0) / 120.0));
    check(&series, "delta", 180, 180, &[], Some(20.0 * 180.0 / 120.0));
}

#[test]
fn a_reset_adds_what_was_counted_before_it() {
    let series = Series::minutely(&[10.0, 20.0, 5.0, 15.0, 3.0]);
    // 3 - 10 + 20 + 15; the edge before is at the first sample, the zero rule does not shorten.
    check(&series, "increase", 240, 300, &[], Some(28.0 * (240.0 + 60.0) / 240.0));
    check(&series, "resets", 240, 300, &[], Some(2.0));
    check(&series, "resets", 240, 120, &[], Some(1.0));
    check(&series, "changes", 240, 300, &[], Some(4.0));
    check(&series, "delta", 240, 300, &[], Some(-7.0 * 300.0 / 240.0));
}

#[test]
fn one_sample_has_no_rate() {
    let series = Series::minutely(&[10.0]);
    for function in ["rate", "increase", "delta", "irate", "idelta", "deriv"] {
        check(&series, function, 0, 300, &[], None);
    }
    check(&series, "changes", 0, 300, &[], Some(0.0));
    check(&series, "resets", 0, 300, &[], Some(0.0));
}

#[test]
fn a_known_start_within_the_window_is_where_the_counter_was_zero() {
    // Started 30 s before the first sample: grew 3 in 150 s, and the end is at the last sample.
    let series = Series::floats(&[(120, 1.0), (180, 2.0), (240, 3.0)]).starting(&[90, 90, 90]);
    check(&series, "increase", 240, 200, &[], Some(3.0));
    check(&series, "rate", 240, 200, &[], Some(3.0 / 200.0));
    // One sample is enough, and it is not extrapolated.
    check(&series, "increase", 150, 100, &[], Some(1.0));
    // Started on or before the edge, at the sample, or after it: no help.
    for start in [60, 40, 120, 121] {
        let series = Series::floats(&[(120, 4.0)]).starting(&[start]);
        check(&series, "increase", 150, 90, &[], None);
    }
}

#[test]
fn a_later_start_is_a_reset_even_if_the_value_grew() {
    let cumulative = |starts: &[i64]| Series::floats(&[(60, 5.0), (120, 6.0)]).starting(starts);
    for (starts, resets) in [
        ([30, 30], 0.0),
        ([30, 90], 1.0),
        // Deltas start where the last one ended, if that one knows its start.
        ([30, 60], 1.0),
        ([0, 60], 0.0),
        ([60, 60], 0.0),
        ([90, 60], 0.0),
        ([30, 120], 0.0),
        ([30, 0], 0.0),
    ] {
        check(&cumulative(&starts), "resets", 120, 120, &[], Some(resets));
    }
    // After the reset the whole value is growth.
    check(&cumulative(&[0, 90]), "irate", 120, 120, &[], Some(6.0 / 60.0));
}

#[test]
fn overlapping_starts_are_told() {
    let series = Series::floats(&[(60, 60.0), (120, 120.0)]).starting(&[10, 20]);
    let (_, notes) = series.run("rate", 120, 120, &[]);
    let expected = "PromQL warning: sample has start time that overlaps with previous sample timestamp \
                    for metric \"x_total\" (1:6)";
    assert_eq!(notes.render("rate(x_total[2m])").0, [expected]);
    assert!(series.run("rate", 60, 60, &[]).1.is_empty());
}

#[test]
fn irate_and_idelta_see_the_last_two_samples() {
    let series = Series::minutely(&[0.0, 1000.0, 30.0, 60.0, 20.0]);
    check(&series, "irate", 180, 240, &[], Some(0.5));
    check(&series, "irate", 240, 240, &[], Some(20.0 / 60.0));
    check(&series, "idelta", 240, 240, &[], Some(-40.0));
    let series = Series::minutely(&[1.0, NAN, 5.0]);
    check(&series, "irate", 120, 240, &[], Some(NAN));
    check(&series, "idelta", 60, 240, &[], Some(NAN));
}

#[test]
fn irate_looks_at_the_starts_of_the_samples_that_it_sees() {
    let mut series = Series::floats(&[(60, 5.0), (120, 8.0)])
        .starting(&[0, 90])
        .with_histograms(&[(10, histogram(&[1.0])), (20, histogram(&[2.0]))]);
    check(&series, "irate", 120, 240, &[], Some(8.0 / 60.0));
    (series.starts, series.histogram_starts) = (vec![0, 0], vec![0, 15_000]);
    check(&series, "irate", 120, 240, &[], Some(3.0 / 60.0));
}

#[test]
fn nan_to_nan_is_no_change() {
    check(&Series::minutely(&[NAN, NAN, 1.0, 1.0, NAN]), "changes", 240, 300, &[], Some(2.0));
    check(&Series::minutely(&[NAN, 1.0, NAN, 0.0]), "resets", 240, 300, &[], Some(0.0));
}

#[test]
fn trends_follow_least_squares() {
    // y = 2x + 1 per second
    let series = Series::floats(&[(0, 1.0), (10, 21.0), (20, 41.0), (30, 61.0)]);
    check(&series, "deriv", 30, 60, &[], Some(2.0));
    check(&series, "predict_linear", 30, 60, &[60.0], Some(181.0));
    // The prediction counts from the step's own time, wherever the window is.
    let steps = Steps { start: 100_000, step: 0, count: 1 };
    let input = RangeInput {
        steps,
        params: &[&[0.0]],
        windows: Windows::Fixed { end: 30_000 },
        ..series.input(0, 60)
    };
    assert!((run("predict_linear", &input).0.floats[0] - 201.0).abs() < 1e-9);
    // Slope of (0,0) (1,1) (2,1): 0.5
    check(&Series::floats(&[(0, 0.0), (1, 1.0), (2, 1.0)]), "deriv", 2, 10, &[], Some(0.5));
    let constant = Series::minutely(&[0.1, 0.1, 0.1]);
    check(&constant, "deriv", 120, 600, &[], Some(0.0));
    check(&constant, "predict_linear", 120, 600, &[1e9], Some(0.1));
    check(&Series::minutely(&[INF, INF]), "deriv", 120, 600, &[], Some(NAN));
    check(&Series::minutely(&[1.0, INF]), "deriv", 120, 600, &[], Some(NAN));
}

#[test]
fn smoothing_follows_level_and_trend() {
    // Level 1, slope 1; then 0.5*2 + 0.5*(1+1) = 2; slope 0.5*(2-1) + 0.5*1 = 1; 0.5*5 + 0.5*(2+1) = 4.
    let series = Series::minutely(&[1.0, 2.0, 5.0]);
    check(&series, "double_exponential_smoothing", 120, 600, &[0.5, 0.5], Some(4.0));
    check(&series, "double_exponential_smoothing", 0, 600, &[0.5, 0.5], None);
}

#[test]
fn smoothing_refuses_factors_outside_their_range() {
    let series = Series::minutely(&[1.0, 2.0]);
    for (factors, text) in [
        ([0.0, 0.5], "invalid smoothing factor. Expected: 0 < sf < 1, got: 0.000000"),
        ([1.5, 0.5], "invalid smoothing factor. Expected: 0 < sf < 1, got: 1.500000"),
        ([0.5, 1.0], "invalid trend factor. Expected: 0 < tf < 1, got: 1.000000"),
    ] {
        let params: Vec<&[f64]> = factors.chunks(1).collect();
        let input = RangeInput { params: &params, ..series.input(60, 600) };
        let (mut row, mut notes) = (Row::absent(1), Annotations::default());
        let result = evaluate(RangeFunction::DoubleExponentialSmoothing, &input, &mut row, &mut notes);
        assert_eq!(result.unwrap_err().to_string(), text);
    }
}

#[test]
fn sums_and_means_keep_what_rounding_loses() {
    let series = Series::minutely(&[1.0, 1e100, 1.0, -1e100]);
    check(&series, "sum_over_time", 180, 600, &[], Some(2.0));
    check(&series, "avg_over_time", 180, 600, &[], Some(0.5));
    check(&Series::minutely(&[1.0, 2.0, 6.0]), "avg_over_time", 120, 600, &[], Some(3.0));
    check(&Series::minutely(&[INF, 1.0]), "sum_over_time", 120, 600, &[], Some(INF));
    check(&Series::minutely(&[INF, -INF]), "sum_over_time", 120, 600, &[], Some(NAN));
    check(&Series::minutely(&[1.0, NAN]), "avg_over_time", 120, 600, &[], Some(NAN));
}

#[test]
fn a_mean_does_not_overflow() {
    let max = f64::MAX;
    check(&Series::minutely(&[max, max, max]), "avg_over_time", 120, 600, &[], Some(max));
    // From the overflow on the mean is corrected step by step, which leaves a trace of rounding.
    let mean = Series::minutely(&[max, max, -max, -max]).float("avg_over_time", 180, 600, &[]);
    assert!(mean.is_some_and(|mean| mean.abs() < 1e-15 * max));
    check(&Series::minutely(&[-INF, max]), "avg_over_time", 180, 600, &[], Some(-INF));
}

#[test]
fn deviations_are_of_the_population() {
    let series = Series::minutely(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
    check(&series, "stddev_over_time", 600, 900, &[], Some(2.0));
    check(&series, "stdvar_over_time", 600, 900, &[], Some(4.0));
    check(&Series::minutely(&[1e15 + 1.0, 1e15 + 3.0]), "stdvar_over_time", 600, 900, &[], Some(1.0));
    check(&Series::minutely(&[7.0]), "stddev_over_time", 600, 900, &[], Some(0.0));
}

#[test]
fn nan_is_an_extreme_only_if_there_is_nothing_else() {
    let series = Series::minutely(&[NAN, 3.0, 1.0, 3.0, 1.0, NAN]);
    check(&series, "max_over_time", 300, 600, &[], Some(3.0));
    check(&series, "min_over_time", 300, 600, &[], Some(1.0));
    // Of equal extremes the last is the one whose time is told.
    check(&series, "ts_of_max_over_time", 300, 600, &[], Some(180.0));
    check(&series, "ts_of_min_over_time", 300, 600, &[], Some(240.0));
    check(&series, "max_over_time", 300, 60, &[], Some(NAN));
    check(&series, "ts_of_max_over_time", 300, 60, &[], Some(300.0));
}

#[test]
fn first_last_and_present_pick() {
    let series = Series::floats(&[(53, 1.0), (106, 2.0), (159, NAN)]);
    check(&series, "first_over_time", 160, 600, &[], Some(1.0));
    check(&series, "last_over_time", 110, 600, &[], Some(2.0));
    check(&series, "last_over_time", 160, 600, &[], Some(NAN));
    check(&series, "ts_of_first_over_time", 160, 600, &[], Some(53.0));
    check(&series, "ts_of_last_over_time", 160, 600, &[], Some(159.0));
    check(&series, "present_over_time", 160, 600, &[], Some(1.0));
    check(&series, "present_over_time", 10, 5, &[], None);
}

#[test]
fn quantiles_lie_between_values_in_proportion() {
    let series = Series::minutely(&[4.0, 0.0, 1.0]);
    for (q, expected) in [(0.0, 0.0), (0.5, 1.0), (0.75, 2.5), (0.8, 2.8), (1.0, 4.0)] {
        check(&series, "quantile_over_time", 120, 600, &[q], Some(expected));
    }
    check(&Series::minutely(&[NAN, 1.0, 2.0]), "quantile_over_time", 120, 600, &[0.5], Some(1.0));
    for (q, expected, shown) in [(-1.0, -INF, "-1"), (1.5, INF, "1.5"), (NAN, NAN, "NaN")] {
        let (row, notes) = series.run("quantile_over_time", 120, 600, &[q]);
        assert!(row.floats[0] == expected || row.floats[0].is_nan() && expected.is_nan());
        let text = format!("PromQL warning: quantile value should be between 0 and 1, got {shown} (1:3)");
        assert_eq!(notes.render("xxxxx").0, [text]);
    }
}

#[test]
fn the_median_deviation_is_a_median() {
    // Median 6, distances 2 0 5 0 3 1: in order 0 0 1 2 3 5, median 1.5.
    let series = Series::minutely(&[4.0, 6.0, 11.0, 6.0, 9.0, 5.0]);
    check(&series, "mad_over_time", 600, 900, &[], Some(1.5));
    check(&Series::minutely(&[1.0, NAN, 2.0]), "mad_over_time", 600, 900, &[], Some(NAN));
}

#[test]
fn floats_beside_histograms_have_no_rate() {
    let series = Series::minutely(&[1.0, 2.0]).with_histograms(&[(120, histogram(&[1.0]))]);
    for function in ["rate", "increase", "delta", "irate", "idelta", "sum_over_time", "avg_over_time"] {
        let (row, notes) = series.run(function, 120, 600, &[]);
        assert!(row.is_empty(), "{function}");
        let text =
            "PromQL warning: encountered a mix of histograms and floats for metric name \"x_total\" (1:6)";
        assert_eq!(notes.render("xxxxxx").0, [text], "{function}");
    }
    check(&series, "changes", 120, 600, &[], Some(2.0));
    check(&series, "resets", 120, 600, &[], Some(1.0));
    check(&series, "count_over_time", 120, 600, &[], Some(3.0));
    check(&series, "ts_of_last_over_time", 120, 600, &[], Some(120.0));
    assert_eq!(series.run("last_over_time", 120, 600, &[]).0.histograms.len(), 1);
}

#[test]
fn functions_of_floats_pass_histograms_over_with_a_word() {
    let series = Series::minutely(&[1.0, 2.0]).with_histograms(&[(120, histogram(&[1.0]))]);
    let text = "PromQL info: ignored histograms in a range containing both floats and histograms for metric \
                name \"x_total\" (1:6)";
    for (function, params) in [
        ("deriv", vec![]),
        ("predict_linear", vec![1.0]),
        ("double_exponential_smoothing", vec![0.5, 0.5]),
        ("min_over_time", vec![]),
        ("ts_of_max_over_time", vec![]),
        ("stddev_over_time", vec![]),
        ("mad_over_time", vec![]),
        ("quantile_over_time", vec![0.5]),
    ] {
        let (row, notes) = series.run(function, 120, 600, &params);
        assert!(!is_absent(row.floats[0]), "{function}");
        assert_eq!(notes.render("xxxxxx"), (vec![], vec![text.to_owned()]), "{function}");
        let (row, notes) = series.run(function, 120, 60, &params);
        assert!(row.is_empty() && notes.is_empty(), "{function}");
    }
}

#[test]
fn a_counter_is_known_by_its_name_or_type() {
    let series = Series::minutely(&[1.0, 2.0]);
    let infos = |function: &str, name: &str, type_label: Option<&str>| {
        let input = RangeInput { metric_name: name, type_label, ..series.input(60, 600) };
        run(function, &input).1.render("xxxxxx").1
    };
    let text = "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"x\" (1:6)";
    assert_eq!(infos("rate", "x", None), [text]);
    assert_eq!(infos("increase", "x", None), [text]);
    for name in ["x_total", "x_sum", "x_count", "x_bucket", ""] {
        assert!(infos("rate", name, None).is_empty());
    }
    assert!(infos("delta", "x", None).is_empty());
    assert!(infos("rate", "x", Some("counter")).is_empty());
    let text = "PromQL info: metric might not be a counter, __type__ label is not set to \"counter\" or \
                \"histogram\", got \"gauge\": \"x_total\" (1:6)";
    assert_eq!(infos("rate", "x_total", Some("gauge")), [text]);
}

fn only_histogram(row: &Row) -> &FloatHistogram {
    assert!(is_absent(row.floats[0]));
    assert_eq!(row.histograms.len(), 1);
    &row.histograms[0].1
}

#[test]
fn histograms_grow_bucket_by_bucket() {
    let series = Series::default().with_histograms(&[
        (60, histogram(&[1.0, 2.0])),
        (120, histogram(&[2.0, 4.0])),
        // A reset: less in the second bucket.
        (180, histogram(&[3.0, 1.0])),
    ]);
    let (row, notes) = series.run("increase", 180, 180, &[]);
    assert!(notes.is_empty());
    // [3,1] - [1,2] + [2,4] = [4,3], 7 in all. From 3 it was zero 51.4 s before.
    let factor = (120.0 + 120.0 * (3.0 / 7.0)) / 120.0;
    let growth = only_histogram(&row);
    assert_eq!(growth.reset_hint, ResetHint::Gauge);
    assert_eq!(growth.positive_buckets, [4.0 * factor, 3.0 * factor]);
    assert_eq!(growth.count, 7.0 * factor);
    let (row, _) = series.run("irate", 180, 180, &[]);
    assert_eq!(only_histogram(&row).positive_buckets, [3.0 / 60.0, 1.0 / 60.0]);
    let (row, _) = series.run("resets", 180, 180, &[]);
    assert_eq!(row.floats, [1.0]);
}

#[test]
fn gauges_and_counters_are_told_apart() {
    let series = Series::default().with_histograms(&[(0, gauge(&[1.0])), (60, gauge(&[3.0]))]);
    let (row, notes) = series.run("delta", 60, 120, &[]);
    assert!(notes.is_empty());
    assert_eq!(only_histogram(&row).positive_buckets, [2.0 * 2.0]);
    for function in ["rate", "irate"] {
        let (_, notes) = series.run(function, 60, 120, &[]);
        let text = "PromQL warning: this native histogram metric is not a counter: \"x_total\" (1:6)";
        assert_eq!(notes.render("xxxxxx").0, [text]);
    }
    let series = Series::default().with_histograms(&[(0, histogram(&[1.0])), (60, gauge(&[3.0]))]);
    for function in ["delta", "idelta"] {
        let (_, notes) = series.run(function, 60, 120, &[]);
        let text = "PromQL warning: this native histogram metric is not a gauge: \"x_total\" (1:6)";
        assert_eq!(notes.render("xxxxxx").0, [text]);
    }
}

#[test]
fn exponential_and_custom_buckets_do_not_mix() {
    let samples =
        [(0, gauge(&[1.0])), (60, FloatHistogram { reset_hint: ResetHint::Gauge, ..custom(&[5.0], &[1.0]) })];
    let series = Series::default().with_histograms(&samples);
    for function in ["delta", "idelta", "sum_over_time", "avg_over_time"] {
        let (row, notes) = series.run(function, 60, 120, &[]);
        assert!(row.is_empty());
        let text = "PromQL warning: vector contains a mix of histograms with exponential and custom buckets \
                    schemas for metric name \"x_total\" (1:6)";
        assert_eq!(notes.render("xxxxxx").0, [text], "{function}");
    }
    // A counter that starts again does not care what was before.
    let series = Series::default().with_histograms(&[
        (0, histogram(&[9.0])),
        (60, custom(&[5.0], &[1.0])),
        (120, custom(&[5.0], &[3.0])),
    ]);
    let (row, notes) = series.run("increase", 120, 120, &[]);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(only_histogram(&row).schema, -53);
}

#[test]
fn histograms_are_summed_and_averaged() {
    let series = Series::default().with_histograms(&[(0, histogram(&[1.0, 2.0])), (60, histogram(&[3.0]))]);
    let (row, _) = series.run("sum_over_time", 60, 120, &[]);
    assert_eq!(only_histogram(&row).positive_buckets, [4.0, 2.0]);
    let (row, _) = series.run("avg_over_time", 60, 120, &[]);
    assert_eq!(only_histogram(&row).positive_buckets, [2.0, 1.0]);
    assert_eq!(only_histogram(&row).count, 3.0);
}

#[test]
fn contradicting_hints_in_a_sum_are_told() {
    let hinted = |hint| FloatHistogram { reset_hint: hint, ..histogram(&[1.0]) };
    let series =
        Series::default().with_histograms(&[(0, hinted(ResetHint::Yes)), (60, hinted(ResetHint::No))]);
    let (_, notes) = series.run("sum_over_time", 60, 120, &[]);
    let text = "PromQL warning: conflicting counter resets during histogram aggregation (1:6)";
    assert_eq!(notes.render("xxxxxx").0, [text]);
}

/// The rate as a loop over the window computes it.
fn naive_rate(
    samples: &[(i64, f64)],
    after: i64,
    end: i64,
    counter: bool,
    per_second: Option<f64>,
) -> Option<f64> {
    let window: Vec<(i64, f64)> = samples.iter().copied().filter(|(t, _)| after < *t && *t <= end).collect();
    let [(first_time, first), .., (last_time, last)] = window[..] else { return None };
    let mut growth = last - first;
    if counter {
        let mut previous = first;
        for (_, value) in &window[1..] {
            if *value < previous {
                growth += previous;
            }
            previous = *value;
        }
    }
    let mut to_start = (first_time - after) as f64 / 1000.0;
    let mut to_end = (end - last_time) as f64 / 1000.0;
    let sampled = (last_time - first_time) as f64 / 1000.0;
    let average = sampled / (window.len() - 1) as f64;
    if to_start >= average * 1.1 {
        to_start = average / 2.0;
    }
    if counter && growth > 0.0 && first >= 0.0 {
        let to_zero = sampled * (first / growth);
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    if to_end >= average * 1.1 {
        to_end = average / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if let Some(range) = per_second {
        factor /= range;
    }
    Some(growth * factor)
}

fn samples() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let value = prop_oneof![
        8 => (0.0..1e6_f64).prop_map(|v| v),
        2 => (0..5_u8).prop_map(f64::from),
        1 => Just(NAN),
        1 => Just(INF),
        1 => Just(-1.5),
    ];
    // Too few for a window to be put together of parts.
    prop::collection::vec((1..30_000_i64, value), 0..blocks::LONG).prop_map(|gaps| {
        let times = gaps.iter().scan(0, |t, (gap, _)| {
            *t += gap;
            Some(*t)
        });
        times.zip(gaps.iter().map(|(_, v)| *v)).collect()
    })
}

proptest! {
    #[test]
    fn moving_windows_give_what_a_loop_over_each_window_gives(
        samples in samples(),
        start in -10_000..100_000_i64,
        step in 1..100_000_i64,
        range in 1..400_000_i64,
    ) {
        let timestamps: Vec<i64> = samples.iter().map(|(t, _)| *t).collect();
        let values: Vec<f64> = samples.iter().map(|(_, v)| *v).collect();
        let series = Series { timestamps, values, ..Series::default() };
        let steps = Steps { start, step, count: 40 };
        let input = RangeInput { steps, range_ms: range, ..series.input(0, 1) };
        let rows = ["rate", "increase", "delta", "max_over_time", "min_over_time", "changes", "resets", "count_over_time"]
            .map(|function| run(function, &input).0.floats);
        for i in 0..steps.count {
            let (end, after) = (steps.at(i), steps.at(i) - range);
            let window: Vec<f64> =
                samples.iter().filter(|(t, _)| after < *t && *t <= end).map(|(_, v)| *v).collect();
            let seconds = range as f64 / 1000.0;
            let some = |v: f64| (!window.is_empty()).then_some(v);
            let pairs = |f: fn(f64, f64) -> bool| {
                some(window.windows(2).filter(|w| f(w[0], w[1])).count() as f64)
            };
            let extreme = |beats: fn(f64, f64) -> bool| window.iter().copied().reduce(|a, v| {
                if beats(v, a) || a.is_nan() { v } else { a }
            });
            let expected = [
                naive_rate(&samples, after, end, true, Some(seconds)),
                naive_rate(&samples, after, end, true, None),
                naive_rate(&samples, after, end, false, None),
                extreme(|v, a| v > a),
                extreme(|v, a| v < a),
                pairs(|a, b| a != b && !(a.is_nan() && b.is_nan())),
                pairs(|a, b| b < a),
                some(window.len() as f64),
            ];
            for (row, expected) in rows.iter().zip(expected) {
                let got = Some(row[i]).filter(|v| !is_absent(*v));
                let bits = |v: Option<f64>| v.map(|v| if v.is_nan() { 1 } else { v.to_bits() });
                prop_assert_eq!(bits(got), bits(expected));
            }
        }
    }

    #[test]
    fn no_samples_break_a_function(samples in samples(), q in prop::num::f64::ANY, range in 1..100_000_i64) {
        let timestamps: Vec<i64> = samples.iter().map(|(t, _)| *t).collect();
        let values: Vec<f64> = samples.iter().map(|(_, v)| *v).collect();
        let starts = timestamps.iter().map(|t| t - 500).collect();
        let series = Series { timestamps, values, starts, ..Series::default() };
        let q = [q; 7];
        let params: [&[f64]; 1] = [&q];
        let steps = Steps { start: 0, step: 20_000, count: 7 };
        let input = RangeInput { steps, range_ms: range, params: &params, ..series.input(0, 1) };
        for function in ["avg_over_time", "stddev_over_time", "mad_over_time", "quantile_over_time", "predict_linear", "rate", "irate"] {
            run(function, &input);
        }
    }
}
