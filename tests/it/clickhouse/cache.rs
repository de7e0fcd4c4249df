//! Answers that are kept, over samples that others write: what one store takes, the next answer of another has.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use luminate::{
    clock::{Clock, SystemClock},
    model::{
        Histogram, Labels, Millis, TenantId, TimeRange, Timestamp,
        histogram::{Counts, ResetHint},
    },
    promql::{Engine, EngineOptions, Value},
    query::{
        QueryControls, QueryLimits, QueryService, RangeQuery, Reader,
        cache::{CacheConfig, RangeCache, second::SharedShelf},
    },
    storage::{
        BatchHistogram, BatchSample, Changes, Storage, WriteBatch,
        clickhouse::{ClickHouseConfig, ClickHouseStore, config::Pushdown},
    },
};
use tokio::runtime::Runtime;

use super::front::Front;

pub(crate) use super::read::labels;

pub(crate) const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;

/// Steps of the queries, of a minute each.
pub(crate) const STEPS: u64 = 121;

/// Two gateways' stores, each with a service that keeps answers, and one that does not.
pub(crate) struct Gateways {
    front: Front,
    pub(crate) runtime: Runtime,
    config: ClickHouseConfig,
    stores: Vec<Arc<dyn Storage>>,
    kept: Vec<QueryService>,
    pub(crate) plain: QueryService,
    /// The queries' first step.
    pub(crate) start: i64,
}

fn tenant() -> TenantId {
    TenantId::anonymous()
}

impl Gateways {
    pub(crate) fn start() -> Option<Self> {
        let front = Front::start()?;
        let runtime = Runtime::new().unwrap();
        let config = ClickHouseConfig {
            database: front.database.clone(),
            retention: None,
            ..ClickHouseConfig::new(&front.url)
        };
        let stores: Vec<_> = (0..2).map(|_| open(&runtime, &config)).collect();
        runtime.block_on(stores[0].apply_schema()).unwrap();
        let stores: Vec<Arc<dyn Storage>> = stores.into_iter().map(|store| store as _).collect();
        let kept = stores.iter().map(|store| service(&runtime, store, Some(None))).collect();
        let plain = service(&runtime, &stores[0], None);
        let start = SystemClock::start().now().0 - 3 * 60 * MINUTE;
        Some(Self { front, runtime, config, stores, kept, plain, start })
    }

    pub(crate) fn write(&self, by: usize, series: &Labels, samples: &[(i64, f64)]) {
        let mut batch = WriteBatch::over(vec![series.clone()]);
        let sample = |(at, value): &(i64, f64)| BatchSample {
            series: 0,
            timestamp: Timestamp(*at),
            value: *value,
            start: 0,
        };
        batch.samples = samples.iter().map(sample).collect();
        self.runtime.block_on(self.stores[by].append(&tenant(), batch)).unwrap();
    }

    /// Samples of some series every 15 seconds, from ten minutes before the queries on.
    pub(crate) fn fill(&self) {
        for name in ["a", "b", "c"] {
            let at = |i: i64| self.start - 10 * MINUTE + i * 15_000;
            let samples: Vec<(i64, f64)> = (0..520).map(|i| (at(i), (i * i % 97) as f64)).collect();
            self.write(0, &labels(&[("__name__", "m"), ("x", name)]), &samples);
        }
    }

    fn delete(&self, by: usize, from: i64, to: i64) {
        let range = TimeRange::new(Timestamp(from), Timestamp(to)).unwrap();
        self.runtime.block_on(self.stores[by].delete(&tenant(), vec![vec![]], range)).unwrap();
    }

    /// As if so much time went by that nothing is on its way any more. What is kept must have seen all there is.
    pub(crate) fn settle(&self) {
        self.front.sql(&format!("TRUNCATE TABLE {}.changes", self.front.database));
    }

    /// What a service answers, and how many steps it evaluated for it.
    fn ask(&self, by: usize, text: &str) -> u64 {
        let evaluated = || self.kept[by].cache().unwrap().counters().evaluated_steps.load(Relaxed);
        let before = evaluated();
        assert_eq!(self.answer(&self.kept[by], text), self.answer(&self.plain, text), "{text}");
        evaluated() - before
    }

    /// An answer as text, to the bit.
    pub(crate) fn answer(&self, service: &QueryService, text: &str) -> Vec<String> {
        let query = RangeQuery {
            text: text.to_owned(),
            start: Timestamp(self.start),
            end: Timestamp(self.start + 120 * MINUTE),
            step: Millis(MINUTE),
            controls: QueryControls::default(),
        };
        let answered = self.runtime.block_on(service.range(&Reader::of(tenant()), query)).unwrap();
        let Value::Matrix(series) = answered.answer.value else { panic!("{text} is a matrix") };
        let floats = |all: &[(i64, f64)]| -> Vec<(i64, u64)> {
            all.iter().map(|(at, value)| (*at, value.to_bits())).collect()
        };
        series.iter().map(|s| format!("{} {:?} {:?}", s.labels, floats(&s.floats), s.histograms)).collect()
    }

    /// A gateway that has nothing yet.
    pub(crate) fn gateway(&self, shelf: Option<Arc<dyn SharedShelf>>) -> QueryService {
        service(&self.runtime, &self.stores[0], Some(shelf))
    }

    fn changes(&self, store: &dyn Storage) -> Option<Changes> {
        self.runtime.block_on(store.changes(&tenant(), TimeRange::ALL)).unwrap()
    }
}

fn open(runtime: &Runtime, config: &ClickHouseConfig) -> Arc<ClickHouseStore> {
    let _inside = runtime.enter();
    ClickHouseStore::open(config.clone(), SystemClock::start()).unwrap()
}

/// A service that keeps answers, perhaps for others, too; or none.
fn service(
    runtime: &Runtime,
    store: &Arc<dyn Storage>,
    keeps: Option<Option<Arc<dyn SharedShelf>>>,
) -> QueryService {
    let _inside = runtime.enter();
    let clock: Arc<dyn Clock> = SystemClock::start();
    let options = EngineOptions { threads: 2, ..EngineOptions::default() };
    let engine = Arc::new(Engine::new(Arc::clone(store), options, SystemClock::start()).unwrap());
    let config = CacheConfig { max_bytes: if keeps.is_some() { 64 << 20 } else { 0 }, split: Millis(0) };
    let mut cache = RangeCache::new(Arc::<Engine>::clone(&engine), Arc::clone(store), config);
    if let Some(shelf) = keeps.flatten() {
        cache = cache.with_second(shelf);
    }
    QueryService::new(engine, Arc::clone(store), clock, QueryLimits::default()).with_cache(cache)
}

/// Queries whose steps do not depend on each other.
const QUERIES: [&str; 3] = ["m", "avg_over_time(m[5m])", "abs(m) > 3"];

/// And such as are put together only if they are made of the same, or by the server.
const ALL: [&str; 6] = [
    "m",
    "rate(m[5m])",
    "sum by (x) (rate(m[5m]))",
    "quantile(0.5, m)",
    "sum(m)",
    "max_over_time(sum(m)[10m:1m])",
];

#[test]
fn what_one_gateway_writes_or_deletes_the_other_answers_at_once() {
    let Some(g) = Gateways::start() else { return };
    g.fill();
    // Just written, and so on its way for all that anybody knows.
    assert_eq!((g.ask(1, "m"), g.ask(1, "m")), (STEPS, STEPS));
    g.settle();
    for text in QUERIES {
        assert_eq!(g.ask(1, text), if text == "m" { 0 } else { STEPS }, "{text}");
        assert_eq!(g.ask(1, text), 0, "{text}");
    }
    // A late sample by another: its minute and the five in which it is looked back at.
    let late = g.start + 60 * MINUTE + 1;
    if g.front.is_ours() {
        // The rows are there, and are sent again since nobody heard of it.
        g.front.fault("fail=210:after&match=INSERT%20INTO%20samples&times=1");
    }
    g.write(0, &labels(&[("__name__", "m"), ("x", "a")]), &[(late, 1e9)]);
    for text in QUERIES {
        assert!((1..=7).contains(&g.ask(1, text)), "{text}");
        // It may still be on its way for those who were quicker.
        assert!((1..=7).contains(&g.ask(1, text)), "{text}");
    }
    g.settle();
    assert_eq!(g.ask(1, "m"), 0);
    // Nothing that is asked for, and nobody else's.
    g.write(0, &labels(&[("__name__", "m")]), &[(g.start - 60 * MINUTE, 1.0), (g.start + 150 * MINUTE, 2.0)]);
    let mut batch = WriteBatch::over(vec![labels(&[("__name__", "m")])]);
    batch.samples.push(BatchSample { series: 0, timestamp: Timestamp(late), value: 1.0, start: 0 });
    g.runtime.block_on(g.stores[0].append(&TenantId::new("b").unwrap(), batch)).unwrap();
    assert_eq!(g.ask(1, "m"), 0);
    // What is deleted, and what is written there before and after it is cleaned.
    g.delete(0, g.start + 30 * MINUTE, g.start + 40 * MINUTE);
    assert!((10..=17).contains(&g.ask(1, "m")));
    g.settle();
    assert_eq!(g.ask(1, "m"), 0);
    g.runtime.block_on(g.stores[0].clean_tombstones(&tenant())).unwrap();
    assert!((10..=17).contains(&g.ask(1, "m")));
    g.settle();
    g.write(0, &labels(&[("__name__", "m"), ("x", "new")]), &[(g.start + 35 * MINUTE, 5.0)]);
    assert!((1..=7).contains(&g.ask(1, "m")));
    g.settle();
    let histogram = Histogram {
        schema: 0,
        zero_threshold: 0.001,
        sum: 1.0,
        reset_hint: ResetHint::Unknown,
        positive_spans: vec![],
        negative_spans: vec![],
        counts: Counts::Float { count: 4.0, zero_count: 4.0, positive: vec![], negative: vec![] },
        custom_values: vec![],
    };
    let mut batch = WriteBatch::over(vec![labels(&[("__name__", "m"), ("x", "h")])]);
    let timestamp = Timestamp(g.start + 90 * MINUTE);
    batch.histograms.push(BatchHistogram { series: 0, timestamp, histogram: Arc::new(histogram), start: 0 });
    g.runtime.block_on(g.stores[0].append(&tenant(), batch)).unwrap();
    assert!((1..=7).contains(&g.ask(1, "m")));
}

#[test]
fn whatever_two_gateways_do_kept_answers_are_those_of_none_kept() {
    let Some(g) = Gateways::start() else { return };
    g.fill();
    g.settle();
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = |sides: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        i64::try_from((dice >> 11) % sides).unwrap()
    };
    let (mut evaluated, mut asked) = (0, 0);
    for turn in 0..40 {
        let by = usize::try_from(roll(2)).unwrap();
        let at = g.start + roll(120 * 60_000);
        match roll(8) {
            0 => g.delete(by, at, at + roll(300_000)),
            1 => g.runtime.block_on(g.stores[by].clean_tombstones(&tenant())).unwrap(),
            2 | 3 => {
                for by in 0..2 {
                    ALL.iter().for_each(|text| _ = g.ask(by, text));
                }
                g.settle();
            }
            _ => {
                let x = ["a", "b", "d"][usize::try_from(roll(3)).unwrap()];
                g.write(by, &labels(&[("__name__", "m"), ("x", x)]), &[(at, turn as f64)]);
            }
        }
        for by in 0..2 {
            evaluated += g.ask(by, ALL[usize::try_from(roll(6)).unwrap()]);
            asked += STEPS;
        }
    }
    let range = asked / 50..asked / 10 * 9;
    assert!(range.contains(&evaluated), "{evaluated} of {asked} steps were evaluated");
}

#[test]
fn changes_are_told_where_they_are_known() {
    let Some(g) = Gateways::start() else { return };
    let changes = g.changes(&*g.stores[0]).unwrap();
    assert!(changes.shared && changes.moving.is_empty());
    let silent = |config: ClickHouseConfig| g.changes(&*open(&g.runtime, &config)).is_none();
    let addresses = vec![g.config.addresses[0].clone(), g.config.addresses[0].clone()];
    assert!(silent(ClickHouseConfig { addresses, ..g.config.clone() }));
    assert!(silent(ClickHouseConfig { cluster: Some("main".to_owned()), ..g.config.clone() }));
    assert!(silent(ClickHouseConfig { rollups: true, ..g.config.clone() }));
    assert!(silent(ClickHouseConfig { pushdown: Pushdown::Force, ..g.config.clone() }));
    assert!(!silent(g.config.clone()));
    // Whatever is not noted is not known, and what was noted before is of another counting.
    let view = format!("{}.changes_of_samples_mv", g.front.database);
    let create = g.front.sql(&format!("SHOW CREATE TABLE {view} FORMAT TSVRaw"));
    g.front.sql(&format!("DROP VIEW {view} SYNC"));
    assert!(silent(g.config.clone()));
    g.front.sql(&create);
    let anew = g.changes(&*g.stores[0]).unwrap();
    assert_ne!(anew.epoch, changes.epoch);
    assert!(anew.now >= changes.now);
}

#[test]
fn what_the_server_may_drop_at_any_time_is_not_kept() {
    let Some(g) = Gateways::start() else { return };
    let database = &g.front.database.clone();
    // Written when the tenant kept less, and overdue since.
    g.front.sql(&format!("SYSTEM STOP TTL MERGES {database}.samples"));
    let day = SystemClock::start().now().day() - 5;
    let at = day * DAY + 20 * MINUTE;
    g.write(0, &labels(&[("__name__", "m")]), &[(at, 1.0)]);
    g.front.sql(&format!(
        "INSERT INTO {database}.samples SELECT tenant, mid, sid, ts + 10 * 60000, 2., 0, 1 FROM {database}.samples"
    ));
    let told = g.changes(&*g.stores[0]).unwrap();
    let all_day = TimeRange::new(Timestamp(day * DAY), Timestamp((day + 1) * DAY - 1)).unwrap();
    assert_eq!(told.moving, [all_day]);
    // And what has grown old since midnight is not what it was.
    let midnight = SystemClock::start().now().day() * DAY;
    let aged = told.changed.iter().find(|c| c.range.start() == Timestamp::MIN && c.range != TimeRange::ALL);
    let aged = aged.expect("there is something old");
    assert!(aged.range.contains(Timestamp(at)) && aged.at <= u64::try_from(midnight).unwrap());
    g.settle();
    let g = Gateways { start: at - MINUTE, ..g };
    assert_eq!((g.ask(1, "m"), g.ask(1, "m")), (STEPS, STEPS));
    g.front.sql(&format!("ALTER TABLE {database}.samples DROP PARTITION (1, {})", yyyymmdd(&g, day)));
    assert_eq!(g.ask(1, "m"), STEPS);
}

fn yyyymmdd(g: &Gateways, day: i64) -> String {
    g.front.sql(&format!("SELECT toYYYYMMDD(toDate({day}))")).trim().to_owned()
}
