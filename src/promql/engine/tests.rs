//! Queries over the store in memory, from text to answer.

use super::*;
use crate::{
    clock::{HandClock, SystemClock},
    model::{TenantId, stale_nan},
    storage::{BatchSample, WriteBatch, memory::MemoryStore},
};

const MINUTE: i64 = 60_000;

/// Labels, and samples by the second.
type Series<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

/// A store with series and an engine over it.
struct Bench {
    storage: Arc<dyn Storage>,
    engine: Engine,
}

impl Bench {
    async fn with(options: EngineOptions, series: &[Series<'_>]) -> Self {
        let clock: Arc<dyn Clock> = HandClock::at(Timestamp(0));
        let storage: Arc<dyn Storage> = MemoryStore::new(clock, None);
        let labels = series.iter().map(|(labels, _)| Labels::from_pairs(labels.iter().copied()).unwrap());
        let mut batch = WriteBatch::over(labels.collect());
        for (number, (_, samples)) in series.iter().enumerate() {
            for (seconds, value) in *samples {
                batch.samples.push(BatchSample {
                    series: u32::try_from(number).unwrap(),
                    timestamp: Timestamp(seconds * 1000),
                    value: *value,
                    start: 0,
                });
            }
        }
        storage.append(&TenantId::anonymous(), batch).await.unwrap();
        let engine = Engine::new(Arc::clone(&storage), options, SystemClock::start()).unwrap();
        Self { storage, engine }
    }

    async fn new(series: &[Series<'_>]) -> Self {
        Self::with(EngineOptions::default(), series).await
    }

    fn delayed(&self) -> Self {
        let features = Features { delayed_name_removal: true, ..Features::default() };
        let options = EngineOptions { features, ..EngineOptions::default() };
        let engine = Engine::new(Arc::clone(&self.storage), options, SystemClock::start()).unwrap();
        Self { storage: Arc::clone(&self.storage), engine }
    }

    async fn ask(&self, text: &str, seconds: i64) -> Result<Answer, QueryError> {
        let at = Timestamp(seconds * 1000);
        self.engine.instant(&View::of(TenantId::anonymous()), text, at, &QueryOptions::default()).await
    }

    /// An instant query's answer as text: a line per element, in order.
    async fn instant(&self, text: &str, seconds: i64) -> String {
        match self.ask(text, seconds).await {
            Ok(answer) => print(&answer.value),
            Err(error) => format!("error: {error}"),
        }
    }

    /// A range query's answer as text: `labels value@second …` a line.
    async fn range(&self, text: &str, start: i64, end: i64, step: i64) -> String {
        let [start, end] = [start, end].map(|seconds| Timestamp(seconds * 1000));
        let (tenant, options) = (View::of(TenantId::anonymous()), QueryOptions::default());
        match self.engine.range(&tenant, text, start, end, Millis(step * 1000), &options).await {
            Ok(answer) => print(&answer.value),
            Err(error) => format!("error: {error}"),
        }
    }
}

fn print(value: &Value) -> String {
    match value {
        Value::Scalar { value, .. } => format!("scalar {value}"),
        Value::String { value, .. } => format!("string {value}"),
        Value::Vector(elements) => {
            let line = |element: &VectorElement| match &element.value {
                Point::Float(value) => format!("{} {value}", element.labels),
                Point::Histogram(histogram) => format!("{} {histogram}", element.labels),
            };
            elements.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        Value::Matrix(series) => {
            let line = |series: &MatrixSeries| {
                let points: Vec<String> =
                    series.floats.iter().map(|(t, v)| format!("{v}@{}", t / 1000)).collect();
                format!("{} {}", series.labels, points.join(" "))
            };
            series.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    }
}

#[tokio::test]
async fn the_newest_sample_decides_and_a_stale_marker_ends_the_series() {
    let bench =
        Bench::new(&[(&[("__name__", "up")], &[(0, 1.0), (60, 2.0), (120, stale_nan()), (180, 4.0)])]).await;
    assert_eq!(bench.instant("up", 59).await, r#"{__name__="up"} 1"#);
    assert_eq!(bench.instant("up", 60).await, r#"{__name__="up"} 2"#);
    assert_eq!(bench.instant("up", 125).await, "");
    assert_eq!(bench.range("up", 0, 180, 60).await, r#"{__name__="up"} 1@0 2@60 4@180"#);
    // Range functions pass the marker over.
    assert_eq!(bench.instant("count_over_time(up[10m])", 180).await, "{} 3");
}

#[tokio::test]
async fn windows_and_the_lookback_are_open_on_the_left() {
    let bench = Bench::new(&[(&[("__name__", "up")], &[(0, 1.0), (60, 2.0), (120, 3.0)])]).await;
    assert_eq!(bench.instant("sum_over_time(up[1m])", 120).await, "{} 3");
    assert_eq!(bench.instant("sum_over_time(up[60001ms])", 120).await, "{} 5");
    assert_eq!(bench.instant("up", 120 + 299).await, r#"{__name__="up"} 3"#);
    assert_eq!(bench.instant("up", 120 + 300).await, "");
    assert_eq!(bench.instant("up offset -1m", 60).await, r#"{__name__="up"} 3"#);
    assert_eq!(bench.instant("up @ 60 offset 1m", 9999).await, r#"{__name__="up"} 1"#);
}

#[tokio::test]
async fn a_subquery_steps_on_multiples_of_its_step() {
    let samples: Vec<(i64, f64)> = [0, 10, 20, 30, 40, 50, 60].map(|t| (t, t as f64)).to_vec();
    let bench = Bench::new(&[(&[("__name__", "x")], &samples)]).await;
    // (17, 47] at every 10 s: 20, 30, 40.
    assert_eq!(bench.instant("sum_over_time(x[30s:10s])", 47).await, "{} 90");
    assert_eq!(bench.instant("x[30s:10s]", 47).await, r#"{__name__="x"} 20@20 30@30 40@40"#);
    // The left end is open even where a step falls on it.
    assert_eq!(bench.instant("x[30s:10s]", 50).await, r#"{__name__="x"} 30@30 40@40 50@50"#);
    // Before the epoch the grid is the same.
    assert_eq!(bench.instant("count_over_time(vector(1)[30s:10s] offset 1m)", 17).await, "{} 3");
    assert_eq!(bench.instant("count_over_time(x[1ms:10s])", 47).await, "");
    assert_eq!(bench.range("sum_over_time(x[20s:10s])", 20, 40, 7).await, "{} 30@20 30@27 50@34");
}

#[tokio::test]
async fn what_is_pinned_is_the_same_at_every_step() {
    let bench = Bench::new(&[(&[("__name__", "x")], &[(0, 1.0), (60, 2.0), (120, 3.0)])]).await;
    assert_eq!(bench.range("x @ 60", 0, 120, 60).await, r#"{__name__="x"} 2@0 2@60 2@120"#);
    assert_eq!(bench.range("x - x @ end()", 0, 120, 60).await, "{} -2@0 -1@60 0@120");
    assert_eq!(bench.range("timestamp(x @ 60)", 60, 120, 60).await, "{} 60@60 60@120");
    assert_eq!(bench.range("timestamp(-x)", 70, 130, 60).await, "{} 70@70 130@130");
    assert_eq!(bench.range("sum_over_time(x[2m] @ 120)", 0, 60, 60).await, "{} 5@0 5@60");
}

#[tokio::test]
async fn a_vector_meets_its_match_step_by_step() {
    let bench = Bench::new(&[
        (&[("__name__", "many"), ("job", "a"), ("i", "1")], &[(0, 1.0), (60, 10.0)]),
        (&[("__name__", "many"), ("job", "a"), ("i", "2")], &[(0, 2.0), (60, 20.0)]),
        (&[("__name__", "one"), ("job", "a"), ("side", "l")], &[(0, 100.0), (60, stale_nan())]),
        (&[("__name__", "one"), ("job", "a"), ("side", "r")], &[(60, 1000.0)]),
    ])
    .await;
    // The two of the one side take turns, which is no conflict.
    let joined = bench.range("many + on(job) group_left(side) one", 0, 60, 60).await;
    assert_eq!(
        joined,
        "{i=\"1\", job=\"a\", side=\"l\"} 101@0\n{i=\"1\", job=\"a\", side=\"r\"} 1010@60\n\
         {i=\"2\", job=\"a\", side=\"l\"} 102@0\n{i=\"2\", job=\"a\", side=\"r\"} 1020@60"
    );
    assert_eq!(
        bench.instant("many > on(job) one", 0).await,
        "error: multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
    );
    assert_eq!(
        bench.instant("one + on(job) many", 0).await,
        r#"error: found duplicate series for the match group {job="a"} on the right hand-side of the operation: [{__name__="many", i="1", job="a"}, {__name__="many", i="2", job="a"}];many-to-many matching not allowed: matching labels must be unique on one side"#
    );
    assert_eq!(
        bench.instant("many * on(job) group_right one", 0).await.split(" hand-side").next().unwrap(),
        r#"error: found duplicate series for the match group {job="a"} on the left"#
    );
    assert_eq!(
        bench.instant(r#"label_replace(many, "i", "", "", "") * on(job) group_left one"#, 0).await,
        "error: vector cannot contain metrics with the same labelset"
    );
    assert_eq!(
        bench.instant("many * on(job) group_left(i) one", 0).await,
        "error: multiple matches for labels: grouping labels must ensure unique matches"
    );
    // With nothing on the other side nobody looks for duplicates.
    assert_eq!(bench.instant("none + on(job) many", 0).await, "");
}

#[tokio::test]
async fn a_missing_partner_is_filled_in() {
    let bench = Bench::new(&[
        (&[("__name__", "l"), ("k", "a")], &[(0, 1.0)]),
        (&[("__name__", "l"), ("k", "b")], &[(0, 2.0)]),
        (&[("__name__", "r"), ("k", "b")], &[(0, 10.0)]),
        (&[("__name__", "r"), ("k", "c")], &[(0, 20.0)]),
    ])
    .await;
    let sorted = |text: String| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    };
    assert_eq!(sorted(bench.instant("l - r", 0).await), "{k=\"b\"} -8");
    assert_eq!(sorted(bench.instant("l - fill_right(0) r", 0).await), "{k=\"a\"} 1\n{k=\"b\"} -8");
    assert_eq!(sorted(bench.instant("l - fill(0) r", 0).await), "{k=\"a\"} 1\n{k=\"b\"} -8\n{k=\"c\"} -20");
}

#[tokio::test]
async fn set_operators_look_at_each_step() {
    let bench = Bench::new(&[
        (&[("__name__", "a"), ("k", "1")], &[(0, 1.0), (60, stale_nan())]),
        (&[("__name__", "b"), ("k", "1")], &[(0, 5.0), (60, 6.0)]),
    ])
    .await;
    assert_eq!(
        bench.range("a or b", 0, 60, 60).await,
        "{__name__=\"a\", k=\"1\"} 1@0\n{__name__=\"b\", k=\"1\"} 6@60"
    );
    assert_eq!(bench.range("b unless a", 0, 60, 60).await, r#"{__name__="b", k="1"} 6@60"#);
    assert_eq!(bench.range("b and a", 0, 60, 60).await, r#"{__name__="b", k="1"} 5@0"#);
    assert_eq!(bench.range("-a or -b", 0, 60, 60).await, r#"{k="1"} -1@0 -6@60"#);
    assert_eq!(bench.delayed().range("-a or -b", 0, 60, 60).await, r#"{k="1"} -1@0 -6@60"#);
}

#[tokio::test]
async fn names_go_where_the_value_changes_its_meaning() {
    let bench = Bench::new(&[
        (&[("__name__", "x_total"), ("__type__", "counter"), ("k", "1")], &[(0, 1.0), (60, 2.0)]),
        (&[("__name__", "y_total"), ("k", "1")], &[(0, 1.0), (60, 2.0)]),
    ])
    .await;
    for bench in [bench.delayed(), bench] {
        assert_eq!(
            bench.instant("last_over_time(y_total[5m])", 60).await,
            r#"{__name__="y_total", k="1"} 2"#
        );
        assert_eq!(bench.instant("y_total > 1", 60).await, r#"{__name__="y_total", k="1"} 2"#);
        assert_eq!(bench.instant("y_total > bool 1", 60).await, r#"{k="1"} 1"#);
        assert_eq!(bench.instant("abs(x_total)", 60).await, r#"{k="1"} 2"#);
        let both = r#"increase({k="1"}[5m])"#;
        assert_eq!(
            bench.instant(both, 60).await,
            "error: vector cannot contain metrics with the same labelset"
        );
        assert_eq!(
            bench.instant(r#"-{k="1"}"#, 60).await,
            "error: vector cannot contain metrics with the same labelset"
        );
    }
}

#[tokio::test]
async fn delayed_names_are_still_there_for_aggregations() {
    let bench = Bench::new(&[
        (&[("__name__", "x_total"), ("k", "1")], &[(0, 1.0), (60, 2.0)]),
        (&[("__name__", "y_total"), ("k", "1")], &[(0, 1.0), (60, 3.0)]),
    ])
    .await;
    let text = r#"sort(count by (__name__) (increase({k="1"}[5m])))"#;
    assert_eq!(bench.instant(text, 60).await, "error: vector cannot contain metrics with the same labelset");
    let text = r#"label_replace(max by (__name__) (max_over_time({k="1"}[5m])), "n", "$1", "__name__", "(.*)_total")"#;
    assert_eq!(bench.delayed().instant(text, 60).await, "{n=\"x\"} 2\n{n=\"y\"} 3");
}

#[tokio::test]
async fn topk_gives_the_best_first_and_range_queries_sort_by_labels() {
    let bench = Bench::new(&[
        (&[("__name__", "x"), ("k", "1")], &[(0, 5.0)]),
        (&[("__name__", "x"), ("k", "2")], &[(0, f64::NAN)]),
        (&[("__name__", "x"), ("k", "3")], &[(0, 9.0)]),
        (&[("__name__", "x"), ("k", "4")], &[(0, 5.0)]),
    ])
    .await;
    let keys = |text: String| -> Vec<String> {
        text.lines().map(|line| line.split('"').nth(3).unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(keys(bench.instant("topk(3, x)", 0).await), ["3", "1", "4"]);
    assert_eq!(keys(bench.instant("bottomk(3, x)", 0).await), ["1", "4", "3"]);
    assert_eq!(keys(bench.instant("topk(9, x)", 0).await), ["3", "1", "4", "2"]);
    assert_eq!(keys(bench.instant("limitk(2, x)", 0).await), ["1", "2"]);
    assert_eq!(keys(bench.instant("sort_desc(x)", 0).await), ["3", "1", "4", "2"]);
    assert_eq!(keys(bench.range("topk(3, x)", 0, 0, 1).await), ["1", "3", "4"]);
    assert_eq!(bench.instant("topk(0, x)", 0).await, "");
    assert_eq!(bench.instant("topk(NaN, x)", 0).await, "error: Parameter value is NaN");
    assert_eq!(bench.instant("topk(1e30, x)", 0).await, "error: Scalar value 1e+30 overflows int64");
    assert_eq!(bench.instant("limit_ratio(NaN, x)", 0).await, "error: Ratio value is NaN");
    assert_eq!(bench.instant("count(limit_ratio(0.3, x) or limit_ratio(-0.7, x))", 0).await, "{} 4");
    assert_eq!(bench.instant("limit_ratio(0.3, x) and limit_ratio(-0.7, x)", 0).await, "");
}

#[tokio::test]
async fn aggregations_treat_extremes_as_prometheus_does() {
    let bench = Bench::new(&[
        (&[("__name__", "big"), ("k", "1")], &[(0, f64::MAX)]),
        (&[("__name__", "big"), ("k", "2")], &[(0, f64::MAX)]),
        (&[("__name__", "odd"), ("k", "1")], &[(0, f64::NAN)]),
        (&[("__name__", "odd"), ("k", "2")], &[(0, 3.0)]),
        (&[("__name__", "sum"), ("k", "1")], &[(0, 1.0)]),
        (&[("__name__", "sum"), ("k", "2")], &[(0, 1e100)]),
        (&[("__name__", "sum"), ("k", "3")], &[(0, 1.0)]),
        (&[("__name__", "sum"), ("k", "4")], &[(0, -1e100)]),
        (&[("__name__", "zero"), ("k", "1")], &[(0, -0.0)]),
    ])
    .await;
    assert_eq!(bench.instant("avg(big) == bool 1.7976931348623157e308", 0).await, "{} 1");
    assert_eq!(bench.instant("sum(big)", 0).await, "{} inf");
    assert_eq!(bench.instant("min(odd)", 0).await, "{} 3");
    assert_eq!(bench.instant("max(odd)", 0).await, "{} 3");
    assert_eq!(bench.instant("max(odd{k=\"1\"})", 0).await, "{} NaN");
    assert_eq!(bench.instant("stddev(odd)", 0).await, "{} NaN");
    assert_eq!(bench.instant("sum(sum)", 0).await, "{} 2");
    // What the sum owes is added to it, and -0 + 0 is 0.
    assert_eq!(bench.instant("sum(zero)", 0).await, "{} 0");
    assert_eq!(bench.instant(r#"count_values("v", big / big)"#, 0).await, r#"{v="1"} 2"#);
    assert_eq!(bench.instant(r#"count_values("", big)"#, 0).await, r#"error: invalid label name """#);
    let quantile = bench.ask("quantile(2, sum)", 0).await.unwrap();
    assert_eq!(print(&quantile.value), "{} inf");
    assert_eq!(quantile.warnings, ["PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)"]);
}

#[tokio::test]
async fn an_answer_is_the_same_whatever_the_number_of_threads() {
    let names: Vec<String> = (0..1500).map(|i| format!("{i}")).collect();
    let values: Vec<Vec<(i64, f64)>> = (0..1500_i32)
        .map(|i| {
            (0..10).map(|t| (t * 15, f64::from(i).sin() * 10f64.powi(i % 40) * (t as f64 + 1.0))).collect()
        })
        .collect();
    let labels: Vec<[(&str, &str); 2]> =
        names.iter().map(|i| [("__name__", "x"), ("i", i.as_str())]).collect();
    let series: Vec<Series<'_>> =
        labels.iter().zip(&values).map(|(labels, values)| (labels.as_slice(), values.as_slice())).collect();
    let one = Bench::with(EngineOptions { threads: 1, ..EngineOptions::default() }, &series).await;
    let many = EngineOptions { threads: 4, ..EngineOptions::default() };
    let many = Engine::new(Arc::clone(&one.storage), many, SystemClock::start()).unwrap();
    let many = Bench { storage: Arc::clone(&one.storage), engine: many };
    for text in
        ["sum(x)", "avg(rate(x[1m]))", "sum(x * on(i) x)", "stddev(deriv(x[1m]) + 1)", "quantile(0.3, -x)"]
    {
        let [a, b] = [one.range(text, 0, 150, 15).await, many.range(text, 0, 150, 15).await];
        assert!(a.len() > 10 && a == b, "{text}: {a} and {b}");
    }
    // Streamed and collected aggregations agree to the bit.
    assert_eq!(
        one.range("sum(x)", 0, 150, 15).await,
        many.range(r#"sum(x or vector(1) < 0)"#, 0, 150, 15).await
    );
}

#[tokio::test]
async fn what_does_not_fit_the_budget_is_refused() {
    let samples: Vec<(i64, f64)> = (0..100).map(|t| (t, 1.0)).collect();
    let options = EngineOptions { max_samples: 50, ..EngineOptions::default() };
    let bench = Bench::with(options, &[(&[("__name__", "x")], &samples)]).await;
    let refused = "error: query processing would load too many samples into memory in query execution";
    assert_eq!(bench.instant("sum_over_time(x[40s])", 99).await, "{} 40");
    assert_eq!(bench.instant("sum_over_time(x[2m])", 99).await, refused);
    assert_eq!(bench.range("1", 0, 100, 1).await, refused);
    // Not even tried: a subquery of far more steps than could be held.
    assert_eq!(bench.instant("sum_over_time(vector(1)[100y:1ms])", 99).await, refused);
    assert_eq!(bench.range("1", -9_000_000_000_000_000, 9_000_000_000_000_000, 1).await, refused);
}

#[tokio::test]
async fn results_larger_than_what_they_are_made_of_are_refused_while_they_grow() {
    let options = EngineOptions { max_samples: 100_000, ..EngineOptions::default() };
    let names: Vec<String> = (0..20).map(|i| i.to_string()).collect();
    let labels: Vec<[(&str, &str); 2]> = names.iter().map(|name| [("__name__", "x"), ("i", name)]).collect();
    let series: Vec<Series<'_>> = labels.iter().map(|labels| (&labels[..], &[(0, 1.0)][..])).collect();
    let bench = Bench::with(options, &series).await;
    let refused = "error: query processing would load too many samples into memory in query execution";
    assert_eq!(bench.range(r#"count_values("v", vector(time()))"#, 0, 30_000, 1).await, refused);
    assert_eq!(bench.range("x @ 0", 0, 30_000, 1).await, refused);
    assert_eq!(bench.range("last_over_time((x @ 0)[1d:1d])", 0, 80_000, 1).await, refused);
    let quantiles = r#"histogram_quantiles(label_replace(vector(1), "le", "+Inf", "", ""), "q", time())"#;
    assert_eq!(bench.range(quantiles, 0, 30_000, 1).await, refused);
    // Numbers that wait for their partners are many, too.
    let mut text = "time()".to_owned();
    for i in 0..10 {
        text = format!("(time() + {i}) * ({text})");
    }
    assert_eq!(bench.instant(&format!("sum_over_time(vector({text})[60000s:1s])"), 0).await, refused);
    // Each call makes the label ten times as long.
    let mut text = r#"x{i="7"}"#.to_owned();
    for _ in 0..12 {
        text = format!(r#"label_replace({text}, "i", "{}", "i", "(.*)")"#, "$1".repeat(10));
    }
    let too_long = "error: label value too long in label_replace(): i would have more than 1048576 bytes";
    assert_eq!(bench.instant(&text, 0).await, too_long);
    let mut text = "x".to_owned();
    for _ in 0..30 {
        text = format!(r#"label_join({text}, "i", "", "i", "i")"#);
    }
    assert_eq!(bench.instant(&text, 0).await, refused);
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_given_up_and_ends() {
    let options = EngineOptions { threads: 1, ..EngineOptions::default() };
    let bench = Bench::with(options, &[]).await;
    let slow = "quantile_over_time(0.5, (vector(1) < bool time())[1d:1s])";
    let (ticket, place) = (Arc::new(Ticket::default()), Arc::new(()));
    ticket.keep(Box::new(Arc::clone(&place)));
    let limits = QueryOptions {
        timeout: Some(Duration::from_millis(150)),
        ticket: Some(ticket),
        ..QueryOptions::default()
    };
    let tenant = View::of(TenantId::anonymous());
    let (start, end) = (Timestamp(0), Timestamp(10_000 * MINUTE));
    let error = bench.engine.range(&tenant, slow, start, end, Millis(MINUTE), &limits).await.unwrap_err();
    assert_eq!(error.to_string(), "query timed out in expression evaluation");
    // Its place is free again soon, and the processor.
    drop(limits);
    let free = async {
        while Arc::strong_count(&place) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), free).await.unwrap();
    let soon = tokio::time::timeout(Duration::from_secs(20), bench.ask("1 + 1", 0)).await;
    assert_eq!(print(&soon.unwrap().unwrap().value), "scalar 2");
}

#[tokio::test]
async fn answers_have_the_type_of_the_expression() {
    let bench = Bench::new(&[(&[("__name__", "x")], &[(0, 1.0), (60, stale_nan()), (61, 2.0)])]).await;
    assert_eq!(bench.instant("1 + 1", 5).await, "scalar 2");
    assert_eq!(bench.instant("-(2 ^ 2) > bool 1", 5).await, "scalar 0");
    assert_eq!(bench.instant(r#""text""#, 5).await, "string text");
    assert_eq!(bench.instant("x[2m]", 100).await, r#"{__name__="x"} 1@0 2@61"#);
    assert_eq!(bench.range("time()", 0, 2, 1).await, "{} 0@0 1@1 2@2");
    assert_eq!(bench.range("step() + range() + start() + end()", 10, 30, 10).await, "{} 70@10 70@20 70@30");
    assert_eq!(
        bench.range("x[2m]", 0, 1, 1).await,
        r#"error: invalid expression type "range vector" for range query, must be Scalar or instant Vector"#
    );
    assert_eq!(
        bench.range(r#""a""#, 0, 1, 1).await,
        r#"error: invalid expression type "string" for range query, must be Scalar or instant Vector"#
    );
    assert_eq!(bench.range("1", 5, 4, 1).await, "error: end timestamp must not be before start time");
    assert!(bench.range("1", 0, 4, 0).await.starts_with("error: zero or negative query resolution step"));
    assert_eq!(bench.instant("x[step()]", 0).await, "error: 1:3: duration must be greater than 0");
    assert!(
        bench.instant("deriv(x[5m] smoothed)", 0).await.ends_with("delta, increase, rate - not with deriv")
    );
}

#[tokio::test]
async fn extreme_times_are_no_trouble() {
    let bench = Bench::new(&[(&[("__name__", "x")], &[(0, 1.0)])]).await;
    let (tenant, options) = (View::of(TenantId::anonymous()), QueryOptions::default());
    for at in [Timestamp::MIN, Timestamp::MAX] {
        for text in
            ["x", "rate(x[5m] offset 1y)", "sum_over_time(x[1h:1m] offset -1y)", "month(x offset 292y)"]
        {
            let answer = bench.engine.instant(&tenant, text, at, &options).await.unwrap();
            assert_eq!(answer.value, Value::Vector(Vec::new()), "{text} at {at}");
        }
        let end = Timestamp(at.0.saturating_add(10));
        let start = Timestamp(end.0 - 10);
        bench
            .engine
            .range(&tenant, "x or x[5m:1m] @ end()", start, end, Millis(3), &options)
            .await
            .unwrap_err();
        bench.engine.range(&tenant, "x or -x", start, end, Millis(3), &options).await.unwrap();
    }
}

#[tokio::test]
async fn statistics_count_windows_and_reads() {
    let samples: Vec<(i64, f64)> = (0..=10).map(|t| (t * 60, 1.0)).collect();
    let bench = Bench::new(&[(&[("__name__", "x")], &samples)]).await;
    let options = QueryOptions { per_step_stats: true, limit: Some(1), ..QueryOptions::default() };
    let (tenant, start, end) = (View::of(TenantId::anonymous()), Timestamp(0), Timestamp(2 * MINUTE));
    let ask = async |text: &str| {
        bench.engine.range(&tenant, text, start, end, Millis(MINUTE), &options).await.unwrap()
    };
    let stats = ask("sum(count_over_time(x[2m]))").await.stats;
    assert_eq!(stats.total_queryable_samples_per_step, [(0, 1), (MINUTE, 2), (2 * MINUTE, 2)]);
    assert_eq!((stats.total_queryable_samples, stats.samples_read), (5, 3));
    assert_eq!(stats.samples_read_per_step, [(0, 1), (MINUTE, 1), (2 * MINUTE, 1)]);
    assert!(stats.peak_samples >= 3);
    // What is pinned counts for every step, a subquery's inside for none.
    assert_eq!(ask("x @ 60").await.stats.total_queryable_samples, 3);
    assert_eq!(ask("x @ 60").await.stats.samples_read_per_step[0].1, ask("x @ 60").await.stats.samples_read);
    assert_eq!(ask("sum_over_time(x[2m:1m] @ 120)").await.stats.total_queryable_samples, 6);
    // Equal selectors are read once.
    assert_eq!(ask("x + x").await.stats.samples_read, 3);
    let cut = ask(r#"x or label_replace(x, "a", "b", "", "")"#).await;
    assert_eq!(cut.warnings, ["results truncated due to limit"]);
    assert!(matches!(cut.value, Value::Matrix(series) if series.len() == 1));
}

#[test]
fn long_chains_of_operators_are_evaluated() {
    let test = async {
        let bench = Bench::new(&[(&[("__name__", "x")], &[(0, 1.0)])]).await;
        let chain = vec!["x"; 900].join(" + ");
        assert_eq!(bench.instant(&chain, 0).await, "{} 900");
        assert_eq!(bench.range(&vec!["(x @ 0)"; 400].join(" + "), 0, 60, 60).await, "{} 400@0 400@60");
    };
    // With the stack that a server's threads have.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime =
        runtime.worker_threads(1).enable_all().thread_stack_size(parse::STACK_BYTES).build().unwrap();
    let run = move || runtime.block_on(test);
    std::thread::Builder::new().stack_size(parse::STACK_BYTES).spawn(run).unwrap().join().unwrap();
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let bench = Bench::new(&[(&[("__name__", "x")], &[(0, 1.0)])]).await;
    let other = View::of(TenantId::new("other").unwrap());
    let answer = bench.engine.instant(&other, "x", Timestamp(0), &QueryOptions::default()).await.unwrap();
    assert_eq!(answer.value, Value::Vector(Vec::new()));
}

/// What a query within limits gives: the answer's lines, or the error.
async fn limited(bench: &Bench, text: &str, span: i64, options: QueryOptions) -> Result<usize, String> {
    let (view, [start, end]) =
        (View::of(TenantId::anonymous()), [600 - span, 600].map(|s| Timestamp(s * 1000)));
    let answer = bench.engine.range(&view, text, start, end, Millis(10_000), &options).await;
    match answer {
        Ok(Answer { value: Value::Matrix(series), .. }) => Ok(series.len()),
        Ok(other) => panic!("{other:?}"),
        Err(error @ QueryError::OverLimit(_)) => Err(error.to_string()),
        Err(other) => panic!("{other}"),
    }
}

async fn three_series() -> Bench {
    let samples: Vec<(i64, f64)> = (0..60).map(|i| (i * 10, 1.0)).collect();
    let series: Vec<Series<'_>> = vec![
        (&[("__name__", "a"), ("x", "1")], &samples),
        (&[("__name__", "a"), ("x", "2")], &samples),
        (&[("__name__", "b"), ("x", "1")], &samples),
    ];
    Bench::new(&series).await
}

#[tokio::test]
async fn a_query_selects_no_more_series_than_it_may() {
    let bench = three_series().await;
    let within = |most| QueryOptions { max_series: Some(most), ..QueryOptions::default() };
    let over = |most: u64, asked: u64| Err(format!("over the limit max_query_series of {most}: {asked}"));
    assert_eq!(limited(&bench, "a", 60, within(2)).await, Ok(2));
    assert_eq!(limited(&bench, "a", 60, within(1)).await, over(1, 2));
    assert_eq!(limited(&bench, "count({__name__=~\".+\"})", 60, within(2)).await, over(2, 3));
    // All selections count together.
    assert_eq!(limited(&bench, "a or on(y) b", 60, within(3)).await, Ok(2));
    assert_eq!(limited(&bench, "a or on(y) b", 60, within(2)).await, over(2, 3));
    assert_eq!(limited(&bench, "nothing", 60, within(0)).await, Ok(0));
}

#[tokio::test]
async fn a_query_holds_no_more_bytes_and_samples_than_it_may() {
    let bench = three_series().await;
    let bytes = |most| QueryOptions { max_bytes: Some(most), ..QueryOptions::default() };
    assert_eq!(limited(&bench, "rate(a[5m])", 300, bytes(100_000)).await, Ok(2));
    let error = limited(&bench, "rate(a[5m])", 300, bytes(1_000)).await.unwrap_err();
    assert!(error.starts_with("over the limit max_query_bytes of 1KB: "), "{error}");
    let error = limited(&bench, "count({x=~\".+\"})", 0, bytes(100)).await.unwrap_err();
    assert_eq!(error, "over the limit max_query_bytes of 100B: 101B", "the labels alone are too much");

    let samples = |most| QueryOptions { max_samples: Some(most), ..QueryOptions::default() };
    assert_eq!(limited(&bench, "rate(a[5m])", 300, samples(10_000)).await, Ok(2));
    for (text, most) in [("rate(a[5m])", 50), ("a", 20), ("max_over_time(a[5m:1s])", 400)] {
        let error = limited(&bench, text, 300, samples(most)).await.unwrap_err();
        assert!(
            error.starts_with(&format!("over the limit max_query_samples of {most}: ")),
            "{text}: {error}"
        );
    }
}

#[tokio::test]
async fn a_query_reaches_no_further_than_it_may() {
    let bench = three_series().await;
    let within =
        |seconds: i64| QueryOptions { max_range: Some(Millis(seconds * 1000)), ..QueryOptions::default() };
    let over = |most: &str, asked: &str| Err(format!("over the limit max_query_range of {most}: {asked}"));
    assert_eq!(limited(&bench, "a", 300, within(300)).await, Ok(2));
    assert_eq!(limited(&bench, "a", 301, within(300)).await, over("5m", "5m1s"));
    // As far again for each selector; offsets and the lookback do not count.
    assert_eq!(limited(&bench, "a offset 1w", 300, within(300)).await, Ok(0));
    assert_eq!(limited(&bench, "rate(a[5m])", 300, within(300)).await, Ok(2));
    for text in ["rate(a[1h])", "max_over_time(rate(a[5m])[1h:1m])", "a or rate(b[1h])", "rate(a[1h] @ 600)"]
    {
        let error = limited(&bench, text, 60, within(300)).await.unwrap_err();
        assert!(error.starts_with("over the limit max_query_range of 5m: "), "{text}: {error}");
    }
}
