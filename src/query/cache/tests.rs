//! The cache held against none: random queries, writes and deletes, answers compared to the bit.

mod model;
mod moments;

use std::{fmt::Write, sync::Arc};

use super::*;
use crate::{
    clock::{Clock, HandClock, SystemClock},
    model::{
        Histogram, Labels, TenantId,
        histogram::{Counts, ResetHint, Span},
    },
    promql::{EngineOptions, Value},
    query::{QueryControls, QueryFailure, QueryLimits, QueryService, RangeQuery, Reader},
    storage::{BatchHistogram, BatchSample, WriteBatch, memory::MemoryStore},
};

const MINUTE: i64 = 60_000;
/// Not at the start of a minute or a day.
const T0: i64 = 1_700_000_007_000;

/// Numbers that look random, the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.roll(u64::try_from(to - from + 1).unwrap())).unwrap()
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.roll(all.len() as u64)).unwrap()]
    }
}

/// A service that keeps answers beside one that does not.
struct Pair {
    storage: Arc<dyn Storage>,
    kept: QueryService,
    plain: QueryService,
}

fn tenant() -> TenantId {
    TenantId::anonymous()
}

fn engine(storage: &Arc<dyn Storage>) -> Arc<Engine> {
    let options = EngineOptions { threads: 2, ..EngineOptions::default() };
    Arc::new(Engine::new(Arc::clone(storage), options, SystemClock::start()).unwrap())
}

fn memory() -> Arc<dyn Storage> {
    MemoryStore::new(HandClock::at(Timestamp(T0)), None)
}

impl Pair {
    fn over(storage: Arc<dyn Storage>, config: CacheConfig) -> Self {
        let clock: Arc<dyn Clock> = SystemClock::start();
        let engine = engine(&storage);
        let service = || {
            let limits = QueryLimits::default();
            QueryService::new(Arc::<Engine>::clone(&engine), Arc::clone(&storage), Arc::clone(&clock), limits)
        };
        let cache = RangeCache::new(Arc::<Engine>::clone(&engine), Arc::clone(&storage), config);
        Self { kept: service().with_cache(cache), plain: service(), storage }
    }

    fn new(max_bytes: usize, split: i64) -> Self {
        Self::over(memory(), CacheConfig { max_bytes, split: Millis(split) })
    }

    fn counters(&self) -> &CacheCounters {
        self.kept.cache().unwrap().counters()
    }

    /// What both answer; fails if it differs.
    async fn ask(&self, text: &str, start: i64, end: i64, step: i64) -> Result<Answer, String> {
        let query = query(text, start, end, step);
        let reader = Reader::of(tenant());
        let kept = self.kept.range(&reader, query.clone()).await.map(|answered| answered.answer);
        let plain = self.plain.range(&reader, query).await.map(|answered| answered.answer);
        let (kept_text, plain_text) = (shown(&kept), shown(&plain));
        assert!(
            kept_text == plain_text,
            "{text} from {start} to {end} by {step}\nkept:\n{}\nplain:\n{}",
            differences(&kept_text, &plain_text),
            differences(&plain_text, &kept_text),
        );
        kept.map_err(|e| e.to_string())
    }

    async fn write(&self, batch: WriteBatch) {
        self.storage.append(&tenant(), batch).await.unwrap();
    }

    /// Floats of one series.
    async fn floats(&self, labels: &Labels, samples: &[(i64, f64)]) {
        let mut batch = WriteBatch::over(vec![labels.clone()]);
        let sample = |(at, value): &(i64, f64)| BatchSample {
            series: 0,
            timestamp: Timestamp(*at),
            value: *value,
            start: 0,
        };
        batch.samples = samples.iter().map(sample).collect();
        self.write(batch).await;
    }
}

fn query(text: &str, start: i64, end: i64, step: i64) -> RangeQuery {
    RangeQuery {
        text: text.to_owned(),
        start: Timestamp(start),
        end: Timestamp(end),
        step: Millis(step),
        controls: QueryControls::default(),
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// An answer as text, floats by their bits.
fn shown(answer: &Result<Answer, QueryFailure>) -> String {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return format!("error: {error}"),
    };
    let mut text = String::new();
    for warning in &answer.warnings {
        writeln!(text, "warning: {warning}").unwrap();
    }
    for info in &answer.infos {
        writeln!(text, "info: {info}").unwrap();
    }
    writeln!(text, "samples: {}", answer.stats.total_queryable_samples).unwrap();
    let Value::Matrix(series) = &answer.value else { return format!("{text}{:?}", answer.value) };
    for series in series {
        writeln!(text, "{}", series.labels).unwrap();
        for (at, value) in &series.floats {
            writeln!(text, "  {} {value} {:016x}", at - T0, value.to_bits()).unwrap();
        }
        for (at, histogram) in &series.histograms {
            writeln!(text, "  {} {histogram:?}", at - T0).unwrap();
        }
    }
    text
}

/// The first lines that are in one text only.
fn differences(of: &str, other: &str) -> String {
    let there: std::collections::HashSet<&str> = other.lines().collect();
    let lines: Vec<&str> = of.lines().filter(|line| !there.contains(line)).take(12).collect();
    lines.join("\n")
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}
