//! A store that is made to do everything it can do, on a disk that notes each step.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::runtime::Runtime;

use super::{
    super::{labels, small},
    book::{Book, GROUP, Key, Shown},
};
use crate::{
    clock::{Clock, HandClock},
    model::{
        Exemplar, Histogram, Labels, Matcher, Metadata, MetricType, TenantId, TimeRange, Timestamp,
        histogram::{Counts, ResetHint},
    },
    storage::{
        BatchExemplar, BatchHistogram, BatchSample, DocumentKind, SelectRequest, Storage, WriteBatch,
        conformance::read_all,
        embedded::{
            EmbeddedConfig, EmbeddedStore,
            catalog::CATALOG,
            disk::Disk,
            memory_disk::{
                History, MemoryDisk,
                tree::{Random, Tree},
            },
        },
    },
};

const DAY: i64 = 86_400_000;
/// Samples are written so far back at most, and so far the clock is turned later; the retention lies between.
const FAR: i64 = 28 * DAY;
const TURN: Duration = Duration::from_secs(3 * 86_400);
const SERIES: u32 = 6;

/// A store so small that everything happens soon.
pub(super) fn config(dir: &Path) -> EmbeddedConfig {
    EmbeddedConfig { segment_bytes: 2048, ballast_bytes: 4096, ..small(dir) }
}

/// What is older than this when the clock shows `now` may have gone.
pub(super) fn oldest(now: Timestamp) -> Timestamp {
    let keep =
        small(Path::new("")).retention.map_or(i64::MAX, |keep| i64::try_from(keep.as_millis()).unwrap());
    Timestamp(now.0.saturating_sub(keep))
}

pub(super) fn tenants() -> [TenantId; 2] {
    [TenantId::anonymous(), TenantId::new("other").unwrap()]
}

/// Opens a store outside the runtime, so that nothing happens in it by itself.
pub(super) fn open(
    dir: &Path,
    disk: &Arc<MemoryDisk>,
    clock: &Arc<HandClock>,
) -> crate::storage::Result<Arc<EmbeddedStore>> {
    let once = || {
        let disk = Arc::<MemoryDisk>::clone(disk) as Arc<dyn Disk>;
        EmbeddedStore::open(config(dir), disk, Arc::<HandClock>::clone(clock))
    };
    for _ in 0..200 {
        match once() {
            // Whoever had it last is still at its end.
            Err(e) if e.to_string().contains("in use") => std::thread::sleep(Duration::from_millis(10)),
            other => return other,
        }
    }
    once()
}

/// One life of a process.
pub(super) struct Life<'a> {
    runtime: &'a Runtime,
    dir: &'a Path,
    disk: Arc<MemoryDisk>,
    clock: Arc<HandClock>,
    store: Option<Arc<EmbeddedStore>>,
    random: Random,
    book: Book,
    /// Groups that are not deleted begin here.
    group: u32,
    next: u32,
}

impl<'a> Life<'a> {
    /// Begins on what a disk holds, in a directory for what is on the real disk.
    pub(super) fn begin(
        runtime: &'a Runtime,
        (dir, copies): (&'a Path, Option<&Path>),
        tree: Tree,
        mut book: Book,
        (seed, number): (u64, u32),
    ) -> crate::storage::Result<Self> {
        let disk = MemoryDisk::holding(tree, dir, CATALOG, copies);
        let clock = HandClock::at(book.clock.first().expect("the clock was set").1);
        let store = Some(open(dir, &disk, &clock)?);
        let random = Random::new(seed);
        book.clock.truncate(1);
        let (group, next) = (number * 100, number * 10_000);
        Ok(Self { runtime, dir, disk, clock, store, random, book, group, next })
    }

    fn store(&self) -> Arc<EmbeddedStore> {
        Arc::clone(self.store.as_ref().expect("it is open"))
    }

    /// What happened, and what was asked for.
    pub(super) fn end(self) -> (History, Book) {
        drop(self.store);
        (self.disk.history(), self.book)
    }

    /// Does everything at least once, and so many things more in any order.
    pub(super) fn live(&mut self, more: u32) {
        for what in 0..10 {
            self.write();
            self.write_together(what % 2 == 0);
            self.act(what);
        }
        for _ in 0..more {
            let what = self.random.below(24);
            self.act(what);
        }
    }

    /// Sends again what was not acknowledged, and some writes and flushes.
    pub(super) fn live_shortly(&mut self) {
        self.send_again();
        for what in [10, 0, 11, 3, 10, 8] {
            self.act(what);
        }
    }

    fn act(&mut self, what: u32) {
        match what {
            0 | 5 => self.runtime.block_on(self.store().flush()).unwrap(),
            1 => self.delete(),
            2 => self.clean(),
            3 => self.put_document(),
            4 => self.snapshot(),
            6 => self.turn_the_clock(),
            7 => self.restart(true),
            8 => self.restart(false),
            9 | 11 => self.write_together(true),
            12 | 13 => self.write_together(false),
            _ => self.write(),
        }
    }

    fn delete(&mut self) {
        let group = self.group.to_string();
        self.group += 1;
        self.book.deleted.entry(group.clone()).or_default().begin((), self.disk.steps());
        for tenant in tenants() {
            let sets = vec![vec![Matcher::equal(GROUP, &group)]];
            self.runtime.block_on(self.store().delete(&tenant, sets, TimeRange::ALL)).unwrap();
        }
        self.book.deleted.entry(group).or_default().end(self.disk.steps());
    }

    fn clean(&mut self) {
        for tenant in tenants() {
            self.runtime.block_on(self.store().clean_tombstones(&tenant)).unwrap();
        }
    }

    fn put_document(&mut self) {
        let text = self.number().to_string();
        self.book.document.begin(text.clone(), self.disk.steps());
        let (store, tenant) = (self.store(), TenantId::anonymous());
        self.runtime.block_on(store.put_document(&tenant, DocumentKind::Limits, Some(text))).unwrap();
        self.book.document.end(self.disk.steps());
    }

    fn snapshot(&mut self) {
        let begun = self.disk.steps();
        let name = self.runtime.block_on(self.store().snapshot(false)).unwrap();
        self.book.snapshots.push((name, begun, self.disk.steps()));
    }

    fn turn_the_clock(&mut self) {
        self.clock.advance(TURN);
        // Before anything that the new time leads to.
        self.book.clock.push((self.disk.steps(), self.clock.now()));
        self.runtime.block_on(self.store().enforce_retention()).unwrap();
    }

    fn restart(&mut self, in_order: bool) {
        if in_order {
            self.runtime.block_on(self.store().close()).unwrap();
        }
        self.store = None;
        self.store = Some(open(self.dir, &self.disk, &self.clock).expect("a store that was closed opens"));
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// One write by itself.
    pub(super) fn write(&mut self) {
        let asked = self.ask(true);
        self.append_one_by_one(vec![asked]);
    }

    fn append_one_by_one(&mut self, asked: Vec<(TenantId, WriteBatch)>) {
        self.acknowledged(asked, |life, batches| {
            for (tenant, batch) in batches {
                life.runtime.block_on(life.store().append(&tenant, batch)).unwrap();
            }
        });
    }

    fn send_again(&mut self) {
        let histograms = (SERIES - 1).to_string();
        for ((tenant, labels, at), bits) in self.book.unacknowledged() {
            if labels.get("i") != Some(histograms.as_str()) && at >= oldest(self.clock.now()).0 {
                let mut batch = WriteBatch::over(vec![labels]);
                let (timestamp, value) = (Timestamp(at), f64::from_bits(bits));
                batch.samples.push(BatchSample { series: 0, timestamp, value, start: 0 });
                self.append_one_by_one(vec![(tenant, batch)]);
            }
        }
    }

    /// Several writes at the same time, which share a sync; beside a flush, if asked for.
    fn write_together(&mut self, beside_flush: bool) {
        let asked: Vec<_> = (0..3).map(|_| self.ask(false)).collect();
        self.acknowledged(asked, |life, mut batches| {
            let store = life.store();
            let mut write = || {
                let (tenant, batch) = batches.pop().expect("there are three");
                let store = Arc::clone(&store);
                async move { store.append(&tenant, batch).await.map(|_| ()) }
            };
            let (a, b, c) = (write(), write(), write());
            let flush = async { if beside_flush { store.flush().await } else { Ok(()) } };
            let all = life.runtime.block_on(async { tokio::join!(a, flush, b, c) });
            assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok() && all.3.is_ok(), "{all:?}");
        });
    }

    /// Notes what is asked for, asks for it, and notes that it was acknowledged.
    fn acknowledged(
        &mut self,
        asked: Vec<(TenantId, WriteBatch)>,
        ask: impl FnOnce(&Self, Vec<(TenantId, WriteBatch)>),
    ) {
        let begun = self.disk.steps();
        let (mut samples, mut exemplars, mut helps) = (Vec::new(), Vec::new(), 0);
        for (tenant, batch) in &asked {
            let key =
                |series: u32, at: i64| -> Key { (tenant.clone(), batch.labels.labels(series as usize), at) };
            let floats = batch.samples.iter().map(|s| (key(s.series, s.timestamp.0), s.value.to_bits()));
            let histograms =
                batch.histograms.iter().map(|h| (key(h.series, h.timestamp.0), h.histogram.sum.to_bits()));
            samples.extend(floats.chain(histograms));
            exemplars.extend(batch.exemplars.iter().map(|e| key(e.series, e.exemplar.timestamp.0)));
            for metadata in &batch.metadata {
                self.book.help.begin(metadata.help.clone(), begun);
                helps += 1;
            }
        }
        for (key, bits) in &samples {
            self.book.samples.entry(key.clone()).or_default().begin(*bits, begun);
        }
        for key in &exemplars {
            self.book.exemplars.entry(key.clone()).or_default().begin((), begun);
        }
        ask(self, asked);
        let acked = self.disk.steps();
        samples.iter().for_each(|(key, _)| self.book.samples.entry(key.clone()).or_default().end(acked));
        exemplars.iter().for_each(|key| self.book.exemplars.entry(key.clone()).or_default().end(acked));
        if helps > 0 {
            self.book.help.end(acked);
        }
    }

    /// Samples at times of their own, or, of one write at a time, other values at times that have one; never of
    /// a group that was deleted.
    fn ask(&mut self, alone: bool) -> (TenantId, WriteBatch) {
        let tenant = tenants()[self.random.below(2) as usize].clone();
        let group = (self.group + self.random.below(2)).to_string();
        let series: Vec<Labels> = (0..SERIES)
            .map(|i| labels(&[("__name__", "m"), ("i", &i.to_string()), (GROUP, &group)]))
            .collect();
        let mut batch = WriteBatch::over(series);
        let now = self.clock.now();
        for series in 0..1 + self.random.below(SERIES - 1) {
            let far = [0, 0, 0, DAY, 2 * DAY, FAR][self.random.below(6) as usize];
            for _ in 0..1 + self.random.below(8) {
                let number = self.number();
                let timestamp = Timestamp(now.0 - far - i64::from(number));
                let value = f64::from(number) / 8.0;
                let again = alone && self.random.below(4) == 0;
                let timestamp =
                    if again { self.known(&tenant, &batch, series).unwrap_or(timestamp) } else { timestamp };
                if batch.samples.iter().any(|s| s.series == series && s.timestamp == timestamp) {
                    continue;
                }
                batch.samples.push(BatchSample { series, timestamp, value, start: 0 });
            }
        }
        let (number, at) = (self.number(), |n: u32| Timestamp(now.0 - i64::from(n)));
        let histogram = Arc::new(histogram(f64::from(number)));
        let in_last = SERIES - 1;
        batch.histograms.push(BatchHistogram { series: in_last, timestamp: at(number), histogram, start: 0 });
        let number = self.number();
        let exemplar = Exemplar {
            labels: labels(&[("trace_id", &number.to_string())]),
            value: 1.0,
            timestamp: at(number),
        };
        batch.exemplars.push(BatchExemplar { series: 0, exemplar });
        if alone && tenant == TenantId::anonymous() {
            let help = self.number().to_string();
            let (metric, unit) = ("m".to_owned(), String::new());
            batch.metadata.push(Metadata { metric, kind: MetricType::Gauge, help, unit });
        }
        (tenant, batch)
    }

    /// A time at which the series has a sample.
    fn known(&mut self, tenant: &TenantId, batch: &WriteBatch, series: u32) -> Option<Timestamp> {
        let labels = batch.labels.labels(series as usize);
        let first: Key = (tenant.clone(), labels.clone(), i64::MIN);
        let last: Key = (tenant.clone(), labels, i64::MAX);
        let recent = oldest(self.clock.now()).0;
        let times: Vec<i64> =
            self.book.samples.range(first..=last).map(|(key, _)| key.2).filter(|at| *at > recent).collect();
        let which = self.random.below(u32::try_from(times.len().max(1)).unwrap());
        times.get(which as usize).map(|at| Timestamp(*at))
    }
}

fn histogram(sum: f64) -> Histogram {
    Histogram {
        schema: 0,
        zero_threshold: 0.001,
        sum,
        reset_hint: ResetHint::Unknown,
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        counts: Counts::Integer { count: 3, zero_count: 3, positive: Vec::new(), negative: Vec::new() },
        custom_values: Vec::new(),
    }
}

/// All that a store shows.
pub(super) async fn shown(store: &EmbeddedStore) -> Shown {
    let mut shown = Shown::default();
    for tenant in tenants() {
        for (labels, samples) in read_all(store, &tenant, SelectRequest::new(vec![], TimeRange::ALL)).await {
            let key = |at: i64| (tenant.clone(), labels.clone(), at);
            let floats =
                samples.timestamps.iter().zip(&samples.values).map(|(at, v)| (key(*at), v.to_bits()));
            shown.samples.extend(floats);
            let histograms = samples.histograms.iter().map(|h| (key(h.timestamp), h.histogram.sum.to_bits()));
            shown.samples.extend(histograms);
        }
        for of_series in store.exemplars(&tenant, vec![], TimeRange::ALL).await.unwrap() {
            for exemplar in of_series.exemplars {
                shown.exemplars.insert((tenant.clone(), of_series.series.clone(), exemplar.timestamp.0), ());
            }
        }
    }
    let documents = store.documents(DocumentKind::Limits).await.unwrap();
    shown.document = documents.into_iter().next().map(|(_, text)| text);
    let metadata = store.metadata(&TenantId::anonymous(), None).await.unwrap();
    shown.help = metadata.into_iter().next().map(|metadata| metadata.help);
    shown
}
