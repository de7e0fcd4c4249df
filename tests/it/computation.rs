//! That an answer depends on the query and the samples, and on nothing else: not on how many threads there are,
//! and not on what the plan saves.

use std::sync::Arc;

use luminate::{
    clock::HandClock,
    model::{Labels, Millis, TenantId, Timestamp, stale_nan},
    promql::{Engine, EngineOptions, QueryOptions},
    storage::{
        BatchSample, Storage, View, WriteBatch,
        embedded::{EmbeddedConfig, EmbeddedStore, disk::SystemDisk},
        memory::MemoryStore,
    },
};

use crate::{
    promql_scripts::scripts,
    script::{Action, Sample},
};

/// More series than one chunk has, so that threads have something to share.
const SERIES: usize = 800;
const SAMPLES: i64 = 90;
const SCRAPE: i64 = 15_000;

/// Queries over what [`random`] makes.
const QUERIES: &[&str] = &[
    "a_total",
    "sum(a_total)",
    "avg(g)",
    "avg by (job) (rate(a_total[5m]))",
    "sum by (job, x) (increase(a_total[10m]))",
    "sum without (instance) (g)",
    "stddev by (x) (g)",
    "stdvar(g)",
    "quantile by (job) (0.3, g)",
    "topk by (x) (3, g)",
    "bottomk(7, rate(a_total[2m]))",
    "count_values(\"v\", round(g / 50))",
    "limitk(5, g)",
    "limit_ratio(0.4, g)",
    "count({__name__=~\"a_total|g\"})",
    "count by (__name__) ({job=\"j1\"})",
    "max by (job) (timestamp(g))",
    "group by (x) (g offset 1m)",
    "sum_over_time(g[5m])",
    "sum(sum_over_time(g[20m]))",
    "avg_over_time(g[20m])",
    "sum by (x) (stddev_over_time(g[20m]))",
    "quantile_over_time(0.9, g[20m])",
    "mad_over_time(g[5m])",
    "deriv(g[20m])",
    "predict_linear(g[20m], 600)",
    "double_exponential_smoothing(g[5m], 0.4, 0.3)",
    "changes(g[5m])",
    "resets(a_total[20m])",
    "max_over_time(g[3m]) - min_over_time(g[3m])",
    "histogram_quantile(0.9, sum by (le, job) (rate(lat_bucket[5m])))",
    "sum(rate(a_total{x=\"1\"}[5m])) / sum(rate(a_total[5m]))",
    "g * 2 > 50",
    "-g",
    "sort_desc(sum by (x) (g))",
    "sum by (x) (sum_over_time(rate(a_total[1m])[5m:30s]))",
    "label_replace(sum by (job) (g), \"k\", \"$1\", \"job\", \"(.).*\")",
    "absent_over_time(nothing[5m])",
    "g unless h",
    "h or g",
    // What one side asks for, the other is asked for, too.
    "g{x=\"1\"} / h",
    "g{x=~\"[12]\"} / h{job!=\"j1\"}",
    "g and h{x=\"2\"}",
    "g{x=\"1\"} unless h{job=\"j1\"}",
    "g{x=\"1\"} * on (job) group_left sum by (job) (h)",
    "sum by (x) (g{x=\"1\"}) / on (x) sum by (x, job) (h{job=\"j0\"})",
    "avg by (job, x) (h) * on (job, x) group_right g{job=\"j2\"}",
    "g{x=\"1\"} / on (instance) h",
    "g{x=\"1\"} == bool h",
    "rate(a_total{job=\"j1\"}[5m]) / ignoring (x) g",
    // And is not where something would be said of what meets nothing.
    "g{x=\"none\"} / rate(h[5m])",
    "g{x=\"none\"} and rate(h[5m]) > 0",
    "rate(h[5m]) - g{x=\"none\"}",
    "g{x=\"1\"} / count_over_time(h[5m])",
    "g{x=\"1\"} * on (job, x) group_left count by (job, x) (h / 2)",
];

/// xorshift64*, so that every run has the same data.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound
    }
}

/// Counters, gauges and histograms with gaps, resets, stale markers and the odd infinity.
fn random() -> WriteBatch {
    let mut random = Random(0x5eed);
    let mut labels = Vec::new();
    let mut samples = Vec::new();
    for number in 0..SERIES {
        let metric = ["a_total", "g", "h", "lat_bucket"][number % 4];
        // Pairs of series have the same labels but for the name.
        let target = number / 4;
        let (job, x) = (format!("j{}", target % 3), (target % 5).to_string());
        let mut pairs =
            vec![("__name__", metric.to_owned()), ("instance", format!("i{target}")), ("job", job), ("x", x)];
        if metric == "lat_bucket" {
            pairs.push(("le", ["0.1", "1", "10", "+Inf"][target % 4].to_owned()));
        }
        labels.push(Labels::from_pairs(pairs).unwrap());
        let (mut value, missing) = (0.0, random.below(8) == 0);
        // Some are scraped at times of their own.
        let shift = if random.below(3) == 0 { i64::try_from(random.below(5_000)).unwrap() } else { 0 };
        for scrape in 0..SAMPLES {
            if missing && (30..60).contains(&scrape) {
                continue;
            }
            let step = f64::from(u32::try_from(random.below(1_000)).unwrap()) / 7.0;
            value = match metric {
                "g" | "h" => step,
                _ if random.below(40) == 0 => 0.0,
                _ => value + step,
            };
            let odd = match random.below(900) {
                0 => f64::INFINITY,
                1 => f64::NAN,
                2 => stale_nan(),
                3 => -0.0,
                4 => 1e300,
                _ => value,
            };
            samples.push(BatchSample {
                series: u32::try_from(number).unwrap(),
                timestamp: Timestamp(scrape * SCRAPE + shift),
                value: odd,
                start: 0,
            });
        }
    }
    let mut batch = WriteBatch::over(labels);
    batch.samples = samples;
    batch
}

fn engine(store: &Arc<dyn Storage>, threads: usize, narrow: bool) -> Engine {
    let options = EngineOptions { threads, narrow, ..EngineOptions::default() };
    Engine::new(Arc::clone(store), options, HandClock::at(Timestamp(0))).unwrap()
}

async fn store_of(batch: WriteBatch) -> Arc<dyn Storage> {
    let store: Arc<dyn Storage> = MemoryStore::new(HandClock::at(Timestamp(0)), None);
    store.append(&TenantId::anonymous(), batch).await.unwrap();
    store
}

/// Answer and remarks of a query at an instant and over a range: floats are printed so that they read back.
async fn asked(engine: &Engine, query: &str, end: i64, step: i64) -> [String; 2] {
    let (view, options) = (View::of(TenantId::anonymous()), QueryOptions::default());
    let instant = engine.instant(&view, query, Timestamp(end), &options).await;
    let range = engine.range(&view, query, Timestamp(0), Timestamp(end), Millis(step), &options).await;
    [instant, range].map(|answer| match answer {
        Ok(answer) => format!("{:?}", (answer.value, answer.warnings, answer.infos)),
        Err(error) => format!("{error:?}"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_threads_gives_the_same_bits() {
    let store = store_of(random()).await;
    let engines = [1, 2, 3, 7].map(|threads| engine(&store, threads, true));
    for query in QUERIES {
        let first = asked(&engines[0], query, SAMPLES * SCRAPE, 60_000).await;
        for (engine, threads) in engines.iter().zip([1, 2, 3, 7]) {
            let again = asked(engine, query, SAMPLES * SCRAPE, 60_000).await;
            assert!(first == again, "{query} with {threads} threads:\n{first:.300?}\n{again:.300?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn narrowed_selectors_give_the_same_bits() {
    let store = store_of(random()).await;
    let (narrowing, not) = (engine(&store, 2, true), engine(&store, 2, false));
    for query in QUERIES {
        let (narrowed, whole) = (
            asked(&narrowing, query, SAMPLES * SCRAPE, 60_000).await,
            asked(&not, query, SAMPLES * SCRAPE, 60_000).await,
        );
        assert!(narrowed == whole, "{query}:\n{narrowed:.300?}\n{whole:.300?}");
    }
}

/// Over few series, looked up by values: so that they are evaluated where they are asked for, if that is possible.
const SMALL: &[&str] = &[
    "a_total{instance=\"i3\"}",
    "sum by (x) (rate(g{instance=\"i5\"}[5m]))",
    "g{instance=\"i7\"} / h{instance=\"i7\"}",
    "g{instance=\"none\"}",
    "1 + vector(time())",
    "count_over_time(g{instance=\"i9\"}[10m:1m])",
    "a_total{instance=\"i3\"} == on (instance) a_total{instance=\"i3\"}",
    "a_total{instance=\"i3\"} + on (job) group_left a_total{instance=\"i3\"}",
    "{instance=\"i3\"} * 0",
    "{instance=\"i3\"} and on () {job=\"j0\", x=\"1\"}",
];

#[test]
fn it_does_not_matter_where_a_query_is_evaluated() {
    use tokio::runtime::Builder;
    let dir = tempfile::tempdir().unwrap();
    let several = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // There, nothing may be waited for.
    let one = Builder::new_current_thread().enable_all().build().unwrap();
    let config = EmbeddedConfig { retention: None, ..EmbeddedConfig::new(dir.path()) };
    let embedded = several.block_on(async {
        let store = EmbeddedStore::open(config, Arc::new(SystemDisk), HandClock::at(Timestamp(0))).unwrap();
        store.append(&TenantId::anonymous(), random()).await.unwrap();
        store as Arc<dyn Storage>
    });
    let waited_for = engine(&several.block_on(store_of(random())), 2, true);
    let here = engine(&embedded, 2, true);
    for query in QUERIES.iter().chain(SMALL) {
        let ask = |engine| asked(engine, query, SAMPLES * SCRAPE, 60_000);
        let expected = several.block_on(ask(&waited_for));
        // On a worker, and on none.
        let (engine, text) = (here.clone(), *query);
        let at_once = several.spawn(async move { asked(&engine, text, SAMPLES * SCRAPE, 60_000).await });
        let answers =
            [several.block_on(at_once).unwrap(), several.block_on(ask(&here)), one.block_on(ask(&here))];
        for answer in answers {
            assert!(answer == expected, "{query}:\n{answer:.300?}\n{expected:.300?}");
        }
    }
    // What is found to be too much for here is counted once.
    let query = "count(g{instance=\"i3\"}) + count(g{job=\"j0\", x=\"1\"}) + count(g{x=\"1\"})";
    let within = async |engine: &Engine, max_series: u64| {
        let options = QueryOptions { max_series: Some(max_series), ..QueryOptions::default() };
        let (view, at) = (View::of(TenantId::anonymous()), Timestamp(SAMPLES * SCRAPE));
        engine.instant(&view, query, at, &options).await.map(|answer| answer.value).map_err(|e| e.to_string())
    };
    let mut outcomes = Vec::new();
    for max_series in 10..80 {
        let expected = several.block_on(within(&waited_for, max_series));
        let engine = here.clone();
        let at_once = several.spawn(async move { within(&engine, max_series).await });
        assert_eq!(several.block_on(at_once).unwrap(), expected, "of {max_series} series");
        outcomes.push(expected.is_ok());
    }
    assert!(!outcomes[0] && outcomes[69]);
    several.block_on(embedded.close()).unwrap();
}

/// A step's value does not depend on which other steps are asked for.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_range_give_the_same_bits() {
    let store = store_of(random()).await;
    let engine = engine(&store, 2, true);
    let (view, options) = (View::of(TenantId::anonymous()), QueryOptions::default());
    let ask = async |query: &str, start: i64, end: i64| {
        let answer =
            engine.range(&view, query, Timestamp(start), Timestamp(end), Millis(30_000), &options).await;
        let rows = answer.map(|answer| match answer.value {
            luminate::promql::Value::Matrix(series) => series,
            other => panic!("{other:?}"),
        });
        let mut points = Vec::new();
        for series in rows.unwrap_or_default() {
            for (at, value) in series.floats {
                points.push(format!("{} {at} {value:?}", series.labels));
            }
        }
        points.sort();
        points
    };
    let end = SAMPLES * SCRAPE;
    let middle = end / 60_000 * 30_000;
    // These look at what else there is.
    let global = ["count_values", "limit", "a_total{job"];
    for query in QUERIES.iter().filter(|query| !global.iter().any(|part| query.contains(part))) {
        let whole = ask(query, 0, end).await;
        let mut parts = ask(query, 0, middle).await;
        parts.extend(ask(query, middle + 30_000, end).await);
        parts.sort();
        assert!(whole == parts, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_have_the_same_answers_however_they_are_computed() {
    let empty = || -> Arc<dyn Storage> { MemoryStore::new(HandClock::at(Timestamp(0)), None) };
    let engines =
        |store: &Arc<dyn Storage>| [(1, true), (3, false)].map(|(n, narrow)| engine(store, n, narrow));
    let mut evals = 0;
    for (name, script) in scripts() {
        let mut store = empty();
        let mut asking = engines(&store);
        for command in script {
            match command.action {
                Action::Clear => {
                    store = empty();
                    asking = engines(&store);
                }
                Action::Load(series) => {
                    let mut batch = WriteBatch::over(series.iter().map(|s| s.labels.clone()).collect());
                    for (number, series) in (0..).zip(&series) {
                        for (at, sample) in &series.samples {
                            let value = match sample {
                                Sample::Float(value) => *value,
                                Sample::Stale => stale_nan(),
                                Sample::Histogram(_) => continue,
                            };
                            let (timestamp, start) = (Timestamp(*at), series.start);
                            batch.samples.push(BatchSample { series: number, timestamp, value, start });
                        }
                    }
                    store.append(&TenantId::anonymous(), batch).await.unwrap();
                }
                Action::Eval(eval) => {
                    evals += 1;
                    let one = asked(&asking[0], &eval.query, 3_000_000, 300_000).await;
                    let other = asked(&asking[1], &eval.query, 3_000_000, 300_000).await;
                    assert!(one == other, "{name}:{}: {}:\n{one:?}\n{other:?}", command.line, eval.query);
                }
                Action::Computation | Action::Features(_) => {}
            }
        }
    }
    assert!(evals > 1_000, "only {evals} evaluations");
}
