//! The same data as it was written and downsampled: what queries of both give.
//!
//! Windows whose edges are multiples of the resolution give the same, to the bit but for what rounding of sums leaves.
//! Others give estimates, but something wherever the raw data does, and the answer says so.

use std::{sync::Arc, time::Duration};

use luminate::{
    clock::HandClock,
    model::{Labels, Millis, TenantId, Timestamp, stale_nan},
    promql::{Answer, Engine, EngineOptions, QueryOptions, Value},
    storage::{
        BatchSample, Storage, View, WriteBatch,
        embedded::{DownsampleRule, EmbeddedConfig, EmbeddedStore, disk::SystemDisk},
    },
};

const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;
/// A midnight.
const START: i64 = 20_000 * DAY;

/// Exact at aligned windows.
const EXACT: &[&str] = &[
    "rate(c_total[W])",
    "increase(c_total[W])",
    "increase(restless_total[W])",
    "rate(reset_total[W])",
    "delta(g[W])",
    "changes(g[W])",
    "changes(holes[W])",
    "resets(reset_total[W])",
    "resets(restless_total[W])",
    "count_over_time({job=\"j\"}[W])",
    "sum_over_time(g[W])",
    "sum_over_time(c_total[W])",
    "avg_over_time({job=\"j\"}[W])",
    "min_over_time({job=\"j\"}[W])",
    "max_over_time({job=\"j\"}[W])",
    "last_over_time({job=\"j\"}[W])",
    "first_over_time({job=\"j\"}[W])",
    "present_over_time({job=\"j\"}[W])",
    "absent_over_time(holes[W])",
    "ts_of_first_over_time(g[W])",
    "ts_of_last_over_time(holes[W])",
    "sum(rate({job=\"j\"}[W]))",
    "histogram_quantile(0.9, sum by (le) (rate(h_bucket[W])))",
    "{job=\"j\"}",
    "timestamp(holes)",
    "absent(holes)",
];

/// Computed of kept samples or estimated, but there.
const ELSEWHERE: &[&str] = &[
    "irate(c_total[W])",
    "idelta(g[W])",
    "ts_of_max_over_time(g[W])",
    "stddev_over_time(g[W])",
    "quantile_over_time(0.5, g[W])",
    "mad_over_time(g[W])",
    "deriv(g[W])",
    "predict_linear(g[W], 60)",
];

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }
}

/// Series of a day: counters, some of which fall; gauges; one with holes and ends; buckets.
fn series() -> Vec<(Labels, Vec<(i64, f64)>)> {
    let mut dice = Dice(7);
    let mut all = Vec::new();
    let mut add = |pairs: &[(&str, &str)], samples: Vec<(i64, f64)>| {
        // What has no name any more is still told apart.
        let pairs = pairs.iter().copied().chain([("job", "j"), ("of", pairs[0].1)]);
        all.push((Labels::from_pairs(pairs).unwrap(), samples));
    };
    let times: Vec<i64> = (0..DAY / 15_000).map(|i| START + i * 15_000 + 4000).collect();
    let mut walk = |step: &mut dyn FnMut(&mut Dice, f64) -> f64| {
        let mut value = 1000.0;
        let mut next = |at: &i64| {
            let jitter = i64::try_from(dice.roll(40)).unwrap();
            value = step(&mut dice, value);
            (at + jitter, value)
        };
        times.iter().map(&mut next).collect::<Vec<(i64, f64)>>()
    };
    add(&[("__name__", "c_total")], walk(&mut |dice, v| v + dice.roll(50) as f64));
    let fall = |dice: &mut Dice, v: f64| if dice.roll(400) == 0 { 3.0 } else { v + dice.roll(50) as f64 };
    add(&[("__name__", "reset_total")], walk(&mut { fall }));
    add(&[("__name__", "restless_total")], walk(&mut |dice, _| dice.roll(50) as f64));
    add(
        &[("__name__", "g")],
        walk(&mut |dice, v| ((v * 100.0).round() + dice.roll(101) as f64 - 50.0) / 100.0),
    );
    let mut with_holes =
        walk(&mut |dice, v| if dice.roll(30) == 0 { f64::NAN } else { v.abs().min(9.0) + 1.0 });
    for hole in [1000..1040, 2000..2400, 5000..5001] {
        with_holes[hole.start].1 = stale_nan();
        with_holes[hole.start + 1..hole.end].iter_mut().for_each(|(at, _)| *at = 0);
    }
    with_holes.retain(|(at, _)| *at > 0);
    add(&[("__name__", "holes")], with_holes);
    for (i, le) in ["0.1", "1", "10", "+Inf"].iter().enumerate() {
        let more = i as u64 + 1;
        add(&[("__name__", "h_bucket"), ("le", le)], walk(&mut |dice, v| v + (dice.roll(9) * more) as f64));
    }
    all
}

/// A store with the series, downsampled to so many minutes if there are any.
fn store(dir: &std::path::Path, minutes: u64) -> Arc<EmbeddedStore> {
    let rule = DownsampleRule {
        tenant: None,
        matchers: Vec::new(),
        after: Duration::from_secs(30 * 86_400),
        resolution: Duration::from_secs(60 * minutes),
    };
    let downsampling = if minutes > 0 { vec![rule] } else { Vec::new() };
    let config = EmbeddedConfig { retention: None, downsampling, ..EmbeddedConfig::new(dir) };
    let clock = HandClock::at(Timestamp(START + 60 * DAY));
    EmbeddedStore::open(config, Arc::new(SystemDisk), clock).unwrap()
}

/// Two halves, so that a merge makes the day's part.
async fn fill(store: &EmbeddedStore) {
    let all = series();
    for late in [false, true] {
        let mut batch = WriteBatch::over(all.iter().map(|(labels, _)| labels.clone()).collect::<Vec<_>>());
        for (place, (_, samples)) in (0..).zip(&all) {
            let half = samples.iter().filter(|(at, _)| (*at > START + DAY / 2) == late);
            batch.samples.extend(half.map(|(at, value)| BatchSample {
                series: place,
                timestamp: Timestamp(*at),
                value: *value,
                start: 0,
            }));
        }
        store.append(&TenantId::anonymous(), batch).await.unwrap();
        store.flush().await.unwrap();
    }
}

type Points = std::collections::BTreeMap<(String, i64), f64>;

async fn ask(store: &Arc<EmbeddedStore>, query: &str, start: i64, step: i64) -> (Points, bool) {
    let store = Arc::<EmbeddedStore>::clone(store) as Arc<dyn Storage>;
    let engine = Engine::new(store, EngineOptions::default(), HandClock::at(Timestamp(0))).unwrap();
    let view = View::of(TenantId::anonymous());
    let (from, to) = (Timestamp(start), Timestamp(START + DAY));
    let answer = engine.range(&view, query, from, to, Millis(step), &QueryOptions::default()).await;
    let Answer { value: Value::Matrix(rows), infos, .. } = answer.unwrap() else { panic!("{query}") };
    let points = rows
        .iter()
        .flat_map(|row| row.floats.iter().map(|(at, value)| ((row.labels.to_string(), *at - START), *value)));
    let told = infos.iter().any(|info| info.contains("downsampled"));
    (points.collect(), told)
}

fn near(a: f64, b: f64, within: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= within * a.abs().max(b.abs()).max(1.0)
}

#[test]
fn downsampled_data_gives_what_the_raw_data_gives() {
    // Stores are opened outside of it, so that nothing happens in them by itself.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let open = |minutes: u64| {
        let store = store(&dir.path().join(minutes.to_string()), minutes);
        runtime.block_on(fill(&store));
        store
    };
    let raw = open(0);
    let raw_samples = runtime.block_on(raw.status()).unwrap().part_samples;
    for (minutes, fewer) in [(5_u64, 4), (60, 12)] {
        let thin = open(minutes);
        let samples = runtime.block_on(thin.status()).unwrap().part_samples;
        assert!(samples * fewer < raw_samples, "{minutes}m: {samples} of {raw_samples}");
        let resolution = i64::try_from(minutes).unwrap() * MINUTE;
        let asked = |query: &str, start: i64, step: i64| {
            runtime.block_on(async {
                (ask(&raw, query, start, step).await, ask(&thin, query, start, step).await)
            })
        };
        for window in [resolution, 3 * resolution, DAY] {
            let text = |query: &str| query.replace('W', &format!("{}m", window / MINUTE));
            for query in EXACT {
                let query = text(query);
                let ((expected, _), (found, told)) = asked(&query, START, resolution);
                assert!(!told, "{minutes}m {query}");
                assert!(
                    query.contains("absent(") || query.contains("absent_over") || !expected.is_empty(),
                    "{query}"
                );
                let keys = |points: &Points| points.keys().cloned().collect::<Vec<_>>();
                assert!(keys(&expected) == keys(&found), "{minutes}m {query}");
                let sums = ["sum", "avg", "restless", "reset_total[", "histogram"];
                let within = if sums.iter().any(|part| query.contains(part)) { 1e-9 } else { 0.0 };
                for (key, value) in &expected {
                    let other = found[key];
                    assert!(near(*value, other, within), "{minutes}m {query} {key:?}: {value} {other}");
                }
            }
            for query in ELSEWHERE {
                let query = text(query);
                let ((expected, _), (found, told)) = asked(&query, START, resolution);
                assert!(told, "{minutes}m {query}");
                let missing = expected.keys().find(|key| !found.contains_key(*key));
                assert!(missing.is_none(), "{minutes}m {query} {missing:?}");
            }
        }
        // Windows that lie anywhere and are of any length have something wherever the raw data has.
        for window in [MINUTE, 7 * MINUTE, 2 * resolution + 30_000] {
            let text = |query: &str| query.replace('W', &format!("{}s", window / 1000));
            for query in EXACT.iter().chain(ELSEWHERE).filter(|query| !query.contains("absent")) {
                let query = text(query);
                let ((expected, _), (found, told)) = asked(&query, START + 10 * MINUTE + 77_000, 13 * MINUTE);
                assert!(told || query.contains("present"), "{minutes}m {query}");
                let missing = expected.keys().filter(|key| !found.contains_key(*key)).count();
                // Where samples end, which of two scrapes is within a window is a matter of their jitter.
                assert!(
                    missing * 50 <= expected.len(),
                    "{minutes}m {query}: {missing} of {}",
                    expected.len()
                );
            }
        }
        // Neighbouring windows share what they cut: all of them together have all of it.
        let total = |points: &Points| points.values().sum::<f64>();
        for (query, within) in [("sum_over_time(g[7m])", 1e-3), ("count_over_time(c_total[7m])", 1e-3)] {
            let ((expected, _), (found, _)) = asked(query, START + 7 * MINUTE, 7 * MINUTE);
            let (expected, found) = (total(&expected), total(&found));
            assert!(near(expected, found, within), "{minutes}m {query}: {expected} {found}");
        }
        runtime.block_on(thin.close()).unwrap();
    }
    runtime.block_on(raw.close()).unwrap();
}
