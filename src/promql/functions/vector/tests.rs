use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::promql::{
    histogram::FloatHistogram,
    parse::{DurationExpr, MatrixSelector, Paren, VectorSelector},
};

static BUDGET: Budget = Budget::new(u64::MAX);

const STEPS: Steps = Steps { start: 0, step: 0, count: 1 };

fn series(labels: &[(&str, &str)], values: &[f64]) -> SeriesRow {
    SeriesRow {
        labels: Labels::from_pairs(labels.iter().copied()).unwrap(),
        drop_name: false,
        row: Row { floats: values.to_vec(), histograms: Vec::new() },
    }
}

fn printed(rows: &[SeriesRow]) -> Vec<String> {
    rows.iter().map(|s| s.labels.to_string()).collect()
}

#[test]
fn label_replace_sets_what_matches() {
    let rows = || {
        vec![
            series(&[("src", "value-10"), ("dst", "old")], &[0.0]),
            series(&[("src", "x"), ("dst", "o")], &[1.0]),
        ]
    };
    let replaced = |template: &str, regex: &str| {
        printed(&label_replace(&BUDGET, rows(), "dst", template, "src", regex).unwrap())
    };
    assert_eq!(replaced("n$1", "value-(.*)"), [r#"{dst="n10", src="value-10"}"#, r#"{dst="o", src="x"}"#]);
    assert_eq!(replaced("n", "value"), [r#"{dst="old", src="value-10"}"#, r#"{dst="o", src="x"}"#]);
    assert_eq!(replaced("", ".*"), [r#"{src="value-10"}"#, r#"{src="x"}"#]);
    assert_eq!(replaced("${1}x$1x", "(v).*"), [r#"{dst="vx", src="value-10"}"#, r#"{dst="o", src="x"}"#]);
}

#[test]
fn a_label_that_is_not_there_is_empty() {
    let rows = vec![series(&[("a", "1")], &[0.0])];
    let rows = label_replace(&BUDGET, rows, "b", "new", "nothing", "").unwrap();
    assert_eq!(printed(&rows), [r#"{a="1", b="new"}"#]);
}

#[test]
fn label_replace_refuses_what_cannot_be() {
    let error = |dst: &str, regex: &str| {
        label_replace(&BUDGET, Vec::new(), dst, "", "src", regex).unwrap_err().to_string()
    };
    assert_eq!(error("dst", "(.*"), "invalid regular expression in label_replace(): (.*");
    assert_eq!(error("dst", r"\Q[x]"), r"invalid regular expression in label_replace(): \Q[x]");
    assert!(label_replace(&BUDGET, Vec::new(), "dst", "", "src", r"\Q[x]\E").is_ok());
    assert_eq!(error("", ".*"), "invalid destination label name in label_replace(): ");
    assert_eq!(error("\u{fffd}", ".*"), "invalid destination label name in label_replace(): \u{fffd}");
    assert!(label_replace(&BUDGET, Vec::new(), "some.thing ü", "", "src", "").is_ok());
}

#[test]
fn a_name_set_anew_stays() {
    let mut row = series(&[("__name__", "x"), ("a", "y")], &[0.0]);
    row.drop_name = true;
    let rows = label_replace(&BUDGET, vec![row.clone()], "b", "z", "a", ".*").unwrap();
    assert!(rows[0].drop_name);
    let rows = label_replace(&BUDGET, vec![row], "__name__", "$1", "a", "(.*)").unwrap();
    assert!(!rows[0].drop_name);
    assert_eq!(printed(&rows), [r#"{__name__="y", a="y"}"#]);
}

#[test]
fn label_join_joins_in_the_order_asked_for() {
    let rows = || vec![series(&[("a", "1"), ("b", "2"), ("dst", "old")], &[0.0])];
    let joined = |separator: &str, sources: &[&str]| {
        printed(&label_join(&BUDGET, rows(), "dst", separator, sources).unwrap())
    };
    assert_eq!(joined("-", &["b", "a"]), [r#"{a="1", b="2", dst="2-1"}"#]);
    assert_eq!(joined("-", &["a", "none", "b"]), [r#"{a="1", b="2", dst="1--2"}"#]);
    assert_eq!(joined("-", &[]), [r#"{a="1", b="2"}"#]);
    let error = label_join(&BUDGET, rows(), "dst", "", &[""]).unwrap_err().to_string();
    assert_eq!(error, "invalid source label name in label_join(): ");
}

#[test]
fn series_that_become_equal_merge_unless_they_overlap() {
    let rows = vec![
        series(&[("a", "1")], &[1.0, ABSENT, ABSENT]),
        series(&[("b", "1")], &[9.0, 9.0, 9.0]),
        series(&[("a", "1")], &[ABSENT, 2.0, ABSENT]),
    ];
    let merged = merge_equal(&BUDGET, rows.clone()).unwrap();
    assert_eq!(merged.len(), 2);
    assert_eq!(merged[0].row.floats[..2], [1.0, 2.0]);
    assert!(is_absent(merged[0].row.floats[2]));

    let overlapping = [rows, vec![series(&[("a", "1")], &[ABSENT, 3.0, ABSENT])]].concat();
    let error = merge_equal(&BUDGET, overlapping).unwrap_err();
    assert_eq!(error.to_string(), "vector cannot contain metrics with the same labelset");
}

#[test]
fn histograms_overlap_with_floats_too() {
    let with_histogram = |at: u32| {
        let mut row = series(&[], &[ABSENT, ABSENT]);
        row.row.histograms.push((at, Arc::new(FloatHistogram::default())));
        row
    };
    assert!(merge_equal(&BUDGET, vec![series(&[], &[1.0, ABSENT]), with_histogram(0)]).is_err());
    assert!(merge_equal(&BUDGET, vec![with_histogram(0), series(&[], &[1.0, ABSENT])]).is_err());
    assert!(merge_equal(&BUDGET, vec![with_histogram(1), with_histogram(1)]).is_err());
    let merged = merge_equal(&BUDGET, vec![with_histogram(1), series(&[], &[1.0, ABSENT])]).unwrap();
    assert!(merged[0].row.has(0) && merged[0].row.has(1));
    let merged = merge_equal(&BUDGET, vec![with_histogram(1), with_histogram(0)]).unwrap();
    assert_eq!(merged[0].row.histograms.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1]);
}

fn selector(matchers: &[Matcher]) -> VectorSelector {
    VectorSelector {
        name: None,
        matchers: Arc::from(matchers),
        offset: None,
        at: None,
        extended: None,
        span: Span::default(),
    }
}

#[test]
fn what_is_absent_has_the_labels_it_was_asked_for_by() {
    let matcher = |op, name, value| Matcher::new(op, name, value).unwrap();
    let matchers = [
        matcher(MatchOp::Equal, "job", "api"),
        matcher(MatchOp::Equal, "twice", "a"),
        matcher(MatchOp::Equal, "twice", "b"),
        matcher(MatchOp::Equal, "both", "a"),
        matcher(MatchOp::NotEqual, "both", "b"),
        matcher(MatchOp::Matches, "regex", "a"),
        matcher(MatchOp::Equal, "empty", ""),
        matcher(MatchOp::Equal, "__name__", "up"),
    ];
    let vector = selector(&matchers);
    assert_eq!(absent_labels(&Expr::Vector(vector.clone())).to_string(), r#"{job="api"}"#);
    let range = DurationExpr::Literal { seconds: 60.0, duration: true, span: Span::default() };
    let matrix = MatrixSelector { selector: vector.clone(), range, span: Span::default() };
    assert_eq!(absent_labels(&Expr::Matrix(matrix)).to_string(), r#"{job="api"}"#);
    let paren = Paren { expr: Box::new(Expr::Vector(vector)), span: Span::default() };
    assert_eq!(absent_labels(&Expr::Paren(paren)).to_string(), r#"{job="api"}"#);
}

#[test]
fn absent_is_one_where_nothing_is() {
    let steps = Steps { count: 3, ..STEPS };
    let mut histogram = series(&[("a", "2")], &[ABSENT; 3]);
    histogram.row.histograms.push((1, Arc::new(FloatHistogram::default())));
    let rows = [series(&[("a", "1")], &[f64::NAN, ABSENT, ABSENT]), histogram];
    let row = absent(&BUDGET, &rows, steps).unwrap();
    assert!(is_absent(row.floats[0]) && is_absent(row.floats[1]));
    assert_eq!(row.floats[2], 1.0);
    assert_eq!(absent(&BUDGET, &[], steps).unwrap().floats, [1.0; 3]);
}

#[test]
fn a_scalar_is_the_only_value() {
    let steps = Steps { count: 3, ..STEPS };
    let rows = [series(&[("a", "1")], &[1.0, 2.0, ABSENT]), series(&[("a", "2")], &[ABSENT, 3.0, ABSENT])];
    let values = scalar(&BUDGET, &rows, steps).unwrap();
    assert_eq!(values[0], 1.0);
    assert!(values[1].is_nan() && !is_absent(values[1]) && values[2].is_nan() && !is_absent(values[2]));
    assert_eq!(vector(vec![4.0]).labels, Labels::empty());
}

#[test]
fn sorting_puts_nan_last_either_way() {
    let rows = || {
        [("a", 2.0), ("b", f64::NAN), ("c", -1.0), ("d", f64::INFINITY), ("e", 2.0)]
            .map(|(name, value)| series(&[("n", name)], &[value]))
            .to_vec()
    };
    let order = |descending| {
        let rows =
            sort(&BUDGET, rows(), descending, STEPS, &mut Annotations::default(), Span::default()).unwrap();
        rows.iter().map(|s| s.labels.get("n").unwrap_or("").to_owned()).collect::<String>()
    };
    assert_eq!((order(false).as_str(), order(true).as_str()), ("caedb", "daecb"));
}

#[test]
fn sorting_leaves_histograms_out_and_ranges_alone() {
    let mut histogram = series(&[("n", "h")], &[ABSENT]);
    histogram.row.histograms.push((0, Arc::new(FloatHistogram::default())));
    let mut notes = Annotations::default();
    assert!(sort(&BUDGET, vec![histogram], false, STEPS, &mut notes, Span::default()).unwrap().is_empty());
    assert!(notes.is_empty());
    let rows = vec![series(&[("n", "b")], &[2.0, 2.0]), series(&[("n", "a")], &[1.0, 1.0])];
    let sorted =
        sort(&BUDGET, rows.clone(), false, Steps { count: 2, ..STEPS }, &mut notes, Span::default()).unwrap();
    assert_eq!(sorted, rows);
    let text = "PromQL warning: sort is ineffective for range queries since results are always ordered by labels (1:1)";
    assert_eq!(notes.render("sort(x)").0, [text]);
}

#[test]
fn labels_sort_as_people_count() {
    let rows =
        ["a10", "a2", "b1", "a2x", "a", "", "a02"].map(|v| series(&[("n", v), ("m", "1")], &[1.0])).to_vec();
    let order = |descending| {
        let (rows, labels, notes) = (rows.clone(), ["m", "n"], &mut Annotations::default());
        let rows = sort_by_label(&BUDGET, rows, &labels, descending, STEPS, notes, Span::default()).unwrap();
        rows.iter().map(|s| s.labels.get("n").unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(order(false), ["", "a", "a02", "a2", "a2x", "a10", "b1"]);
    assert_eq!(order(true), ["b1", "a10", "a2x", "a2", "a02", "a", ""]);
}

proptest! {
    #[test]
    fn natural_order_is_an_order(texts in prop::collection::vec("[a0-2é]{0,6}", 3)) {
        let [a, b, c] = [&texts[0], &texts[1], &texts[2]];
        prop_assert_eq!(natural_order(a, b), natural_order(b, a).reverse());
        prop_assert_eq!(natural_order(a, b).is_eq(), a == b);
        if natural_order(a, b).is_le() && natural_order(b, c).is_le() {
            prop_assert!(natural_order(a, c).is_le());
        }
    }
}
