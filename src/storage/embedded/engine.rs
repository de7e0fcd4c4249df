//! The parts of the store put together, without tasks: everything here may block.
//!
//! A write goes to the head and to the log's queue under the [gate](Engine::gate), which a flush closes for the moment
//! in which it puts a new head in place and begins a new epoch of the log. So what is in a head is in the
//! segments of its epoch, and in no others.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;

use super::{
    admission::{self, Recalled},
    ballast::Ballast,
    books::Books,
    budget::{Budget, Pressure},
    catalog::ledger::Ledger,
    config::EmbeddedConfig,
    counters::{EmbeddedCounters, add},
    disk::{Disk, size_of_dir},
    documents::Documents,
    downsample::Downsampling,
    exemplars::Exemplars,
    head::{
        Head,
        append::{Begin, Surroundings, Written},
    },
    lock::Lock,
    part::PageCache,
    register::{MOST_TOMBSTONES, Register, hidden},
    replaced::Replaced,
    retention::Retention,
    rewrite::Rewrites,
    select::{Sight, find_in_head, wanted},
    view::{Elsewhere, View},
    wal::{
        Ticket, Wal,
        record::{put_exemplars, put_metadata, put_tombstone},
    },
};
use crate::{
    clock::Clock,
    model::{Labels, Metadata, TenantId, TimeRange},
    storage::{
        Appended, Cardinality, ChangeLog, Check, CheckState, Estimate, Health, IsOver, LabelsRequest,
        MatcherSets, PairCounts, RejectReason, Rejected, Replay, Result, SampleKind, SelectRequest, Selected,
        SeriesExemplars, Sift, StorageError, StorageStatus, Touched, WriteBatch,
    },
};

/// An open store.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: EmbeddedConfig,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counters: Arc<EmbeddedCounters>,
    pub(crate) ballast: Arc<Ballast>,
    pub(crate) cache: Arc<PageCache>,
    pub(crate) budget: Budget,
    pub(crate) wal: Wal,
    /// The head that takes writes; held while one goes to the head and to the log.
    pub(crate) gate: RwLock<Arc<Head>>,
    pub(crate) view: ArcSwap<View>,
    /// Held by whatever changes the parts, while they change: flush, merge, clean, retention.
    pub(crate) upkeep: Mutex<Upkeep>,
    /// Held by whatever makes parts of parts, from beginning to end; taken before `upkeep`.
    pub(crate) rewrites: Mutex<Rewrites>,
    pub(crate) retention: Retention,
    /// What is kept in fewer samples when it is old.
    pub(crate) downsampling: Downsampling,
    pub(crate) register: Register,
    /// Whose active series of before the start are known.
    pub(crate) recalled: Recalled,
    /// Whether somebody was refused a series since the last flush, because too many were active.
    pub(crate) crowded: AtomicBool,
    pub(crate) exemplars: Exemplars,
    /// Noted after they can be seen and before they are acknowledged.
    pub(crate) changes: ChangeLog,
    pub(super) documents: Documents,
    /// What was read back of the log at the start.
    pub(crate) replay: Replay,
    /// What was set aside or is missing, for a person.
    pub(crate) damage: Mutex<Vec<String>>,
    /// Parts that do not serve and might again, when somebody mends them or brings them back.
    pub(crate) absent: Vec<String>,
    /// As of when what is too old has been removed, or will be.
    pub(super) horizon: AtomicI64,
    pub(crate) closed: AtomicBool,
    /// Set shortly before the end: merges are given up.
    pub(crate) leaving: AtomicBool,
    /// Held until the store is closed or dropped.
    pub(crate) lock: Mutex<Option<Lock>>,
}

/// What only one at a time may change.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// A head that could not be flushed yet, and the last segment of its log.
    pub(crate) frozen: Option<(Arc<Head>, u64)>,
    pub(crate) next_part: u64,
    pub(crate) last_flush: Duration,
    /// Whether that one failed.
    pub(crate) flush_failed: bool,
    pub(crate) books: Books,
    /// A ledger that was written and that the catalog does not have yet.
    pub(crate) ledger: Option<Ledger>,
    /// Up to which segment everything is in parts.
    pub(crate) covers: u64,
    /// Segments up to this one are to be removed.
    pub(crate) spent: Option<u64>,
    /// What the start could not do away with, and must be gone before anything else is.
    pub(crate) replaced: Replaced,
    /// Files that no longer count, to be removed: what is deleted is gone only when they are.
    pub(crate) waste: BTreeSet<PathBuf>,
}

impl Engine {
    pub(crate) fn parts_dir(&self) -> PathBuf {
        self.config.data_dir.join("parts")
    }

    /// Refuses what comes after the end.
    pub(crate) fn is_open(&self) -> Result<()> {
        if self.closed.load(SeqCst) {
            return Err(StorageError::Unavailable {
                detail: "the store is closed".to_owned(),
                retry_after: None,
            });
        }
        Ok(())
    }

    fn short_of_memory(&self, detail: String) -> StorageError {
        add(&self.counters.memory_refused, 1);
        StorageError::Overloaded { detail, retry_after: Duration::from_secs(5) }
    }

    /// How short memory is.
    pub(crate) fn pressure(&self) -> Pressure {
        self.budget.pressure(self.view.load().heads.iter().map(|head| head.bytes()).sum())
    }

    /// Fails where memory is too short for a series to begin.
    pub(crate) fn may_begin(&self) -> Result<()> {
        if self.pressure() < Pressure::Series {
            return Ok(());
        }
        let limit = self.budget.limit();
        Err(self
            .short_of_memory(format!("no series can begin while so much of {limit} bytes of memory is used")))
    }

    /// Puts a batch into the head and the log's queue. It is durable when the ticket says so.
    ///
    /// What is put off comes back as a batch of its own.
    pub(crate) fn append(
        &self,
        tenant: &TenantId,
        mut batch: WriteBatch,
        begin: Begin<'_>,
    ) -> Result<(Appended, Ticket, Option<WriteBatch>)> {
        self.is_open()?;
        self.wal
            .admit(batch.samples.len() * 10 + batch.histograms.len() * 200 + batch.exemplars.len() * 300)?;
        let gate = self.gate.read();
        let view = self.view.load();
        let most = self.config.head_bytes;
        let all: u64 = view.heads.iter().map(|head| head.bytes()).sum();
        if gate.bytes() > most.saturating_mul(2) || all > most.saturating_mul(3) {
            return Err(self.short_of_memory(format!("what is not flushed takes {all} bytes of memory")));
        }
        let pressure = self.budget.pressure(all);
        if pressure >= Pressure::Samples {
            let room = self.budget.room();
            let detail =
                format!("what is not flushed takes {all} bytes of memory, and there is room for {room}");
            return Err(self.short_of_memory(detail));
        }
        let frozen = view.heads.len().checked_sub(2).map(|i| &*view.heads[i]);
        let log = |frames| self.wal.push_quietly(frames);
        let around = Surroundings {
            kept: &self.retention.at(tenant, self.clock.now()),
            previous: frozen,
            before: &Elsewhere { view: &view, tenant },
            log: &log,
        };
        let appended = gate.append(tenant, &batch, &around, begin);
        // Also after an error: any part may be there.
        let touched = Touched::by(&batch);
        self.changes.wrote(tenant, &touched);
        if let Some(range) = self.downsampling.written_into(&touched) {
            self.changes.changed(tenant, range);
        }
        let mut written = appended?;
        let rest = admission::put_off(&mut batch, &written.put_off);
        self.append_exemplars(tenant, &batch, &mut written);
        self.append_metadata(tenant, batch.metadata, &mut written.appended, &mut written.frames);
        let ticket = self.wal.push(written.frames);
        drop(gate);
        add(&self.counters.samples_appended, written.stored);
        add(&self.counters.samples_duplicate, written.duplicate);
        add(&self.counters.samples_out_of_order, written.out_of_order);
        add(&self.counters.samples_rejected, written.appended.rejected.len() as u64);
        add(&self.counters.series_created, written.created);
        Ok((written.appended, ticket, rest))
    }

    fn append_exemplars(&self, tenant: &TenantId, batch: &WriteBatch, written: &mut Written) {
        let kept = self.retention.at(tenant, self.clock.now());
        let Written { appended, frames, refused, .. } = written;
        let mut taken = Vec::new();
        for e in &batch.exemplars {
            let labels = || batch.labels.labels(e.series as usize);
            let too_old = kept.refuses(e.exemplar.timestamp, labels).then_some(RejectReason::TooOld);
            if let Some(reason) = too_old.or_else(|| refused.get(&e.series).copied()) {
                appended.rejected.push(Rejected {
                    series: e.series,
                    kind: SampleKind::Exemplar,
                    timestamp: e.exemplar.timestamp,
                    reason,
                });
                continue;
            }
            let series = labels();
            self.exemplars.insert(tenant, &series, e.exemplar.clone());
            taken.push((series, e.exemplar.clone()));
        }
        appended.exemplars = taken.len() as u64;
        put_exemplars(frames, tenant, &taken);
    }

    fn append_metadata(
        &self,
        tenant: &TenantId,
        metadata: Vec<Metadata>,
        appended: &mut Appended,
        frames: &mut Vec<u8>,
    ) {
        if !metadata.is_empty() {
            appended.metadata = metadata.len() as u64;
            let (news, refused) = self.register.describe(tenant, metadata);
            appended.metadata -= refused;
            add(&self.counters.metadata_rejected, refused);
            put_metadata(frames, tenant, &news);
        }
    }

    /// Hides samples; durable when the ticket says so.
    pub(crate) fn delete(&self, tenant: &TenantId, sets: MatcherSets, range: TimeRange) -> Result<Ticket> {
        self.is_open()?;
        self.wal.admit(1024)?;
        let gate = self.gate.read();
        let Some(tombstone) = self.register.hide(tenant, sets, range) else {
            return Err(StorageError::Unsupported(format!(
                "{MOST_TOMBSTONES} deletes wait to be cleaned, clean them first"
            )));
        };
        self.changes.changed(tenant, self.downsampling.changed_with(range));
        let mut frames = Vec::new();
        put_tombstone(&mut frames, tenant, &tombstone);
        let ticket = self.wal.push(frames);
        drop(gate);
        Ok(ticket)
    }

    /// Looks at what is left of a range, if anything is.
    fn see<T>(
        &self,
        tenant: &TenantId,
        range: TimeRange,
        look: impl FnOnce(Sight<'_>, Option<TimeRange>) -> Result<T>,
    ) -> Result<T> {
        self.is_open()?;
        // In this order: a tombstone goes after the samples it hides have gone from the view, or from what is kept.
        let tombstones = self.register.tombstones(tenant);
        let kept = self.kept(tenant);
        let view = self.view.load_full();
        let damaged = !self.damage.lock().is_empty();
        let left = kept.of_any(range);
        look(Sight { view: &view, tenant, tombstones: &tombstones, kept: &kept, damaged }, left)
    }

    /// Looks at what is left of a range; there is nothing to see where nothing is.
    fn see_kept<T: Default>(
        &self,
        tenant: &TenantId,
        range: TimeRange,
        look: impl FnOnce(Sight<'_>, TimeRange) -> Result<T>,
    ) -> Result<T> {
        self.see(tenant, range, |sight, kept| kept.map_or_else(|| Ok(T::default()), |kept| look(sight, kept)))
    }

    pub(crate) fn select(
        &self,
        tenant: &TenantId,
        request: &SelectRequest,
        is_over: IsOver<'_>,
    ) -> Result<Selected> {
        self.see(tenant, request.range, |sight, range| sight.select(request, range, is_over))
    }

    pub(crate) fn series(&self, tenant: &TenantId, request: &LabelsRequest) -> Result<Vec<Labels>> {
        self.see_kept(tenant, request.range, |mut sight, range| {
            sight.series(&request.matchers, range, request.limit)
        })
    }

    pub(crate) fn label_names(&self, tenant: &TenantId, request: &LabelsRequest) -> Result<Vec<String>> {
        self.see_kept(tenant, request.range, |mut sight, range| sight.label_names(request, range))
    }

    pub(crate) fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: &LabelsRequest,
    ) -> Result<Vec<String>> {
        self.see_kept(tenant, request.range, |mut sight, range| sight.label_values(name, request, range))
    }

    pub(crate) fn sift_label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: &LabelsRequest,
        sift: &dyn Sift,
    ) -> Result<()> {
        self.see_kept(tenant, request.range, |mut sight, range| {
            sight.sift_label_values(name, &request.matchers, range, sift)
        })
    }

    pub(crate) fn estimate(&self, tenant: &TenantId, request: &SelectRequest) -> Result<Estimate> {
        self.see_kept(tenant, request.range, |mut sight, range| sight.estimate(&request.sets(), range))
    }

    pub(crate) fn metadata(&self, tenant: &TenantId, metric: Option<&str>) -> Result<Vec<Metadata>> {
        self.is_open()?;
        Ok(self.register.metadata(tenant, metric))
    }

    pub(crate) fn exemplars(
        &self,
        tenant: &TenantId,
        sets: &MatcherSets,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>> {
        self.is_open()?;
        let tombstones = self.register.tombstones(tenant);
        let kept = self.kept(tenant);
        let Some(range) = kept.of_any(range) else { return Ok(Vec::new()) };
        let found = self.exemplars.of(
            tenant,
            |labels| wanted(sets, labels),
            |labels, e| {
                range.contains(e.timestamp)
                    && !kept.refuses(e.timestamp, || labels)
                    && !hidden(&tombstones, labels).iter().any(|r| r.contains(e.timestamp))
            },
        );
        Ok(found.into_iter().map(|(series, exemplars)| SeriesExemplars { series, exemplars }).collect())
    }

    pub(crate) fn cardinality(
        &self,
        tenant: &TenantId,
        sets: &MatcherSets,
        limit: usize,
    ) -> Result<Cardinality> {
        self.is_open()?;
        let view = self.view.load_full();
        let (active, frozen) = (view.active(), view.heads.len().checked_sub(2).map(|i| &view.heads[i]));
        let found = find_in_head(active, tenant, sets);
        let (mut chunks, mut range) = active.extent(tenant, &found);
        let some = |found| if sets.is_empty() { None } else { Some(found) };
        let mut counts = PairCounts::new(limit);
        let Some(frozen) = frozen else {
            active.each_pair(tenant, some(&found), |name, value, series| counts.add(name, value, series));
            return Ok(Cardinality { chunks, range, ..counts.done(found.len()) });
        };
        // While a head is written out most of its series are in the new one, too, and count once.
        let in_frozen = find_in_head(frozen, tenant, sets);
        let (more, of_frozen) = frozen.extent(tenant, &in_frozen);
        (chunks, range) = (chunks + more, union(range, of_frozen));
        let only_there = |number: &u32| {
            let id = frozen.look(*number, |series| series.id);
            id.is_some_and(|id| active.look_up(tenant, id, |_| ()).is_none())
        };
        let in_frozen: RoaringBitmap = in_frozen.into_iter().filter(only_there).collect();
        let mut pairs: HashMap<(String, String), u64> = HashMap::new();
        let mut add = |name: &str, value: &str, series| {
            *pairs.entry((name.to_owned(), value.to_owned())).or_default() += series;
        };
        active.each_pair(tenant, some(&found), &mut add);
        frozen.each_pair(tenant, Some(&in_frozen), &mut add);
        pairs.iter().for_each(|((name, value), series)| counts.add(name, value, *series));
        Ok(Cardinality { chunks, range, ..counts.done(found.len() + in_frozen.len()) })
    }

    /// How many series of a tenant are active.
    pub(crate) fn active_series(&self, tenant: &TenantId) -> u64 {
        self.view.load().active().active_series(tenant)
    }

    pub(crate) fn status(&self) -> Result<StorageStatus> {
        self.is_open()?;
        let view = self.view.load_full();
        self.gauge(&view);
        let dir = &self.config.data_dir;
        let size = |name: &str| size_of_dir(self.disk.as_ref(), &dir.join(name)).unwrap_or(0);
        let files = self.disk.list(dir).unwrap_or_default();
        let file = |name: &str| files.iter().filter(|e| e.name == name).map(|e| e.size).sum::<u64>();
        let named: u64 = files.iter().filter(|e| !e.is_dir).map(|e| e.size).sum();
        let mut quarantined = self.damage.lock().clone();
        quarantined.extend(view.parts.iter().filter_map(|p| p.damage()));
        let ranges = view.parts.iter().map(|p| p.range()).chain(view.heads.iter().map(|h| h.range()));
        Ok(StorageStatus {
            backend: "embedded",
            active_series: view.active().series_count() as u64,
            samples_appended: self.counters.samples_appended.load(Relaxed),
            disk_bytes: vec![
                ("wal", size("wal")),
                ("parts", size("parts")),
                ("catalog", size(super::catalog::CATALOG)),
                ("quarantine", size("quarantine")),
                ("ballast", file("BALLAST")),
                ("snapshots", self.snapshots_only().unwrap_or(0)),
                ("other", named - file("BALLAST")),
            ],
            part_samples: view.parts.iter().map(|p| p.samples()).sum(),
            parts: view.parts.len() as u64,
            range: ranges.fold(None, union),
            quarantined,
        })
    }

    /// Brings the gauges among the counters up to date.
    pub(crate) fn gauge(&self, view: &View) {
        let c = &self.counters;
        let heads = || view.heads.iter();
        c.head_series.store(view.active().series_count() as u64, Relaxed);
        c.head_samples.store(heads().map(|h| h.samples()).sum(), Relaxed);
        c.head_bytes.store(heads().map(|h| h.bytes()).sum(), Relaxed);
        c.parts.store(view.parts.len() as u64, Relaxed);
        let damaged = view.parts.iter().filter(|p| p.damage().is_some()).count();
        c.quarantined.store((self.damage.lock().len() + damaged) as u64, Relaxed);
    }

    pub(crate) fn health(&self) -> Health {
        if self.closed.load(SeqCst) {
            return Health::Unavailable { reason: "the store is closed".to_owned() };
        }
        match self.wal.refusal() {
            None => Health::Ready,
            Some(refusal) => Health::ReadOnly { reason: StorageError::from(refusal).to_string() },
        }
    }

    /// What of the engine is as it should be.
    pub(crate) fn checks(&self) -> Vec<Check> {
        self.gauge(&self.view.load());
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let check = |name: &str, state, detail| Check { name: name.to_owned(), state, detail };
        let (log, detail) = match self.health() {
            Health::Ready => {
                (CheckState::Ok, format!("{} segments begun", read(&self.counters.wal_segments)))
            }
            Health::Starting { progress: reason }
            | Health::ReadOnly { reason }
            | Health::Unavailable { reason } => (CheckState::Failed, reason),
        };
        let (parts, set_aside) = (read(&self.counters.parts), read(&self.counters.quarantined));
        let files = if set_aside == 0 { CheckState::Ok } else { CheckState::Degraded };
        let (series, bytes) = (read(&self.counters.head_series), read(&self.counters.head_bytes));
        let (head, short) = match self.pressure() {
            Pressure::None | Pressure::Flush => (CheckState::Ok, ""),
            Pressure::Series => (CheckState::Degraded, ": memory is short, and no series begins"),
            Pressure::Samples => (CheckState::Degraded, ": memory is short, and nothing is taken"),
        };
        vec![
            check("log", log, detail),
            check("head", head, format!("{series} series in about {bytes} bytes{short}")),
            check("parts", files, format!("{parts} serve, {set_aside} files are set aside")),
        ]
    }

    /// Flushes and stops. What cannot be flushed is in the log.
    pub(crate) fn close(&self) -> Result<()> {
        if self.closed.swap(true, SeqCst) {
            return Ok(());
        }
        self.leaving.store(true, Relaxed);
        // Parts can be merged another time; nobody is to touch a file when this is over.
        let _nobody_rewrites = self.rewrites.lock();
        let flushed = self.flush_with(&mut self.upkeep.lock());
        if let Err(error) = flushed {
            tracing::warn!(%error, "the last flush failed, the log keeps what it would have written");
        }
        self.wal.stop();
        self.upkeep.lock().books.close();
        if let Some(lock) = self.lock.lock().take() {
            lock.give_back();
        }
        Ok(())
    }
}

fn union(a: Option<TimeRange>, b: Option<TimeRange>) -> Option<TimeRange> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.union(b)),
        (a, b) => a.or(b),
    }
}
