//! The same data as it was written and downsampled: what queries of both give.
//!
//! Windows whose edges are multiples of the resolution give the same, to the bit but for what rounding of sums leaves.
//! Others give estimates, but something wherever the raw data does, and the answer says so. So it is after deletes, of which
//! some come before and some after, when the store was opened again, and with samples that come late: of those nobody
//! knows what they came after, so only what does not depend on that is the same.

use std::{sync::Arc, time::Duration};

use luminate::{
    clock::HandClock,
    model::{Labels, Matcher, Millis, TenantId, TimeRange, Timestamp, stale_nan},
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
    "rate(c_total[W] anchored)",
    "increase(reset_total[W] anchored)",
    "delta(g[W] anchored)",
    "increase(c_total[W] smoothed)",
    "rate(reset_total[W] smoothed)",
    "delta(g[W] smoothed)",
    "g smoothed",
];

/// Exact at aligned windows that have samples: of others these say what was between the last two before them.
const ANCHORED_EVENTS: &[&str] =
    &["changes(restless_total[W] anchored)", "resets(restless_total[W] anchored)"];

/// Exact at aligned windows, too, wherever those are moved to: O is an aligned time, R the resolution.
const MOVED: &[&str] = &[
    "increase(reset_total[W] offset R)",
    "rate(c_total[W] offset -R)",
    "sum_over_time(g[W] @ O)",
    "rate(c_total[W] @ O offset R)",
    "c_total @ O",
    "g offset R",
    "max_over_time(rate(c_total[R])[W:R])",
    "avg_over_time(g[R:R] offset R)",
];

/// Exact whatever order the samples of a gap came in.
const IN_ANY_ORDER: &[&str] = &[
    "count_over_time({job=\"j\"}[W])",
    "sum_over_time(g[W])",
    "avg_over_time({job=\"j\"}[W])",
    "min_over_time({job=\"j\"}[W])",
    "max_over_time({job=\"j\"}[W])",
    "first_over_time({job=\"j\"}[W])",
    "last_over_time({job=\"j\"}[W])",
    "present_over_time({job=\"j\"}[W])",
    "{job=\"j\"}",
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
fn series(seed: u64) -> Vec<(Labels, Vec<(i64, f64)>)> {
    let mut dice = Dice(seed);
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

/// A range of times.
fn range(from: i64, to: i64) -> TimeRange {
    TimeRange::new(Timestamp(from), Timestamp(to)).unwrap()
}

async fn delete(store: &EmbeddedStore, name: &str, range: TimeRange) {
    let sets = vec![vec![Matcher::equal("__name__", name)]];
    store.delete(&TenantId::anonymous(), sets, range).await.unwrap();
}

async fn write(store: &EmbeddedStore, all: &[(Labels, Vec<(i64, f64)>)], of: impl Fn(i64) -> bool) {
    let mut batch = WriteBatch::over(all.iter().map(|(labels, _)| labels.clone()).collect::<Vec<_>>());
    for (place, (_, samples)) in (0..).zip(all) {
        batch.samples.extend(samples.iter().filter(|(at, _)| of(*at)).map(|(at, value)| BatchSample {
            series: place,
            timestamp: Timestamp(*at),
            value: *value,
            start: 0,
        }));
    }
    store.append(&TenantId::anonymous(), batch).await.unwrap();
}

/// Two halves, so that a merge makes the day's part; between them, some of it is deleted.
async fn fill(store: &EmbeddedStore, seed: u64) {
    let all = series(seed);
    let mut dice = Dice(seed + 1);
    write(store, &all, |at| at <= START + DAY / 2).await;
    store.flush().await.unwrap();
    for name in ["c_total", "g", "g", "reset_total", "holes"] {
        // From a moment between two samples to hours.
        let from = START + i64::try_from(dice.roll(86_000_000)).unwrap();
        let length = [20, 90_000, 600_000, 9_000_000][usize::try_from(dice.roll(4)).unwrap()];
        delete(store, name, range(from, from + length)).await;
    }
    write(store, &all, |at| at > START + DAY / 2).await;
    store.flush().await.unwrap();
}

/// Whole windows of a few hours.
async fn delete_windows(store: &EmbeddedStore, seed: u64) {
    let mut dice = Dice(seed + 2);
    for name in ["c_total", "g", "restless_total"] {
        let hour = i64::try_from(dice.roll(20)).unwrap();
        let from = START + hour * 60 * MINUTE;
        delete(store, name, range(from + 1, from + (1 + hour % 3) * 60 * MINUTE)).await;
    }
}

/// Some more samples between those of the gauge and the counter.
async fn write_late(store: &EmbeddedStore, seed: u64) {
    let mut dice = Dice(seed + 3);
    let mut all = series(seed);
    all.retain(|(labels, _)| ["c_total", "g"].contains(&labels.get("__name__").unwrap_or_default()));
    for (_, samples) in &mut all {
        let mut at = START + 1;
        samples.clear();
        while at < START + DAY {
            samples.push((at, dice.roll(3000) as f64 / 8.0));
            at += 60_000 + i64::try_from(dice.roll(3_600_000)).unwrap();
        }
    }
    write(store, &all, |_| true).await;
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

/// The stores that are compared.
struct Both {
    runtime: tokio::runtime::Runtime,
    raw: Arc<EmbeddedStore>,
    thin: Arc<EmbeddedStore>,
    resolution: i64,
    /// Of what, for a person.
    what: String,
}

impl Both {
    fn each<F: Future<Output = ()>>(&self, what: impl Fn(Arc<EmbeddedStore>) -> F) {
        for store in [&self.raw, &self.thin] {
            self.runtime.block_on(what(Arc::clone(store)));
        }
    }

    fn asked(&self, query: &str, start: i64, step: i64) -> ((Points, bool), (Points, bool)) {
        self.runtime.block_on(async {
            (ask(&self.raw, query, start, step).await, ask(&self.thin, query, start, step).await)
        })
    }

    fn text(&self, query: &str, window: i64) -> String {
        let seconds = |millis: i64| format!("{}s", millis / 1000);
        let at = (START + DAY / 2) / 1000;
        let moved = query.replace('W', &seconds(window)).replace("@ O", &format!("@ {at}"));
        moved.replace('R', &seconds(self.resolution))
    }

    /// At aligned steps and windows both give the same.
    fn are_the_same(&self, queries: &[&str], is_told: bool) {
        for window in [self.resolution, 3 * self.resolution, DAY] {
            for query in queries {
                let query = self.text(query, window);
                let ((expected, _), (found, told)) = self.asked(&query, START, self.resolution);
                assert!(is_told || !told, "{} {query}", self.what);
                let may_be_empty = ["absent", "@"].iter().any(|part| query.contains(part));
                assert!(may_be_empty || !expected.is_empty(), "{query}");
                let keys = |points: &Points| points.keys().cloned().collect::<Vec<_>>();
                assert!(keys(&expected) == keys(&found), "{} {query}", self.what);
                let sums = ["sum", "avg", "restless", "reset_total[", "histogram", "smoothed", "rate("];
                let within = if sums.iter().any(|part| query.contains(part)) { 1e-9 } else { 0.0 };
                for (key, value) in &expected {
                    let other = found[key];
                    assert!(near(*value, other, within), "{} {query} {key:?}: {value} {other}", self.what);
                }
            }
        }
    }

    /// What is not exact is there, and said to be what it is.
    fn are_both_there(&self, queries: &[&str]) {
        for window in [self.resolution, 3 * self.resolution, DAY] {
            for query in queries {
                let query = self.text(query, window);
                let ((expected, _), (found, told)) = self.asked(&query, START, self.resolution);
                assert!(told, "{} {query}", self.what);
                let missing = expected.keys().find(|key| !found.contains_key(*key));
                assert!(missing.is_none(), "{} {query} {missing:?}", self.what);
            }
        }
    }

    /// Windows that lie anywhere and are of any length have something wherever the raw data has.
    fn are_both_there_anywhere(&self) {
        for window in [MINUTE, 7 * MINUTE, 2 * self.resolution + 30_000] {
            for query in EXACT.iter().chain(ELSEWHERE).filter(|query| !query.contains("absent")) {
                let query = self.text(query, window);
                let ((expected, _), (found, told)) =
                    self.asked(&query, START + 10 * MINUTE + 77_000, 13 * MINUTE);
                assert!(told || query.contains("present"), "{} {query}", self.what);
                let missing = expected.keys().filter(|key| !found.contains_key(*key)).count();
                // Where samples end, which of two scrapes is within a window is a matter of their jitter.
                assert!(
                    missing * 50 <= expected.len(),
                    "{} {query}: {missing} of {}",
                    self.what,
                    expected.len()
                );
            }
        }
        // Neighbouring windows share what they cut: all of them together have all of it.
        let total = |points: &Points| points.values().sum::<f64>();
        for (query, within) in [("sum_over_time(g[7m])", 1e-3), ("count_over_time(c_total[7m])", 1e-3)] {
            let ((expected, _), (found, _)) = self.asked(query, START + 7 * MINUTE, 7 * MINUTE);
            let (expected, found) = (total(&expected), total(&found));
            assert!(near(expected, found, within), "{} {query}: {expected} {found}", self.what);
        }
    }
}

#[test]
fn downsampled_data_gives_what_the_raw_data_gives() {
    for (seed, minutes, fewer) in [(7, 5_u64, 4), (11, 60, 12)] {
        // Stores are opened outside of it, so that nothing happens in them by itself.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let open = |minutes: u64| store(&dir.path().join(minutes.to_string()), minutes);
        let resolution = i64::try_from(minutes).unwrap() * MINUTE;
        let what = format!("seed {seed}, {minutes}m:");
        let mut both = Both { runtime, raw: open(0), thin: open(minutes), resolution, what };
        both.each(|store| async move { fill(&store, seed).await });
        let samples = |both: &Both, store: &Arc<EmbeddedStore>| {
            both.runtime.block_on(store.status()).unwrap().part_samples
        };
        let (raw, thin) = (samples(&both, &both.raw), samples(&both, &both.thin));
        assert!(thin * fewer < raw, "{} {thin} of {raw}", both.what);
        both.are_the_same(EXACT, false);
        both.are_the_same(MOVED, false);
        both.are_the_same(ANCHORED_EVENTS, false);
        both.are_both_there(ELSEWHERE);
        both.are_both_there_anywhere();

        both.what.push_str(" with more deleted:");
        both.each(|store| async move { delete_windows(&store, seed).await });
        both.are_the_same(EXACT, false);
        both.runtime.block_on(both.thin.close()).unwrap();
        both.thin = open(minutes);
        both.what.push_str(" opened again:");
        both.are_the_same(IN_ANY_ORDER, false);
        both.are_the_same(MOVED, false);

        both.what.push_str(" with late samples:");
        both.each(|store| async move { write_late(&store, seed).await });
        both.are_the_same(IN_ANY_ORDER, true);
        both.are_both_there(&["rate(c_total[W])", "changes(g[W])", "deriv(g[W])"]);
        both.each(|store| async move { store.flush().await.unwrap() });
        both.runtime.block_on(both.thin.close()).unwrap();
        both.thin = open(minutes);
        both.are_the_same(IN_ANY_ORDER, true);
        both.runtime.block_on(both.thin.close()).unwrap();
        both.runtime.block_on(both.raw.close()).unwrap();
    }
}

/// What the parts of a store take.
fn bytes_of_parts(dir: &std::path::Path) -> u64 {
    let entries = |dir: &std::path::Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = entries(&dir.join("parts")).flat_map(|day| entries(&day).collect::<Vec<_>>());
    files.map(|file| file.metadata().unwrap().len()).sum()
}

/// Prints what it saves: `cargo test --test it downsampling -- --nocapture`.
#[test]
fn fewer_samples_take_less_room() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut all = Vec::new();
    for i in 0..5 {
        for (labels, samples) in series(100 + i) {
            let i = i.to_string();
            let more = labels.iter().chain([("instance", i.as_str())]);
            all.push((Labels::from_pairs(more).unwrap(), samples));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let samples: usize = all.iter().map(|(_, samples)| samples.len()).sum();
    let mut before = None;
    for minutes in [0, 5, 60] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), minutes);
        let (asked, bytes) = runtime.block_on(async {
            write(&store, &all, |at| at <= START + DAY / 2).await;
            store.flush().await.unwrap();
            write(&store, &all, |at| at > START + DAY / 2).await;
            store.flush().await.unwrap();
            let began = std::time::Instant::now();
            for _ in 0..5 {
                ask(&store, "sum(rate({job=\"j\"}[1h]))", START, 60 * MINUTE).await;
            }
            (began.elapsed() / 5, bytes_of_parts(dir.path()))
        });
        let per_sample = bytes as f64 / samples as f64;
        println!("{minutes:2} minutes: {bytes} bytes, {per_sample:.3} a sample; a query of a day {asked:?}");
        let (fewer, of) = (if minutes == 60 { 8 } else { 2 }, before.unwrap_or(u64::MAX));
        assert!(bytes * fewer < of || minutes == 0, "{bytes} of {of}");
        before = before.or(Some(bytes));
        runtime.block_on(store.close()).unwrap();
    }
}
