//! When nothing is pushed down, and when it pays to.

use std::sync::atomic::Ordering::Relaxed;

use luminate::{
    model::{
        Histogram, Labels, Matcher, Millis, TenantId, TimeRange, Timestamp,
        histogram::{Counts, ResetHint},
        stale_nan,
    },
    promql::{Features, QueryOptions},
    storage::{BatchHistogram, SeriesSamples, Storage, View, WriteBatch, clickhouse::config::Pushdown},
};

use super::{
    front::Front,
    pushdown::{Databases, When, ask, assert_alike, same},
};

const FROM: i64 = 1_700_000_000_000;
const RANGE: When = When { start: FROM + 600_000, end: FROM + 3_600_000, step: 300_000 };

fn labels(number: usize) -> Labels {
    let (name, job) = (["m", "jobs_total"][number % 2], ["a", "b", "c"][number % 3]);
    Labels::from_pairs([("__name__", name), ("job", job), ("n", &number.to_string())]).unwrap()
}

/// An hour of a few series of two metrics.
fn filled(front: Front, series: usize) -> Databases {
    let databases = Databases::over(front);
    let all: Vec<(Labels, SeriesSamples)> = (0..series)
        .map(|number| {
            let mut samples = SeriesSamples::default();
            for i in 0..20 {
                samples.push(FROM + i * 180_000, (number as f64).sin() * i as f64, 0);
            }
            (labels(number), samples)
        })
        .collect();
    databases.append(&all);
    databases
}

/// What a mode takes of a query, which it answers as if it took nothing.
fn taken(databases: &Databases, mode: usize, text: &str) -> u64 {
    let engines = databases.engines();
    let before = databases.stores[mode].pushdown_counters().taken.load(Relaxed);
    let seen = ask(databases, &engines[mode], text, RANGE).unwrap();
    let wanted = ask(databases, &engines[0], text, RANGE).unwrap();
    assert_alike(&seen, &wanted, same, text);
    databases.stores[mode].pushdown_counters().taken.load(Relaxed) - before
}

const AUTO: usize = 1;
const EXACT: usize = 2;

#[test]
fn auto_takes_what_is_the_same_and_pays() {
    let Some(front) = Front::start() else { return };
    let databases = filled(front, 4_500);
    for (text, expected) in [
        ("max_over_time(m[10m])", 1),
        ("count by (job) (max_over_time(m[10m]))", 1),
        ("max by (job) (m)", 1),
        ("sum by (job) (count_over_time(m[10m]))", 1),
        ("min(changes(jobs_total[10m])) / count by () (jobs_total)", 2),
        // Not the same to the bit.
        ("sum by (job) (rate(jobs_total[10m]))", 0),
        ("avg_over_time(m[10m])", 0),
        // Few samples.
        (r#"max_over_time(m{n=~"1.*"}[10m])"#, 0),
    ] {
        assert_eq!(taken(&databases, AUTO, text), expected, "{text}");
    }
    assert_eq!(databases.taken(Pushdown::Off), 0);
}

#[test]
fn chance_does_not_decide_between_samples_at_one_time() {
    let Some(front) = Front::start() else { return };
    let databases = filled(front, 12);
    let write = |number: usize, value: f64| {
        let mut samples = SeriesSamples::default();
        samples.push(FROM + 1_195_000, value, 0);
        databases.append(&[(labels(number), samples)]);
    };
    let of = |text: &str| taken(&databases, EXACT, text);
    write(1, -0.0);
    assert_eq!((of("jobs_total"), of("last_over_time(jobs_total[10m])")), (1, 1));
    write(1, 0.0);
    for text in ["jobs_total", "last_over_time(jobs_total[10m])", "idelta(jobs_total[10m])"] {
        assert_eq!(of(text), 0, "{text}");
    }
    assert_eq!((of("changes(jobs_total[10m])"), of("count(jobs_total)")), (1, 0));
    write(2, f64::NAN);
    write(4, stale_nan());
    assert_eq!((of("m"), of("last_over_time(m[10m])")), (1, 1));
    write(4, f64::NAN);
    assert_eq!((of("m"), of("last_over_time(m[10m])")), (0, 1));
}

#[test]
fn what_rows_cannot_tell_is_read() {
    let Some(front) = Front::start() else { return };
    let databases = filled(front, 12);
    let (max, min) = ("max_over_time(m[10m])", "min_over_time(jobs_total[10m])");
    assert_eq!((taken(&databases, EXACT, max), taken(&databases, EXACT, min)), (1, 1));

    // Which of two zeros comes first.
    let mut zeros = SeriesSamples::default();
    zeros.push(FROM + 900_000, -0.0, 0);
    zeros.push(FROM + 901_000, 0.0, 0);
    databases.append(&[(labels(1), zeros.clone())]);
    assert_eq!((taken(&databases, EXACT, max), taken(&databases, EXACT, min)), (1, 0));
    assert_eq!(taken(&databases, EXACT, "changes(jobs_total[10m])"), 1);
    assert_eq!(taken(&databases, EXACT, "min by (job) (last_over_time(jobs_total[1s]))"), 1);
    assert_eq!(taken(&databases, EXACT, "min by (job) (last_over_time(jobs_total[10m]))"), 1);
    let mut zero = SeriesSamples::default();
    zero.push(FROM + 1_200_000, -0.0, 0);
    databases.append(&[(labels(3), zero)]);
    assert_eq!(taken(&databases, EXACT, "min by (job) (last_over_time(jobs_total[1s]))"), 0);

    // What is deleted, in part and whole.
    let (tenant, range) = (TenantId::anonymous(), |from: i64, to: i64| {
        TimeRange::new(Timestamp(FROM + from), Timestamp(FROM + to)).unwrap()
    });
    let delete = |number: &str, range: TimeRange| {
        let matchers = vec![vec![Matcher::equal("n", number)]];
        databases.runtime.block_on(databases.stores[EXACT].delete(&tenant, matchers, range)).unwrap();
    };
    delete("2", range(1_000_000, 2_000_000));
    assert_eq!(taken(&databases, EXACT, max), 0);
    assert_eq!(taken(&databases, EXACT, "max_over_time(jobs_total{job=\"a\"}[10m])"), 0);
    assert_eq!(taken(&databases, EXACT, "count_over_time(jobs_total[10m])"), 1);
    delete("5", TimeRange::ALL);
    assert_eq!(taken(&databases, EXACT, "count(count_over_time(jobs_total[10m]))"), 1);

    // A histogram among floats.
    let mut batch = WriteBatch::over(vec![labels(7)]);
    let histogram = Histogram {
        schema: 0,
        zero_threshold: 0.0,
        sum: 1.0,
        reset_hint: ResetHint::Unknown,
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        counts: Counts::Integer { count: 1, zero_count: 1, positive: Vec::new(), negative: Vec::new() },
        custom_values: Vec::new(),
    };
    batch.histograms.push(BatchHistogram {
        series: 0,
        timestamp: Timestamp(FROM + 3_500_000),
        histogram: histogram.into(),
        start: 0,
    });
    databases.runtime.block_on(databases.stores[0].append(&tenant, batch)).unwrap();
    assert_eq!(taken(&databases, EXACT, "count(count_over_time(jobs_total[10m]))"), 0);
}

#[test]
fn what_needs_the_samples_is_not_offered() {
    let Some(front) = Front::start() else { return };
    let databases = filled(front, 12);
    let engine = &databases.engines()[EXACT];
    let starts = Features { use_start_timestamps: true, ..Features::default() };
    let (tenant, at) = (View::of(TenantId::anonymous()), Timestamp(FROM + 3_600_000));
    for options in [
        QueryOptions { per_step_stats: true, ..QueryOptions::default() },
        QueryOptions { features: Some(starts), ..QueryOptions::default() },
    ] {
        let text = "max_over_time(m[10m])";
        databases.runtime.block_on(engine.instant(&tenant, text, at, &options)).unwrap();
        let answer = engine.range(&tenant, text, Timestamp(FROM), at, Millis(60_000), &options);
        databases.runtime.block_on(answer).unwrap();
    }
    for text in ["timestamp(m)", "first_over_time(m[10m])", "m[10m]", "max_over_time(m[10m] smoothed)"] {
        let _ = databases.runtime.block_on(engine.instant(&tenant, text, at, &QueryOptions::default()));
    }
    // Two nodes would have to share one selection.
    let both = "max_over_time(m[10m]) - min_over_time(m[10m])";
    databases.runtime.block_on(engine.instant(&tenant, both, at, &QueryOptions::default())).unwrap();
    let counters = databases.stores[EXACT].pushdown_counters();
    assert_eq!((counters.taken.load(Relaxed), counters.declined.load(Relaxed)), (0, 0));
}

#[test]
fn a_statement_that_fails_is_no_failed_query() {
    let Some(front) = Front::start_own() else { return };
    let databases = filled(front, 12);
    let counters = databases.stores[EXACT].pushdown_counters();
    assert_eq!(taken(&databases, EXACT, "max_over_time(m[10m])"), 1);
    // MEMORY_LIMIT_EXCEEDED
    for (fallbacks, text) in [(1, "max_over_time(m[10m])"), (2, "count(max_over_time(m[10m]))")] {
        databases.front.fault("fail=241&match=timeSeries&times=1");
        assert_eq!(taken(&databases, EXACT, text), 0);
        assert_eq!(counters.fallbacks.load(Relaxed), fallbacks);
    }
    databases.front.heal();
    assert_eq!(taken(&databases, EXACT, "max_over_time(m[10m])"), 1);
}
