//! A store that is made to do everything it can do, on a disk that notes each step.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use tokio::runtime::Runtime;

use super::{
    super::small,
    book::{Book, Copied, GROUP, Shown},
};
use crate::{
    clock::{Clock, HandClock},
    model::{Labels, Matcher, TenantId, TimeRange, Timestamp},
    storage::{
        DocumentKind, SelectRequest, Storage,
        conformance::read_all,
        embedded::{
            EmbeddedConfig, EmbeddedStore,
            catalog::CATALOG,
            config::KeepRule,
            disk::Disk,
            memory_disk::{
                History, MemoryDisk,
                tree::{Random, Tree},
            },
            pace::Haste,
        },
    },
};

pub(super) const DAY: i64 = 86_400_000;
/// So far the clock is turned at a time.
const TURN: Duration = Duration::from_secs(3 * 86_400);
/// Whoever lost the power while it worked on the backups has a claim on them for an hour.
const CLAIMED: Duration = Duration::from_secs(2 * 3600);

/// What is kept, of most series, of those of one tenant, and of one series of each group.
const KEEP: Duration = Duration::from_secs(30 * 86_400);
const KEEP_OTHER: Duration = Duration::from_secs(29 * 86_400);
const KEEP_SHORT: Duration = Duration::from_secs(4 * 86_400);
const SHORT: (&str, &str) = ("i", "1");

/// A store so small that everything happens soon.
pub(super) fn config(dir: &Path) -> EmbeddedConfig {
    let [_, other] = tenants();
    let matchers = vec![Matcher::equal(SHORT.0, SHORT.1)];
    EmbeddedConfig {
        segment_bytes: 2048,
        ballast_bytes: 4096,
        retention: Some(KEEP),
        tenant_retention: vec![(other, Some(KEEP_OTHER))],
        retention_rules: vec![KeepRule { tenant: None, matchers, keep: Some(KEEP_SHORT) }],
        ..small(dir)
    }
}

/// What is older than this of a series has gone when the clock shows `now`.
pub(super) fn oldest(now: Timestamp, tenant: &TenantId, labels: &Labels) -> Timestamp {
    let keep = match labels.get(SHORT.0) {
        Some(value) if value == SHORT.1 => KEEP_SHORT,
        _ if *tenant == TenantId::anonymous() => KEEP,
        _ => KEEP_OTHER,
    };
    Timestamp(now.0 - i64::try_from(keep.as_millis()).unwrap())
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

/// Something that is done with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Write,
    Together,
    BesideFlush,
    /// And merges what is to be merged.
    Flush,
    Delete,
    Clean,
    /// Takes out of parts what is hidden, by itself.
    Tidy,
    Document,
    Snapshot,
    BackUp,
    Restore,
    Prune,
    /// Time passes, and what is too old goes.
    Age,
    Close,
    Die,
}

/// Everything that can be done, so that each finds something to do.
const EACH: [Deed; 17] = [
    Deed::Flush,
    Deed::Delete,
    Deed::Clean,
    Deed::Document,
    Deed::Snapshot,
    Deed::BackUp,
    Deed::Flush,
    Deed::Delete,
    Deed::Tidy,
    Deed::Age,
    Deed::Restore,
    Deed::BackUp,
    Deed::Close,
    Deed::Prune,
    Deed::Flush,
    Deed::Tidy,
    Deed::Die,
];

/// What is done at random, each as often as it is here.
const OFTEN: [Deed; 24] = [
    Deed::Flush,
    Deed::Flush,
    Deed::Delete,
    Deed::Clean,
    Deed::Tidy,
    Deed::Document,
    Deed::Snapshot,
    Deed::BackUp,
    Deed::Restore,
    Deed::Prune,
    Deed::Age,
    Deed::Close,
    Deed::Die,
    Deed::BesideFlush,
    Deed::BesideFlush,
    Deed::Together,
    Deed::Together,
    Deed::Write,
    Deed::Write,
    Deed::Write,
    Deed::Write,
    Deed::Write,
    Deed::Write,
    Deed::Write,
];

/// What is done after the power has gone.
const AFTERWARDS: [Deed; 7] =
    [Deed::Write, Deed::Flush, Deed::BesideFlush, Deed::Document, Deed::BackUp, Deed::Write, Deed::Die];

/// One life of a process.
pub(super) struct Life<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) dir: &'a Path,
    pub(super) disk: Arc<MemoryDisk>,
    pub(super) clock: Arc<HandClock>,
    store: Option<Arc<EmbeddedStore>>,
    pub(super) random: Random,
    pub(super) book: Book,
    /// How often the store has done what it does by itself.
    done: BTreeMap<&'static str, u64>,
    /// Groups that are not deleted begin here.
    pub(super) group: u32,
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
        Ok(Self { runtime, dir, disk, clock, store, random, book, done: BTreeMap::new(), group, next })
    }

    pub(super) fn store(&self) -> Arc<EmbeddedStore> {
        Arc::clone(self.store.as_ref().expect("it is open"))
    }

    /// What happened, and what was asked for.
    pub(super) fn end(self) -> (History, Book) {
        drop(self.store);
        (self.disk.history(), self.book)
    }

    /// How often the store has done what it does by itself: merged, rewritten, let go.
    pub(super) fn done(&mut self) -> BTreeMap<&'static str, u64> {
        self.count();
        std::mem::take(&mut self.done)
    }

    fn count(&mut self) {
        for (name, count) in self.store().counters().all() {
            *self.done.entry(name).or_default() += count;
        }
    }

    /// Does everything at least once, and so many things more in any order.
    pub(super) fn live(&mut self, more: u32) {
        for (i, deed) in EACH.into_iter().enumerate() {
            self.write();
            self.write_together(i % 2 == 0);
            self.act(deed);
        }
        for _ in 0..more {
            let which = self.random.below(u32::try_from(OFTEN.len()).unwrap());
            self.act(OFTEN[which as usize]);
        }
    }

    /// Sends again what was not acknowledged, and some writes and flushes.
    pub(super) fn live_shortly(&mut self) {
        self.turn_the_clock(CLAIMED);
        self.send_again();
        AFTERWARDS.into_iter().for_each(|deed| self.act(deed));
    }

    fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Write => self.write(),
            Deed::Together => self.write_together(false),
            Deed::BesideFlush => self.write_together(true),
            Deed::Flush => self.flush(),
            Deed::Delete => self.delete(),
            Deed::Clean => self.clean(),
            Deed::Tidy => self.store().engine().tidy(Haste::Now).unwrap(),
            Deed::Document => self.put_document(),
            Deed::Snapshot => self.snapshot(),
            Deed::BackUp => self.back_up(),
            Deed::Restore => self.restore(),
            Deed::Prune => self.prune(),
            Deed::Age => self.age(),
            Deed::Close => self.restart(true),
            Deed::Die => self.restart(false),
        }
    }

    pub(super) fn flush(&self) {
        self.runtime.block_on(self.store().flush()).unwrap();
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
        self.pass_a_second();
        let begun = self.disk.steps();
        let name = self.runtime.block_on(self.store().snapshot(false)).unwrap();
        self.book.snapshots.push(Copied { name, begun, acked: self.disk.steps(), may_go: None });
    }

    /// So that what is called by the time has a name of its own.
    pub(super) fn pass_a_second(&mut self) {
        self.turn_the_clock(Duration::from_secs(1));
    }

    fn turn_the_clock(&mut self, by: Duration) {
        self.clock.advance(by);
        // Before anything that the new time leads to.
        self.book.clock.push((self.disk.steps(), self.clock.now()));
    }

    fn age(&mut self) {
        self.turn_the_clock(TURN);
        let before = self.store().engine().view.load().parts.len();
        self.runtime.block_on(self.store().enforce_retention()).unwrap();
        let gone = before - self.store().engine().view.load().parts.len();
        *self.done.entry("parts_outlived").or_default() += gone as u64;
    }

    fn restart(&mut self, in_order: bool) {
        self.count();
        if in_order {
            self.runtime.block_on(self.store().close()).unwrap();
        }
        self.store = None;
        self.store = Some(open(self.dir, &self.disk, &self.clock).expect("a store that was closed opens"));
    }

    pub(super) fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
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
