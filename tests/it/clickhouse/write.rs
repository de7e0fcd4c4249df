//! What is appended is in the tables.

use std::sync::Arc;

use luminate::{
    clock::{Clock, HandClock, SystemClock},
    model::{
        Exemplar, Histogram, Labels, Metadata, MetricType, Millis, TenantId, Timestamp,
        histogram::{Counts, ResetHint, Span},
    },
    storage::{
        AppendPolicy, BatchExemplar, BatchHistogram, BatchSample, OnConflict, RejectReason, Storage,
        WriteBatch,
        clickhouse::{ClickHouseConfig, ClickHouseStore},
    },
};
use tokio::runtime::Runtime;

use super::{before_the_last_hour, front::Front};

/// A store on an empty database of its own.
struct Subject {
    front: Front,
    runtime: Runtime,
    clock: Arc<SystemClock>,
    config: ClickHouseConfig,
    store: Arc<ClickHouseStore>,
}

impl Subject {
    fn start() -> Option<Self> {
        let front = Front::start()?;
        let runtime = Runtime::new().unwrap();
        let clock = SystemClock::start();
        let config =
            ClickHouseConfig { database: front.database.clone(), ..ClickHouseConfig::new(&front.url) };
        let store = open(&runtime, &config, &clock);
        runtime.block_on(store.apply_schema()).unwrap();
        Some(Self { front, runtime, clock, config, store })
    }

    /// The rows of a query, one a line, columns apart by tabs.
    fn rows(&self, sql: &str) -> Vec<String> {
        let sql = sql.replace("FROM ", &format!("FROM {}.", self.front.database));
        self.front.sql(&sql).lines().map(str::to_owned).collect()
    }

    /// Some time ago, in milliseconds.
    fn ago(&self, millis: i64) -> i64 {
        self.clock.now().0 - millis
    }
}

fn open(runtime: &Runtime, config: &ClickHouseConfig, clock: &Arc<impl Clock>) -> Arc<ClickHouseStore> {
    let _inside = runtime.enter();
    ClickHouseStore::open(config.clone(), Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn sample(series: u32, at: i64, value: f64) -> BatchSample {
    BatchSample { series, timestamp: Timestamp(at), value, start: 0 }
}

#[test]
fn everything_of_a_batch_is_in_its_table() {
    let Some(s) = Subject::start() else { return };
    let tenant = TenantId::new("it's").unwrap();
    let series = labels(&[("__name__", "up"), ("job", "a\n\t'b"), ("温度", "é")]);
    let at = s.ago(60_000);
    let mut batch = WriteBatch::over(vec![series.clone(), labels(&[("no", "name")])]);
    batch.samples = vec![sample(0, at, -0.0), BatchSample { start: at - 5, ..sample(1, at, f64::MAX) }];
    batch.histograms = vec![BatchHistogram {
        series: 0,
        timestamp: Timestamp(at + 1),
        histogram: Arc::new(Histogram {
            schema: 3,
            zero_threshold: 0.5,
            sum: 18.25,
            reset_hint: ResetHint::Gauge,
            positive_spans: vec![Span { offset: -2, length: 2 }],
            negative_spans: vec![],
            counts: Counts::Integer {
                count: u64::MAX,
                zero_count: 1,
                positive: vec![1 << 60, 1],
                negative: vec![],
            },
            custom_values: vec![],
        }),
        start: at - 7,
    }];
    let exemplar =
        Exemplar { labels: labels(&[("trace_id", "x")]), value: 0.25, timestamp: Timestamp(at + 2) };
    batch.exemplars = vec![BatchExemplar { series: 0, exemplar }];
    let [unit, help] = ["seconds", "how it is"].map(str::to_owned);
    batch.metadata = vec![Metadata { metric: "up".to_owned(), kind: MetricType::Gauge, unit, help }];
    let appended = s.runtime.block_on(s.store.append(&tenant, batch)).unwrap();
    assert_eq!((appended.samples, appended.histograms, appended.exemplars, appended.metadata), (2, 1, 1, 1));
    assert_eq!(appended.rejected, []);

    let [mid, sid] = [series.id().0 >> 64, u128::from(series.id().hash64())];
    let day = s.rows(&format!("SELECT DISTINCT toDate(toDateTime(intDiv({at}, 1000), 'UTC')) FROM samples"));
    let found = s.rows("SELECT tenant, mid, sid, ts, value, start_ts, ret FROM samples ORDER BY start_ts");
    assert_eq!(found[0], format!("it\\'s\t{mid}\t{sid}\t{at}\t-0\t0\t30"));
    assert!(found[1].ends_with(&format!("\t{at}\t1.7976931348623157e308\t{}\t30", at - 5)), "{}", found[1]);
    let found = s.rows(
        "SELECT sid, ts, start_ts, ret, kind, reset_hint, schema, zero_threshold, sum, \
         reinterpretAsUInt64(zero_count), reinterpretAsUInt64(count), pos_spans, \
         arrayMap(c -> reinterpretAsInt64(c), pos_counts), neg_counts FROM histograms",
    );
    let (ts, start, big, big1) = (at + 1, at - 7, 1_u64 << 60, (1_u64 << 60) + 1);
    let numbers = format!("int\t3\t3\t0.5\t18.25\t1\t{}\t[(-2,2)]\t[{big},{big1}]\t[]", u64::MAX);
    assert_eq!(found, [format!("{sid}\t{ts}\t{start}\t30\t{numbers}")]);
    let found = s.rows("SELECT sid, ts, value, labels, ret FROM exemplars");
    assert_eq!(found, [format!("{sid}\t{}\t0.25\t{{'trace_id':'x'}}\t7", at + 2)]);
    let found = s.rows("SELECT day, metric, sid, labels, ret FROM series WHERE metric != ''");
    let day = &day[0];
    let map = r"{'__name__':'up','job':'a\n\t\'b','温度':'é'}";
    assert_eq!(found, [format!("{day}\tup\t{sid}\t{map}\t30")]);
    assert_eq!(s.rows("SELECT metric, labels FROM series WHERE metric = ''"), ["\t{'no':'name'}"]);
    let found = s.rows("SELECT DISTINCT name FROM label_values ORDER BY name");
    assert_eq!(found, ["__name__", "job", "no", "温度"]);
    let found = s.rows("SELECT family, type, unit, help FROM metadata WHERE updated > now() - 60");
    assert_eq!(found, ["up\tgauge\tseconds\thow it is"]);
}

#[test]
fn what_is_too_old_is_named_and_the_rest_is_kept() {
    let Some(s) = Subject::start() else { return };
    let day = 86_400_000;
    let mut batch = WriteBatch::over(vec![labels(&[("__name__", "old")])]);
    batch.samples =
        vec![sample(0, s.ago(31 * day), 1.0), sample(0, s.ago(29 * day), 2.0), sample(0, i64::MIN, 3.0)];
    let appended = s.runtime.block_on(s.store.append(&TenantId::anonymous(), batch)).unwrap();
    assert_eq!(appended.samples, 1);
    let reasons: Vec<RejectReason> = appended.rejected.iter().map(|r| r.reason).collect();
    assert_eq!(reasons, [RejectReason::TooOld; 2]);
    assert_eq!(s.rows("SELECT value FROM samples"), ["2"]);
}

#[test]
fn rejecting_conflicts_is_refused() {
    let Some(s) = Subject::start() else { return };
    let mut batch = WriteBatch::over(vec![labels(&[("__name__", "x")])]);
    batch.samples = vec![sample(0, s.ago(0), 1.0)];
    batch.policy = AppendPolicy { on_conflict: OnConflict::Reject, out_of_order_window: None };
    let error = s.runtime.block_on(s.store.append(&TenantId::anonymous(), batch)).unwrap_err();
    assert!(error.to_string().contains("on_conflict"), "{error}");
}

#[test]
fn what_is_sent_again_is_there_once() {
    let Some(s) = Subject::start() else { return };
    let tenant = TenantId::anonymous();
    let series: Vec<Labels> =
        (0..50).map(|i| labels(&[("__name__", "twice_total"), ("i", &i.to_string())])).collect();
    let batch = |from: i64| {
        let mut batch = WriteBatch::over(series.clone());
        let sample = |i: u32| sample(i % 50, from + i64::from(i / 50), f64::from(i));
        batch.samples = (0..5_000).map(sample).collect();
        batch
    };
    // The servers have it, and we do not hear of it.
    if s.front.is_ours() {
        s.front.fault("drop=after&match=INSERT.INTO.samples&times=1");
    }
    let first = batch(s.ago(600_000));
    while s.runtime.block_on(s.store.append(&tenant, first.clone())).is_err() {}
    s.runtime.block_on(s.store.append(&tenant, first)).unwrap();
    assert_eq!(s.rows("SELECT uniqExact(sid, ts), count() > 0 FROM samples FINAL"), ["5000\t1"]);
    assert_eq!(s.rows("SELECT count() FROM samples FINAL"), ["5000"]);

    // Two pods write the same at the same time.
    let other = open(&s.runtime, &s.config, &s.clock);
    let second = batch(s.ago(300_000));
    let (a, b) = s.runtime.block_on(async {
        tokio::join!(s.store.append(&tenant, second.clone()), other.append(&tenant, second.clone()))
    });
    assert_eq!((a.unwrap().samples, b.unwrap().samples), (5_000, 5_000));
    assert_eq!(s.rows("SELECT count() FROM samples FINAL"), ["10000"]);
    assert_eq!(s.rows("SELECT count() FROM series FINAL"), ["50"]);
}

#[test]
fn a_history_longer_than_an_insert_may_be_is_taken() {
    let Some(s) = Subject::start() else { return };
    let config = ClickHouseConfig { retention: None, ..s.config.clone() };
    let clock = HandClock::at(Timestamp(before_the_last_hour()));
    let store = open(&s.runtime, &config, &clock);
    // ClickHouse takes no insert with more than a hundred partitions.
    let mut batch = WriteBatch::over(vec![labels(&[("__name__", "old_total")])]);
    let day = 86_400_000;
    batch.samples = (0..300).map(|i| sample(0, clock.now().0 - i * day, 1.0)).collect();
    batch.samples.extend([i64::MIN, -day, 0, i64::MAX].map(|at| sample(0, at, 2.0)));
    let appended = s.runtime.block_on(store.append(&TenantId::anonymous(), batch)).unwrap();
    assert_eq!(appended.samples, 304);
    assert_eq!(
        s.rows("SELECT count(), min(ts), max(ts) FROM samples"),
        [format!("304\t{}\t{}", i64::MIN, i64::MAX)]
    );
    assert_eq!(s.rows("SELECT DISTINCT ret FROM samples"), ["65535"]);
    // The ends of time share the days at the ends of what ClickHouse calls a date.
    assert_eq!(s.rows("SELECT uniqExact(day, sid) FROM series"), ["302"]);
}

#[test]
fn a_bound_on_lateness_asks_what_others_have_written() {
    let Some(s) = Subject::start() else { return };
    let tenant = TenantId::anonymous();
    let at = s.ago(60_000);
    let batch = |samples: &[(i64, f64)], window| {
        let mut batch = WriteBatch::over(vec![labels(&[("__name__", "late")])]);
        batch.samples = samples.iter().map(|(ago, value)| sample(0, at - ago, *value)).collect();
        batch.policy = AppendPolicy { out_of_order_window: window, ..AppendPolicy::default() };
        batch
    };
    let append = |store: &Arc<ClickHouseStore>, samples: &[(i64, f64)], window: Option<i64>| {
        let appended = s.runtime.block_on(store.append(&tenant, batch(samples, window.map(Millis)))).unwrap();
        appended.rejected.iter().map(|r| at - r.timestamp.0).collect::<Vec<i64>>()
    };
    append(&s.store, &[(0, 1.0), (50_000, 5.0)], None);
    let other = open(&s.runtime, &s.config, &s.clock);
    // What is there already is no news, and what is only late enough is taken.
    let late = [(10_000, 1.0), (10_001, 1.0), (50_000, 5.0), (50_000, 6.0)];
    assert_eq!(append(&other, &late, Some(10_000)), [10_001, 50_000]);
    assert_eq!(append(&other, &[(10_001, 1.0), (20_000, 1.0)], Some(20_000)), [0_i64; 0]);
    // A newer sample in the batch counts at once, and afterwards.
    assert_eq!(append(&other, &[(-5_000, 1.0), (9_000, 1.0), (5_001, 1.0)], Some(10_000)), [9_000, 5_001]);
    assert_eq!(append(&other, &[(5_001, 1.0), (5_000, 1.0)], Some(10_000)), [5_001]);
    assert_eq!(append(&other, &[(600_000, 1.0)], Some(i64::MAX)), [0_i64; 0]);
}
