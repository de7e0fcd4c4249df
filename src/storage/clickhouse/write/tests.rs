//! Appends over servers that do as they are told.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::atomic::Ordering::Relaxed,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::*;
use crate::{
    clock::HandClock,
    model::{Labels, Metadata, MetricType, Timestamp},
    storage::{
        BatchSample,
        clickhouse::{
            client::{Class, Insert},
            rowbinary::Reader,
        },
    },
};

/// Noon of some day.
const NOON: Timestamp = Timestamp(20_000 * 86_400_000 + 43_200_000);

/// Servers that note what they are sent, wait to be let go, and answer what they were told to.
#[derive(Debug)]
struct Scripted {
    inserts: Mutex<Vec<Insert>>,
    /// Answers to the next inserts into tables whose name begins so.
    answers: Mutex<VecDeque<(&'static str, Outcome)>>,
    gate: Semaphore,
    /// Bytes beyond which memory is short.
    memory: Mutex<usize>,
}

type Outcome = std::result::Result<(), Failure>;

#[async_trait]
impl Inserter for Scripted {
    async fn insert(&self, insert: &Insert) -> Outcome {
        self.inserts.lock().push(insert.clone());
        self.gate.acquire().await.unwrap().forget();
        if insert.rows.len() > *self.memory.lock() {
            return Err(failure(Class::Exhausted, Some(241)));
        }
        let mut answers = self.answers.lock();
        let next = answers.iter().position(|(table, _)| insert.into.starts_with(table));
        next.and_then(|at| answers.remove(at)).map_or(Ok(()), |(_, answer)| answer)
    }
}

fn failure(class: Class, code: Option<u32>) -> Failure {
    Failure::new(class, "told to").with_code(code)
}

/// Appends under test.
struct Subject {
    servers: Arc<Scripted>,
    clock: Arc<HandClock>,
    writes: Arc<Writes>,
}

impl Subject {
    /// Servers that let everything through.
    fn open() -> Self {
        let subject = Self::shut(|_| {});
        subject.let_go(Semaphore::MAX_PERMITS);
        subject
    }

    /// Servers that hold every insert back.
    fn shut(change: impl FnOnce(&mut ClickHouseConfig)) -> Self {
        let servers = Arc::new(Scripted {
            inserts: Mutex::default(),
            answers: Mutex::default(),
            gate: Semaphore::new(0),
            memory: Mutex::new(usize::MAX),
        });
        let mut config = ClickHouseConfig::new("http://nowhere");
        config.batch.linger = Duration::ZERO;
        config.batch.in_flight = 1;
        change(&mut config);
        let clock = HandClock::at(NOON);
        let inserter = Arc::clone(&servers) as Arc<dyn Inserter>;
        let writes =
            Writes::over(inserter, Newest::alone(), Arc::new(config), Arc::clone(&clock) as Arc<dyn Clock>);
        Self { servers, clock, writes: Arc::new(writes) }
    }

    fn let_go(&self, inserts: usize) {
        self.servers.gate.add_permits(inserts);
    }

    fn answer(&self, table: &'static str, outcome: Outcome) {
        self.servers.answers.lock().push_back((table, outcome));
    }

    /// Inserts into a table so far.
    fn inserts(&self, table: &str) -> Vec<Insert> {
        self.servers.inserts.lock().iter().filter(|insert| insert.into.starts_with(table)).cloned().collect()
    }

    /// The values in an insert of samples.
    fn values(&self, insert: &Insert) -> Vec<f64> {
        let mut reader = Reader::new(&insert.rows);
        let mut values = Vec::new();
        while reader.taken() < insert.rows.len() {
            reader.string().unwrap();
            reader.take(24).unwrap();
            values.push(reader.f64().unwrap());
            reader.take(10).unwrap();
        }
        values
    }

    async fn append(&self, batch: WriteBatch) -> Result<Appended> {
        self.writes.append(&tenant("a"), batch).await
    }

    fn start(&self, name: &str, batch: WriteBatch) -> tokio::task::JoinHandle<Result<Appended>> {
        let (writes, tenant) = (Arc::clone(&self.writes), tenant(name));
        crate::task::spawn("test-append", async move { writes.append(&tenant, batch).await })
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// One sample of one series, now.
fn one(series: &str, value: f64) -> WriteBatch {
    many(series, &[(NOON.0, value)])
}

fn many(series: &str, samples: &[(i64, f64)]) -> WriteBatch {
    let mut batch = WriteBatch::over(vec![Labels::from_pairs([("__name__", series)]).unwrap()]);
    let sample = |(at, value): &(i64, f64)| BatchSample {
        series: 0,
        timestamp: Timestamp(*at),
        value: *value,
        start: 0,
    };
    batch.samples = samples.iter().map(sample).collect();
    batch
}

/// Waits until something is so.
async fn until(what: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it did not come about");
}

#[tokio::test]
async fn rows_of_many_requests_share_an_insert() {
    let s = Subject::shut(|_| {});
    let first = s.start("a", one("first", 0.0));
    until(|| s.inserts("samples").len() == 1 && s.inserts("series").len() == 1).await;
    let others: Vec<_> =
        (0..10).map(|i| s.start(["b", "a"][i % 2], one(&format!("s{i}"), i as f64))).collect();
    until(|| s.writes.counters().waiters.load(Relaxed) == 11).await;
    s.let_go(Semaphore::MAX_PERMITS);
    for append in others.into_iter().chain([first]) {
        assert_eq!(append.await.unwrap().unwrap().samples, 1);
    }
    let samples = s.inserts("samples");
    assert_eq!(samples.len(), 2);
    assert_ne!(samples[0].token, samples[1].token);
    let values = s.values(&samples[1]);
    assert_eq!(values.iter().copied().map(f64::to_bits).collect::<BTreeSet<_>>().len(), 10);
    // Tenant a's come first.
    assert!(values[..5].iter().all(|v| v % 2.0 == 1.0), "{values:?}");
    assert_eq!(s.writes.counters().queue_bytes.load(Relaxed), 0);
    assert_eq!(s.writes.counters().queue_rows.load(Relaxed), 0);
}

#[tokio::test]
async fn each_waiter_hears_of_its_own_rows() {
    let s = Subject::shut(|_| {});
    let first = s.start("a", one("first", 1.0));
    until(|| s.inserts("samples").len() == 1 && s.inserts("series").len() == 1).await;
    let second = s.start("a", one("second", 2.0));
    until(|| s.writes.counters().waiters.load(Relaxed) == 2).await;
    s.answer("samples", Err(failure(Class::Overloaded, Some(252))));
    s.let_go(Semaphore::MAX_PERMITS);
    let error = first.await.unwrap().unwrap_err();
    assert!(matches!(error, StorageError::Overloaded { .. }), "{error:?}");
    assert_eq!(second.await.unwrap().unwrap().samples, 1);
}

#[tokio::test]
async fn trouble_is_never_the_callers_fault() {
    let s = Subject::open();
    for class in [
        Class::Unreachable,
        Class::Overloaded,
        Class::ReadOnly,
        Class::Exhausted,
        Class::Schema,
        Class::Denied,
        Class::Broken,
    ] {
        s.answer("samples", Err(failure(class, None)));
        let error = s.append(one("x", 1.0)).await.unwrap_err();
        assert_ne!(error.fault(), crate::storage::Fault::Caller, "{class:?}");
    }
}

#[tokio::test]
async fn a_series_is_known_once_its_row_is_written() {
    let s = Subject::open();
    s.answer("series", Err(failure(Class::Unreachable, None)));
    assert!(s.append(one("x", 1.0)).await.is_err());
    s.append(one("x", 1.0)).await.unwrap();
    s.append(one("x", 2.0)).await.unwrap();
    assert_eq!(s.inserts("series").len(), 2);
    s.writes.append(&tenant("b"), one("x", 2.0)).await.unwrap();
    assert_eq!(s.inserts("series").len(), 3);
    s.clock.advance(Duration::from_secs(86_400));
    s.append(many("x", &[(NOON.0 + 86_400_000, 1.0)])).await.unwrap();
    assert_eq!(s.inserts("series").len(), 4);
}

#[tokio::test]
async fn a_series_that_another_writes_is_waited_for() {
    let s = Subject::shut(|_| {});
    let appends: Vec<_> = (0..5).map(|i| s.start("a", one("x", f64::from(i)))).collect();
    until(|| s.writes.counters().waiters.load(Relaxed) == 5).await;
    s.answer("series", Err(failure(Class::Unreachable, None)));
    s.let_go(Semaphore::MAX_PERMITS);
    for append in appends {
        assert!(append.await.unwrap().is_err());
    }
    assert_eq!(s.inserts("series").len(), 1);
}

#[tokio::test]
async fn memory_that_is_short_splits_an_insert() {
    let s = Subject::open();
    *s.servers.memory.lock() = 100_000;
    let samples: Vec<(i64, f64)> = (0..8_000_u32).map(|i| (NOON.0 + i64::from(i), f64::from(i))).collect();
    assert_eq!(s.append(many("x", &samples)).await.unwrap().samples, 8_000);
    let inserts = s.inserts("samples");
    let whole = inserts[0].clone();
    let written: Vec<&Insert> = inserts.iter().filter(|insert| insert.rows.len() <= 100_000).collect();
    assert!(written.len() >= 4);
    let joined: Vec<u8> = written.iter().flat_map(|insert| insert.rows.iter().copied()).collect();
    assert_eq!(Bytes::from(joined), whole.rows);
    let tokens: BTreeSet<&str> = inserts.iter().map(|insert| insert.token.as_str()).collect();
    assert_eq!(tokens.len(), inserts.len());
    assert!(written[0].token.starts_with(&format!("{}/0", whole.token)));

    *s.servers.memory.lock() = 0;
    let error = s.append(one("x", 1.0)).await.unwrap_err();
    assert!(matches!(error, StorageError::Overloaded { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_too_much_is_refused_and_the_rest_goes_on() {
    let s = Subject::shut(|config| config.batch.queue_bytes = 4_000);
    let first = s.start("a", one("x", 0.0));
    until(|| s.writes.counters().waiters.load(Relaxed) == 1).await;
    let samples: Vec<(i64, f64)> = (0..30).map(|i| (NOON.0 + i, 1.0)).collect();
    let error = s.append(many("x", &samples)).await.unwrap_err();
    assert!(matches!(error, StorageError::Overloaded { .. }), "{error:?}");
    assert_eq!(s.writes.counters().overloads.load(Relaxed), 1);
    let other = s.start("b", one("x", 0.0));
    until(|| s.writes.counters().waiters.load(Relaxed) == 2).await;
    s.let_go(Semaphore::MAX_PERMITS);
    assert!(first.await.unwrap().is_ok() && other.await.unwrap().is_ok());
    assert_eq!(s.append(many("x", &samples)).await.unwrap().samples, 30);
    assert_eq!(s.writes.rooms.taken(), 0);
}

#[tokio::test]
async fn who_goes_away_takes_nobody_along() {
    let s = Subject::shut(|_| {});
    let under_way = s.start("a", one("x", 0.0));
    until(|| s.inserts("samples").len() == 1 && s.inserts("series").len() == 1).await;
    let queued = s.start("a", one("y", 1.0));
    until(|| s.writes.counters().waiters.load(Relaxed) == 2).await;
    let waits_for_both = s.start("a", {
        let mut batch = one("x", 2.0);
        batch.series.push(Labels::from_pairs([("__name__", "y")]).unwrap().id());
        batch.samples.push(BatchSample { series: 1, ..batch.samples[0] });
        batch
    });
    until(|| s.writes.counters().waiters.load(Relaxed) == 3).await;
    for gone in [under_way, queued] {
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    s.let_go(Semaphore::MAX_PERMITS);
    assert_eq!(waits_for_both.await.unwrap().unwrap().samples, 2);
    let samples = s.inserts("samples");
    assert_eq!(s.values(&samples[0]), [0.0]);
    assert_eq!(s.values(&samples[1]), [2.0, 2.0], "nobody waits for the other");
    assert_eq!(s.writes.rooms.taken(), 0);
}

#[tokio::test]
async fn who_waits_too_long_is_told_so() {
    let s = Subject::shut(|config| config.insert_timeout = Duration::from_millis(20));
    let error = s.append(one("x", 0.0)).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error:?}");
    until(|| s.writes.rooms.taken() == 0).await;
    s.let_go(Semaphore::MAX_PERMITS);
    assert_eq!(s.append(one("x", 0.0)).await.unwrap().samples, 1);
}

#[tokio::test]
async fn history_goes_a_few_days_at_a_time() {
    let s = Subject::open();
    let day = 86_400_000;
    let samples: Vec<(i64, f64)> = (0..30).map(|i| (NOON.0 - i * day + 1, i as f64)).collect();
    assert_eq!(s.append(many("x", &samples)).await.unwrap().samples, 30);
    let inserts = s.inserts("samples");
    assert!((4..=6).contains(&inserts.len()), "{}", inserts.len());
    assert!(inserts.iter().all(|insert| s.values(insert).len() <= 8));
    assert_eq!(s.values(&inserts[0]).len(), 2, "what is of now does not wait for the past");
    // Days long past are written again, later ones are known.
    let series: usize = s.inserts("series").len();
    s.append(many("x", &samples[..2])).await.unwrap();
    assert_eq!(s.inserts("series").len(), series);
    s.append(many("x", &samples[2..3])).await.unwrap();
    assert_eq!(s.inserts("series").len(), series + 1);
}

#[tokio::test]
async fn what_is_full_goes_without_rest_and_what_is_not_when_no_more_comes() {
    let s = Subject::shut(|config| {
        config.batch.linger = Duration::from_secs(3_600);
        config.batch.rows = 80;
    });
    s.let_go(Semaphore::MAX_PERMITS);
    assert!(s.append(one("x", 0.0)).await.is_ok(), "the first waits for nothing");
    let samples: Vec<(i64, f64)> = (0..10).map(|i| (NOON.0 + i, 1.0)).collect();
    assert!(s.append(many("x", &samples)).await.is_ok(), "an eighth of an insert is enough");
    let waits = s.start("a", one("x", 3.0));
    until(|| s.writes.counters().waiters.load(Relaxed) == 1).await;
    assert!(!waits.is_finished());
    s.writes.flush().await.unwrap();
    assert_eq!(waits.await.unwrap().unwrap().samples, 1, "a flush waits for no more");

    let s = Subject::shut(|config| config.batch.linger = Duration::from_millis(40));
    s.let_go(Semaphore::MAX_PERMITS);
    for _ in 0..5 {
        assert!(s.append(one("x", 0.0)).await.is_ok());
    }
}

#[tokio::test]
async fn closing_writes_what_is_queued_and_takes_no_more() {
    let s = Subject::shut(|_| {});
    let queued: Vec<_> = (0..3).map(|i| s.start("a", one("x", f64::from(i)))).collect();
    until(|| s.writes.counters().waiters.load(Relaxed) == 3).await;
    let writes = Arc::clone(&s.writes);
    let closing = crate::task::spawn("test-close", async move { writes.close().await });
    until(|| s.writes.closed.load(Relaxed)).await;
    assert!(matches!(s.append(one("x", 9.0)).await, Err(StorageError::Unavailable { .. })));
    assert!(!closing.is_finished());
    s.let_go(Semaphore::MAX_PERMITS);
    closing.await.unwrap().unwrap();
    for append in queued {
        assert_eq!(append.await.unwrap().unwrap().samples, 1);
    }
}

#[tokio::test]
async fn metadata_is_written_when_it_is_news() {
    let s = Subject::open();
    let metadata = |help: &str| {
        let mut batch = WriteBatch::over(vec![]);
        let (metric, help) = ("up".to_owned(), help.to_owned());
        batch.metadata = vec![Metadata { metric, kind: MetricType::Gauge, help, unit: String::new() }];
        batch
    };
    s.answer("metadata", Err(failure(Class::Unreachable, None)));
    assert!(s.append(metadata("old")).await.is_err());
    for help in ["old", "old", "new", "old", "old"] {
        assert_eq!(s.append(metadata(help)).await.unwrap().metadata, 1);
    }
    assert_eq!(s.inserts("metadata").len(), 4);
    s.clock.advance(Duration::from_secs(3_600));
    s.append(metadata("old")).await.unwrap();
    assert_eq!(s.inserts("metadata").len(), 5);
}
