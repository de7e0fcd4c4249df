//! Long random sequences over both stores that run in process.

use super::*;
use crate::{
    model::{MatchOp, Matcher, TimeRange},
    storage::{
        embedded::{EmbeddedConfig, EmbeddedStore, disk::SystemDisk},
        memory::MemoryStore,
    },
};

const QUERIES: &[&str] = &[
    "g",
    "c_total",
    "g offset 5m",
    "g offset -5m",
    "h",
    "{__name__=~\"g|c_total\"}",
    "rate(c_total[2m])",
    "rate(g[2m])",
    "increase(c_total[5m] offset 3m)",
    "irate(h[3m])",
    "rate(h[3m])",
    "sum(rate(h[5m]))",
    "sum by (j) (rate(c_total[1m]))",
    "avg(g)",
    "max by (j) (g) - min by (j) (g)",
    "stddev by (j) (g)",
    "quantile(0.7, g)",
    "quantile(1.7, g)",
    "topk(2, g)",
    "bottomk by (j) (1, g)",
    "count_values(\"v\", round(g, 10))",
    "count(g)",
    "limitk(2, g)",
    "limit_ratio(0.5, g)",
    "sum(sum by (j) (g))",
    "sum(topk(3, g))",
    "topk(1, sum by (j) (round(g, 100) > 20))",
    "topk(1, count_values(\"v\", round(g, 50)))",
    "stddev(sum by (i) (rate(c_total[1m])))",
    "sum(rate(c_total[5m]) / rate(g[5m]))",
    "quantile(scalar(g{i=\"1\"}) / 50, g)",
    "limit_ratio(scalar(g{i=\"1\"}) / 50, g)",
    "g / on(i, j) group_left c_total",
    "g > 50",
    "g > bool 50",
    "g and c_total",
    "g unless on(j) c_total{i=\"1\"}",
    "g or c_total",
    "abs(g) or c_total * 2",
    "-g",
    "sum_over_time(g[3m])",
    "avg_over_time(g[7m])",
    "max_over_time(g[20m])",
    "quantile_over_time(0.4, g[10m])",
    "stddev_over_time(g[10m])",
    "last_over_time(h[4m])",
    "changes(g[10m])",
    "resets(c_total[10m])",
    "deriv(g[10m])",
    "predict_linear(g[10m], 600)",
    "absent(g{i=\"3\"})",
    "absent_over_time(g{i=\"3\"}[10m])",
    "present_over_time(g[5m])",
    "max_over_time(rate(c_total[2m])[10m:1m])",
    "avg_over_time(sum by (j) (g)[15m:45s] offset 1m)",
    "sum_over_time((g + on(j) c_total{i=\"1\"})[30s:10s])",
    "sum_over_time({__name__=~\"g|c_total\"}[10m:2m])",
    "g @ 1700003000",
    "sum(c_total @ 1700003000) + g",
    "rate(c_total[5m] @ 1700004000) * time()",
    "time() - timestamp(g)",
    "hour() + minute(g)",
    "vector(time())",
    "scalar(g{i=\"1\"})",
    "histogram_quantile(0.9, rate(b_bucket[5m]))",
    "histogram_quantile(0.9, sum by (le) (rate(b_bucket[5m])))",
    "histogram_quantile(0.5, h)",
    "histogram_avg(rate(h[5m]))",
    "histogram_count(h) + histogram_sum(h)",
    "sort(g)",
    "sort_desc(rate(c_total[1m]))",
    "rate({__name__=~\"g|c_total\"}[2m])",
    "label_replace(g, \"i\", \"same\", \"\", \"\")",
    "g @ end()",
    "sum_over_time(g[3m] @ start())",
    "g - start()",
    "rate(c_total[5m] smoothed)",
    "increase(c_total[5m] anchored)",
    "g smoothed",
    "rate(c_total[step()+1m])",
    "g * range()",
    "clamp(g, 10, 60)",
    "1",
    "g + c_total",
    "sum without (i) (g * 1.1)",
    "h + h",
    "h * g",
    "sum(h)",
    "count(h > 3)",
    "info(g)",
    "mad_over_time(g[10m])",
];

/// How many sequences are tried; more if somebody wants to wait.
fn sequences(usual: u64) -> u64 {
    std::env::var("LUMINATE_TEST_SEQUENCES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

const STEPS: &[i64] = &[15_000, 60_000, 47_000, 420_000];

fn series() -> Vec<Labels> {
    let mut all = Vec::new();
    for i in 0..5_u32 {
        let (i, j) = (i.to_string(), (i % 2).to_string());
        for name in ["g", "c_total", "h"] {
            all.push(labels(&[("__name__", name), ("i", &i), ("j", &j)]));
        }
        for le in ["0.1", "1", "+Inf"] {
            all.push(labels(&[("__name__", "b_bucket"), ("i", &i), ("j", &j), ("le", le)]));
        }
    }
    all
}

fn histogram(dice: &mut Dice, level: u64) -> Arc<Histogram> {
    let buckets: Vec<u64> = (0..3).map(|_| level + dice.roll(3)).collect();
    let zero_count = dice.roll(3);
    let count = zero_count + buckets.iter().sum::<u64>();
    let mut before = 0;
    let differences = buckets.iter().map(|bucket| {
        let bucket = i64::try_from(*bucket).unwrap();
        let difference = bucket - before;
        before = bucket;
        difference
    });
    let positive = differences.collect();
    Arc::new(Histogram {
        schema: 0,
        zero_threshold: 0.001,
        #[expect(clippy::cast_precision_loss, reason = "any number will do")]
        sum: count as f64 * 1.3,
        reset_hint: ResetHint::Unknown,
        positive_spans: vec![Span { offset: i32::try_from(dice.roll(2)).unwrap(), length: 3 }],
        negative_spans: vec![],
        counts: Counts::Integer { count, zero_count, positive, negative: vec![] },
        custom_values: vec![],
    })
}

/// Samples of some series from one moment on.
fn batch(dice: &mut Dice, all: &[Labels], from: i64, samples: i64) -> WriteBatch {
    let mut batch = WriteBatch::over(all.to_vec());
    for (series, labels) in (0_u32..).zip(all) {
        if dice.roll(3) == 0 {
            continue;
        }
        let mut at = from + dice.between(0, 20_000);
        for i in 0..samples {
            at += dice.between(5_000, 60_000);
            let timestamp = Timestamp(at);
            let level = u64::try_from((at - T0) / 10_000 + i).unwrap_or(0) % 500;
            let name = labels.metric_name().unwrap_or_default();
            if name == "h" && dice.roll(12) > 0 {
                let histogram = histogram(dice, level);
                batch.histograms.push(BatchHistogram { series, timestamp, histogram, start: 0 });
                continue;
            }
            #[expect(clippy::cast_precision_loss, reason = "any number will do")]
            let value = match (name, dice.roll(25)) {
                (_, 0) => crate::model::stale_nan(),
                (_, 1) => f64::NAN,
                ("g", _) => dice.between(0, 1_000) as f64 / 9.0,
                _ => level as f64 * 1.7,
            };
            batch.samples.push(BatchSample { series, timestamp, value, start: 0 });
        }
    }
    batch
}

async fn sequence(pair: &Pair, seed: u64, turns: usize) {
    let mut dice = Dice(seed);
    let all = series();
    pair.write(batch(&mut dice, &all, T0, 120)).await;
    let mut now = T0 + 60 * MINUTE;
    for _ in 0..turns {
        match dice.roll(12) {
            // The newest.
            0 | 1 => {
                let few = batch(&mut dice, &all, now, 2);
                pair.write(few).await;
                now += MINUTE;
            }
            // Late.
            2 => {
                let from = dice.between(T0 - 10 * MINUTE, now);
                let one = vec![dice.one_of(&all).clone()];
                let few = batch(&mut dice, &one, from, 1);
                pair.write(few).await;
            }
            3 if dice.roll(4) == 0 => {
                let from = dice.between(T0, now);
                let to = from + dice.between(0, 5 * MINUTE);
                let range = TimeRange::new(Timestamp(from), Timestamp(to)).unwrap();
                let matcher = if dice.roll(2) == 0 {
                    Matcher::equal("i", &dice.roll(5).to_string())
                } else {
                    Matcher::new(MatchOp::Matches, "__name__", "g|h").unwrap()
                };
                pair.storage.delete(&tenant(), vec![vec![matcher]], range).await.unwrap();
            }
            4 if dice.roll(10) == 0 => pair.storage.clean_tombstones(&tenant()).await.unwrap(),
            5 if dice.roll(10) == 0 => pair.storage.flush().await.unwrap(),
            _ => {
                let step = *dice.one_of(STEPS);
                let text = *dice.one_of(QUERIES);
                let width = dice.one_of(&[10, 30, 60]) * MINUTE;
                let end = match dice.roll(4) {
                    0 => dice.between(T0, now),
                    _ => now,
                };
                // On the grid of others, mostly.
                let end = if dice.roll(8) == 0 { end } else { end.div_euclid(step) * step };
                // Again, and once more as it moves on.
                for moved in 0..dice.between(1, 3) {
                    let end = end + moved * step;
                    // What is an error is one for both.
                    let _ = pair.ask(text, end - width, end, step).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn with_and_without_it_is_the_same_over_the_store_in_memory() {
    let mut used = 0;
    for seed in 1..=sequences(6) {
        let config = match seed % 3 {
            0 => CacheConfig { max_bytes: 200_000, split: Millis(7 * MINUTE) },
            1 => CacheConfig { max_bytes: 64 << 20, split: Millis(0) },
            _ => CacheConfig { max_bytes: 64 << 20, split: Millis(11 * MINUTE) },
        };
        let store = MemoryStore::new(HandClock::at(Timestamp(T0)), None);
        let pair = Pair::over(store, config);
        sequence(&pair, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 400).await;
        let counters = pair.counters();
        used += read(&counters.hits) + read(&counters.partial);
        assert!(read(&counters.misses) > 0 && read(&counters.passed) > 0);
    }
    assert!(used > 500, "{used}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_and_without_it_is_the_same_over_our_own_engine() {
    let dir = tempfile::tempdir().unwrap();
    let mut used = 0;
    for seed in 1..=sequences(3) {
        let clock = HandClock::at(Timestamp(T0 + 100 * MINUTE));
        let config = EmbeddedConfig {
            segment_bytes: 1 << 16,
            ballast_bytes: 1 << 16,
            ..EmbeddedConfig::new(dir.path().join(seed.to_string()))
        };
        let store = EmbeddedStore::open(config, Arc::new(SystemDisk), clock).unwrap();
        let config = CacheConfig { max_bytes: 64 << 20, split: Millis(7 * MINUTE) };
        let pair = Pair::over(Arc::<EmbeddedStore>::clone(&store), config);
        sequence(&pair, seed.wrapping_mul(0xd1b5_4a32_d192_ed03), 300).await;
        used += read(&pair.counters().hits) + read(&pair.counters().partial);
        store.close().await.unwrap();
    }
    assert!(used > 150, "{used}");
}
