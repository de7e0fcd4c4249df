//! From a batch to inserts.
//!
//! ```text
//! append ─ take apart ─┬─ samples, histograms, exemplars, metadata ─┐
//!                      └─ registry: series new today? ─ series ─────┴▶ a batcher each ─▶ inserts
//! ```
//!
//! * [`parts`]: what a batch has for each table, and what is refused.
//! * [`active`]: which series may begin, where that is bounded.
//! * [`registry`]: which series ClickHouse knows already.
//! * [`batcher`]: rows of many requests become few inserts.
//! * [`slip`]: who waits for which of them.
//!
//! An append is answered when ClickHouse has acknowledged all of its rows, those of its series too, whoever
//! sent them. Nothing is kept here that would be missed: what is queued has not been answered.

mod active;
mod batcher;
mod counters;
mod known;
mod lot;
mod newest;
mod parts;
mod registry;
mod retention;
mod room;
mod rows;
mod send;
mod slip;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use self::{
    active::Actives,
    batcher::{Batcher, Piece},
    counters::{add, set, sub},
    known::KnownMetadata,
    newest::Newest,
    parts::Parts,
    registry::Registry,
    retention::Retention,
    room::{Room, Rooms},
    rows::Table,
    send::{Inserter, Sender},
    slip::{Part, Slip},
};
use super::{
    client::{Failure, Servers},
    config::ClickHouseConfig,
};
use crate::{
    clock::Clock,
    model::TenantId,
    storage::{Appended, OnConflict, Result, StorageError, WriteBatch},
};

pub use counters::WriteCounters;

/// When those may come again whose rows the servers have not taken.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The way in.
#[derive(Debug)]
pub(super) struct Writes {
    config: Arc<ClickHouseConfig>,
    clock: Arc<dyn Clock>,
    retention: Retention,
    registry: Arc<Registry>,
    metadata: KnownMetadata,
    newest: Newest,
    actives: Arc<Actives>,
    rooms: Arc<Rooms>,
    batchers: Batchers,
    counters: Arc<WriteCounters>,
    closed: AtomicBool,
}

/// One for each table.
#[derive(Debug)]
struct Batchers {
    samples: Arc<Batcher>,
    histograms: Arc<Batcher>,
    exemplars: Arc<Batcher>,
    series: Arc<Batcher>,
    metadata: Arc<Batcher>,
}

impl Batchers {
    fn all(&self) -> [&Arc<Batcher>; 5] {
        [&self.samples, &self.histograms, &self.exemplars, &self.series, &self.metadata]
    }

    fn of(&self, table: Table) -> &Batcher {
        match table {
            Table::Samples => &self.samples,
            Table::Histograms => &self.histograms,
            Table::Exemplars => &self.exemplars,
            Table::Series => &self.series,
            Table::Metadata => &self.metadata,
        }
    }
}

impl Writes {
    /// The way to some servers. Background work runs on the runtime this is called in.
    pub(super) fn new(servers: Arc<Servers>, config: Arc<ClickHouseConfig>, clock: Arc<dyn Clock>) -> Self {
        let newest = Newest::new(Arc::clone(&servers));
        Self::over(servers, newest, config, clock)
    }

    fn over(
        inserter: Arc<dyn Inserter>,
        newest: Newest,
        config: Arc<ClickHouseConfig>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let counters = Arc::new(WriteCounters::default());
        let (timeout, seed) = (config.insert_timeout, config.seed);
        let sender = Sender::new(inserter, timeout, seed, Arc::clone(&clock), Arc::clone(&counters));
        let batcher = |table| Batcher::start(table, config.batch, Arc::clone(&sender));
        Self {
            retention: Retention::new(&config),
            registry: Registry::new(Arc::clone(&counters)),
            metadata: KnownMetadata::default(),
            actives: Actives::new(newest.servers(), Arc::clone(&clock)),
            newest,
            rooms: Rooms::new(config.batch.queue_bytes),
            batchers: Batchers {
                samples: batcher(Table::Samples),
                histograms: batcher(Table::Histograms),
                exemplars: batcher(Table::Exemplars),
                series: batcher(Table::Series),
                metadata: batcher(Table::Metadata),
            },
            counters,
            closed: AtomicBool::new(false),
            config,
            clock,
        }
    }

    /// What happened here so far.
    pub(super) fn counters(&self) -> Arc<WriteCounters> {
        set(&self.counters.queue_bytes, self.rooms.taken());
        Arc::clone(&self.counters)
    }

    /// Writes a batch, within the time that an insert may take all in all.
    pub(super) async fn append(&self, tenant: &TenantId, batch: WriteBatch) -> Result<Appended> {
        let limit = self.config.insert_timeout;
        let appended = tokio::time::timeout(limit, self.append_whole(tenant, batch)).await;
        appended.unwrap_or_else(|_| Err(write_error(slip::late(limit))))
    }

    async fn append_whole(&self, tenant: &TenantId, batch: WriteBatch) -> Result<Appended> {
        if batch.policy.on_conflict == OnConflict::Reject {
            return Err(StorageError::Unsupported(
                "ClickHouse keeps the greatest of values in conflict; on_conflict cannot be reject"
                    .to_owned(),
            ));
        }
        let now = self.clock.now();
        let keep = self.retention.keep(tenant, now);
        let mut verdicts = self.newest.judge(tenant, &batch, keep).await.map_err(write_error)?;
        let (mut places, mut over) = (None, Vec::new());
        if let Some(room) = &batch.room {
            let things = parts::things(&batch, keep, &verdicts);
            let judged = self.actives.judge(tenant, room.as_ref(), &batch, things, &self.registry).await;
            let judged = judged.map_err(write_error)?;
            (verdicts.refused, over, places) = (judged.refused, judged.over, judged.places);
        }
        let mut claim = self.registry.claim(tenant, now);
        let known = |metadata: &_| self.metadata.has(tenant, metadata, self.clock.as_ref());
        let limits = &self.config.batch;
        let (parts, mut appended) =
            parts::take_apart(tenant, &batch, keep, &verdicts, &mut claim, known, now, limits);
        let series = parts.series(&batch, &claim.new, keep, limits);
        let ahead = parts.series(&batch, &claim.ahead, keep, limits);
        let room = Arc::new(self.room(tenant, parts.bytes() + series.bytes() + ahead.bytes())?);

        let (part, mut waiting) = Slip::awaited();
        let registration = claim.registration;
        let registered = part.another();
        let registered = Slip::then(move |outcome| {
            registration.settle(&outcome);
            // They are there now, whether or not anybody still waits to hear of it.
            if let Some(places) = places.filter(|_| outcome.is_ok()) {
                places.settle();
            }
            registered.settle(&outcome);
        });
        let registration = claim.ahead_registration;
        let registered_ahead = Slip::then(move |outcome| registration.settle(&outcome));
        for (parts, part) in [(parts, &part), (series, &registered), (ahead, &registered_ahead)] {
            self.put(parts, part, &room);
        }
        drop(room);
        for part in [part, registered, registered_ahead] {
            part.settle(&Ok(()));
        }

        let _waiter = Waiter::new(&self.counters);
        waiting.outcome().await.map_err(write_error)?;
        for flight in claim.flights {
            flight.outcome().await.map_err(write_error)?;
        }

        appended.over = over;
        for metadata in &batch.metadata {
            self.metadata.told(tenant, metadata, self.clock.as_ref());
        }
        self.newest.written(tenant, &batch, &verdicts);
        add(&self.counters.samples_written, usize::try_from(appended.samples).unwrap_or(usize::MAX));
        add(&self.counters.samples_rejected, appended.rejected.len());
        Ok(appended)
    }

    /// Room for a request's rows.
    fn room(&self, tenant: &TenantId, bytes: usize) -> Result<Room> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StorageError::Unavailable { detail: "closing".to_owned(), retry_after: None });
        }
        self.rooms.take(tenant, bytes).inspect_err(|_| add(&self.counters.overloads, 1))
    }

    /// How many series of a tenant are active, if that is counted.
    pub(super) fn active_series(&self, tenant: &TenantId) -> Option<u64> {
        self.actives.count(tenant)
    }

    /// Hands rows to the batchers.
    fn put(&self, parts: Parts, part: &Part, room: &Arc<Room>) {
        for (table, lot, rows) in parts.rows {
            let piece = Piece {
                lot,
                tenant: Arc::clone(&parts.tenant),
                rows,
                part: part.another(),
                room: Arc::clone(room),
            };
            self.batchers.of(table).put(piece);
        }
    }

    /// Waits until what is queued is written, or refused.
    pub(super) async fn flush(&self) -> Result<()> {
        for batcher in self.batchers.all() {
            batcher.flush().await;
        }
        Ok(())
    }

    /// Takes no more, and writes what is queued as long as an insert may take.
    pub(super) async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let flushed = tokio::time::timeout(self.config.insert_timeout, self.flush()).await;
        flushed.unwrap_or_else(|_| Err(write_error(slip::late(self.config.insert_timeout))))
    }
}

/// Counts one who waits, as long as it does.
struct Waiter<'a>(&'a WriteCounters);

impl<'a> Waiter<'a> {
    fn new(counters: &'a WriteCounters) -> Self {
        add(&counters.waiters, 1);
        Self(counters)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        sub(&self.0.waiters, 1);
    }
}

/// What a writer is told: never that it is to blame, for then it would throw its samples away.
fn write_error(failure: Failure) -> StorageError {
    let mut failure = failure.of_insert();
    failure.retry_after.get_or_insert(RETRY_AFTER);
    StorageError::from(failure)
}
