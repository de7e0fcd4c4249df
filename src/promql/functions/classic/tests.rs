use std::sync::Arc;

use super::*;
use crate::promql::exec::rows::ABSENT;

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

static BUDGET: Budget = Budget::new(u64::MAX);

fn context(count: usize) -> Context<'static> {
    Context {
        budget: &BUDGET,
        steps: Steps { start: 0, step: 60_000, count },
        delayed_names: true,
        scalar_span: Span { start: 19, end: 22 },
        vector_span: Span { start: 24, end: 25 },
    }
}

fn series(labels: &[(&str, &str)], values: &[f64]) -> SeriesRow {
    SeriesRow {
        labels: Labels::from_pairs(labels.iter().copied()).unwrap(),
        drop_name: false,
        row: Row { floats: values.to_vec(), histograms: Vec::new() },
    }
}

fn native(labels: &[(&str, &str)], steps: usize, at: u32, histogram: &FloatHistogram) -> SeriesRow {
    let mut series = series(labels, &vec![ABSENT; steps]);
    series.row.histograms.push((at, Arc::new(histogram.clone())));
    series
}

/// A histogram `x` of these buckets at one step.
fn buckets(buckets: &[(&str, f64)]) -> Vec<SeriesRow> {
    buckets.iter().map(|(le, count)| series(&[("__name__", "x"), ("le", le)], &[*count])).collect()
}

/// The quantile of these buckets, and the texts that come with it.
fn quantile_of(q: f64, le: &[(&str, f64)]) -> (f64, Vec<String>, Vec<String>) {
    let mut notes = Annotations::default();
    let rows = histogram_quantile(&[q], buckets(le), &context(1), &mut notes).unwrap();
    let (warnings, infos) = notes.render(&" ".repeat(30));
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].labels.to_string(), "{__name__=\"x\"}");
    assert!(rows[0].drop_name);
    (rows[0].row.floats[0], warnings, infos)
}

#[track_caller]
fn check(q: f64, le: &[(&str, f64)], expected: f64) {
    let (value, warnings, infos) = quantile_of(q, le);
    let equal = value == expected || value.is_nan() && expected.is_nan();
    assert!(equal, "q={q} of {le:?} is {value}, not {expected}");
    assert!(warnings.is_empty() && infos.is_empty(), "{warnings:?} {infos:?}");
}

#[test]
fn a_quantile_lies_in_its_bucket_in_proportion() {
    let le = [("10", 5.0), ("20", 10.0), ("40", 20.0), ("+Inf", 20.0)];
    check(0.125, &le, 5.0);
    check(0.25, &le, 10.0);
    check(0.375, &le, 15.0);
    check(0.75, &le, 30.0);
    check(1.0, &le, 40.0);
    check(0.0, &le, 0.0);
    // The order in which buckets come does not matter, nor how their bounds are written.
    check(0.375, &[("+Inf", 20.0), ("2e1", 10.0), ("4_0", 20.0), ("10.0", 5.0)], 15.0);
}

#[test]
fn open_buckets_answer_with_their_finite_bound() {
    let le = [("10", 5.0), ("20", 10.0), ("+Inf", 20.0)];
    check(0.9, &le, 20.0);
    check(0.1, &[("-5", 5.0), ("20", 10.0), ("+Inf", 20.0)], -5.0);
    check(0.5, &[("-5", 0.0), ("-3", 10.0), ("+Inf", 10.0)], -4.0);
}

#[test]
fn what_is_no_histogram_has_no_quantile() {
    check(0.5, &[("10", 5.0), ("20", 10.0)], NAN);
    check(0.5, &[("+Inf", 10.0)], NAN);
    check(0.5, &[("10", 0.0), ("+Inf", 0.0)], NAN);
    check(0.5, &[("10", NAN), ("+Inf", NAN)], 10.0);
}

#[test]
fn equal_bounds_are_added_up() {
    check(0.5, &[("10", 4.0), ("10.0", 4.0), ("20", 10.0), ("+Inf", 8.0), ("Inf", 8.0)], 10.0);
}

#[test]
fn rounding_errors_are_put_right_in_silence() {
    check(0.5, &[("10", 10.0), ("20", 10.0 - 1e-13), ("+Inf", 10.0)], 5.0);
}

#[test]
fn real_decreases_are_put_right_and_told() {
    let le = [("1", 2.0), ("10", 10.0), ("20", 7.0), ("40", 8.5), ("+Inf", 20.0)];
    let (value, _, infos) = quantile_of(0.25, &le);
    assert_eq!(value, 1.0 + 9.0 * (3.0 / 8.0));
    assert_eq!(
        infos,
        ["PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
          https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric \
          name \"x\", from buckets 20 to 40, with a max diff of 3, over 1 samples from \
          1970-01-01T00:00:00Z to 1970-01-01T00:00:00Z (1:25)"]
    );
}

#[test]
fn a_quantile_outside_its_range_is_infinite_and_told() {
    for (q, expected, shown) in [(-0.1, -INF, "-0.1"), (1.01, INF, "1.01"), (NAN, NAN, "NaN")] {
        let (value, warnings, _) = quantile_of(q, &[("10", 5.0), ("+Inf", 5.0)]);
        assert!(value == expected || value.is_nan() && expected.is_nan());
        let text = format!("PromQL warning: quantile value should be between 0 and 1, got {shown} (1:20)");
        assert_eq!(warnings, [text]);
    }
    let mut notes = Annotations::default();
    assert!(histogram_quantile(&[NAN], Vec::new(), &context(1), &mut notes).unwrap().is_empty());
    assert!(!notes.is_empty());
}

#[test]
fn a_bucket_without_a_bound_is_left_out_and_told() {
    for (bound, shown) in [("Hello World", "\"Hello World\""), ("", "\"\""), ("1e999", "\"1e999\"")] {
        let mut notes = Annotations::default();
        let rows = histogram_quantile(&[0.5], buckets(&[(bound, 5.0)]), &context(1), &mut notes).unwrap();
        assert!(rows.is_empty());
        let text = format!(
            "PromQL warning: bucket label \"le\" is missing or has a malformed value of {shown} for metric name \"x\" (1:25)"
        );
        assert_eq!(notes.render(&" ".repeat(30)).0, [text]);
    }
}

#[test]
fn histograms_are_told_apart_by_their_other_labels() {
    let rows = vec![
        series(&[("le", "1"), ("job", "a")], &[1.0]),
        series(&[("le", "1"), ("job", "b")], &[1.0]),
        series(&[("le", "+Inf"), ("job", "a")], &[1.0]),
        series(&[("le", "+Inf"), ("job", "b")], &[4.0]),
    ];
    let result = histogram_quantile(&[0.25], rows, &context(1), &mut Annotations::default()).unwrap();
    let result: Vec<_> = result.iter().map(|s| (s.labels.to_string(), s.row.floats[0])).collect();
    assert_eq!(result, [("{job=\"a\"}".to_owned(), 0.25), ("{job=\"b\"}".to_owned(), 1.0)]);
}

#[test]
fn buckets_may_come_and_go_from_step_to_step() {
    let rows = vec![
        series(&[("le", "1")], &[1.0, ABSENT, 1.0, ABSENT]),
        series(&[("le", "2")], &[ABSENT, 4.0, 4.0, ABSENT]),
        series(&[("le", "+Inf")], &[1.0, 4.0, 4.0, ABSENT]),
    ];
    let q = [0.5; 4];
    let result = histogram_quantile(&q, rows, &context(4), &mut Annotations::default()).unwrap();
    let floats = &result[0].row.floats;
    assert_eq!(floats[..3], [0.5, 1.0, 1.0 + 1.0 / 3.0]);
    assert!(is_absent(floats[3]));
}

#[test]
fn the_name_goes_at_once_or_later() {
    let rows = || {
        vec![
            series(&[("__name__", "a"), ("le", "1")], &[1.0]),
            series(&[("__name__", "a"), ("le", "+Inf")], &[1.0]),
            series(&[("__name__", "b"), ("le", "1")], &[1.0]),
            series(&[("__name__", "b"), ("le", "+Inf")], &[1.0]),
        ]
    };
    let later = histogram_quantile(&[0.5], rows(), &context(1), &mut Annotations::default()).unwrap();
    assert_eq!(later.len(), 2);
    let eager = Context { delayed_names: false, ..context(1) };
    let error = histogram_quantile(&[0.5], rows(), &eager, &mut Annotations::default()).unwrap_err();
    assert_eq!(error.to_string(), "vector cannot contain metrics with the same labelset");
}

fn histogram() -> FloatHistogram {
    use crate::model::histogram::Span as BucketSpan;
    FloatHistogram {
        count: 8.0,
        sum: 16.0,
        positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
        positive_buckets: vec![4.0, 4.0],
        ..FloatHistogram::default()
    }
}

#[test]
fn native_and_classic_under_the_same_labels_contradict_each_other() {
    let rows = vec![
        series(&[("__name__", "x"), ("le", "1")], &[1.0, 1.0, ABSENT]),
        series(&[("__name__", "x"), ("le", "+Inf")], &[2.0, 2.0, ABSENT]),
        native(&[("__name__", "x")], 3, 1, &histogram()),
        native(&[("__name__", "x")], 3, 2, &histogram()),
    ];
    let mut notes = Annotations::default();
    let result = histogram_quantile(&[0.5; 3], rows, &context(3), &mut notes).unwrap();
    assert_eq!(result.len(), 1);
    let floats = &result[0].row.floats;
    assert_eq!(floats[0], 1.0);
    assert!(is_absent(floats[1]));
    assert!((floats[2] - 2.0).abs() < 1e-15);
    let text =
        "PromQL warning: vector contains a mix of classic and native histograms for metric name \"x\" (1:25)";
    assert_eq!(notes.render(&" ".repeat(30)).0, [text]);
}

#[test]
fn nan_observations_of_native_histograms_are_told() {
    let nan = FloatHistogram { sum: NAN, count: 10.0, ..histogram() };
    let texts = |q: f64| {
        let mut notes = Annotations::default();
        let rows = vec![native(&[("__name__", "x")], 1, 0, &nan)];
        histogram_quantile(&[q], rows, &context(1), &mut notes).unwrap();
        notes.render(&" ".repeat(30)).1
    };
    let skewed = "PromQL info: input to histogram_quantile has NaN observations, result is skewed higher for \
                  metric name \"x\" (1:20)";
    let nan_result = "PromQL info: input to histogram_quantile has NaN observations, result is NaN for metric name \"x\" (1:20)";
    assert_eq!(texts(0.2), [skewed]);
    assert_eq!(texts(0.9), [nan_result]);
    let mut notes = Annotations::default();
    let rows = vec![native(&[("__name__", "x")], 1, 0, &nan)];
    histogram_fraction(&[0.0], &[4.0], rows, &context(1), &mut notes).unwrap();
    assert!(notes.render("x").1[0].contains("excluded from all fractions"));
}

#[test]
fn several_quantiles_are_told_apart_by_a_label() {
    let le = [("10", 5.0), ("20", 10.0), ("+Inf", 10.0)];
    let mut notes = Annotations::default();
    let quantiles: [&[f64]; 3] = [&[0.0], &[0.25], &[1.0]];
    let result = histogram_quantiles(&quantiles, "q", buckets(&le), &context(1), &mut notes).unwrap();
    let result: Vec<_> = result.iter().map(|s| (s.labels.get("q").unwrap_or(""), s.row.floats[0])).collect();
    assert_eq!(result, [("0.0", 0.0), ("0.25", 5.0), ("1.0", 20.0)]);
    // A label that the histograms are told apart by cannot be used for it.
    let rows = ["a", "b"]
        .into_iter()
        .flat_map(|job| [("1", 1.0), ("+Inf", 2.0)].map(|(le, v)| series(&[("le", le), ("job", job)], &[v])));
    let error = histogram_quantiles(&quantiles, "job", rows.collect(), &context(1), &mut notes).unwrap_err();
    assert_eq!(error.to_string(), "vector cannot contain metrics with the same labelset");
}

#[test]
fn a_quantile_that_changes_from_step_to_step_changes_its_label() {
    let rows = vec![series(&[("le", "1")], &[1.0, 1.0]), series(&[("le", "+Inf")], &[1.0, 1.0])];
    let result =
        histogram_quantiles(&[&[0.25, 0.5]], "q", rows, &context(2), &mut Annotations::default()).unwrap();
    assert_eq!(result.len(), 2);
    assert_eq!((result[0].labels.get("q"), result[0].row.floats[0]), (Some("0.25"), 0.25));
    assert!(is_absent(result[0].row.floats[1]) && is_absent(result[1].row.floats[0]));
    assert_eq!((result[1].labels.get("q"), result[1].row.floats[1]), (Some("0.5"), 0.5));
}

#[test]
fn fractions_lie_between_two_values() {
    let le = [("10", 5.0), ("20", 10.0), ("40", 20.0), ("+Inf", 40.0)];
    for (lower, upper, expected) in [
        (0.0, 10.0, 0.125),
        (5.0, 15.0, 5.0 / 40.0),
        (-INF, 10.0, 0.125),
        (20.0, INF, 0.75),
        (-INF, INF, 1.0),
        // Nothing is known about where in the last bucket they are.
        (40.0, 1000.0, 0.0),
        (15.0, 15.0, 0.0),
        (20.0, 10.0, 0.0),
        (NAN, 1.0, NAN),
    ] {
        let rows =
            histogram_fraction(&[lower], &[upper], buckets(&le), &context(1), &mut Annotations::default())
                .unwrap();
        let value = rows[0].row.floats[0];
        assert!(value == expected || value.is_nan() && expected.is_nan(), "{lower} to {upper}: {value}");
    }
    // A first bucket below zero has no beginning.
    let rows = buckets(&[("-1", 5.0), ("1", 10.0), ("+Inf", 10.0)]);
    let rows = histogram_fraction(&[-2.0], &[0.0], rows, &context(1), &mut Annotations::default()).unwrap();
    assert_eq!(rows[0].row.floats[0], 0.25);
}
