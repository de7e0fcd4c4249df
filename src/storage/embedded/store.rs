//! The engine as a [`Storage`]: calls that may block go to threads that may, and upkeep happens by itself.

use std::{
    fmt,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    backup::LastBackup, budget::Pressure, config::EmbeddedConfig, counters::EmbeddedCounters, disk::Disk,
    engine::Engine, head::append::Begin, pace::Haste, wal::Ticket,
};
use crate::{
    clock::Clock,
    model::{Labels, Metadata, TenantId, TimeRange},
    storage::{
        AppendPolicy, Appended, Cardinality, Changes, Check, DocumentKind, Estimate, Health, IsOver,
        LabelsRequest, MatcherSets, Replay, Result, SelectHere, SelectRequest, Selected, SeriesExemplars,
        Sift, Storage, StorageError, StorageStatus, WriteBatch, room::Allowance,
    },
};

/// How often upkeep looks whether there is something to do.
const LOOK: Duration = Duration::from_millis(500);
/// How often what is too old is removed.
const RETENTION: Duration = Duration::from_secs(3600);
/// How often parts are looked at, whether some are to be merged.
const MERGES: Duration = Duration::from_secs(2);
/// How often all parts are looked at, whether much of one is hidden.
const TIDY: Duration = Duration::from_secs(3600);
/// How often the reserve is laid down again, if it is not there.
const BALLAST: Duration = Duration::from_secs(30);

/// A store in a directory of this machine.
pub struct EmbeddedStore {
    engine: Arc<Engine>,
    stop: watch::Sender<bool>,
    /// Flushes and the like, and merges and the like, which must not keep the former waiting.
    upkeep: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("data_dir", &self.engine.config.data_dir)
            .finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store in a directory, or begins one there. Blocks while the log is replayed.
    ///
    /// Within a tokio runtime flush and retention happen by themselves; without one, on request.
    pub fn open(config: EmbeddedConfig, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let engine = Arc::new(Engine::open_at(config, disk, clock)?);
        let (stop, stopped) = watch::channel(false);
        let upkeep = tokio::runtime::Handle::try_current().ok().map(|runtime| {
            let _inside = runtime.enter();
            let upkeep = upkeep(Arc::downgrade(&engine), stopped.clone());
            let rewrites = rewrites(Arc::downgrade(&engine), stopped);
            vec![
                crate::task::spawn("embedded-upkeep", upkeep),
                crate::task::spawn("embedded-rewrites", rewrites),
            ]
        });
        let upkeep = upkeep.unwrap_or_default();
        Ok(Arc::new(Self { engine, stop, upkeep: Mutex::new(upkeep) }))
    }

    /// What the engine counts of itself, gauges as of now.
    pub fn counters(&self) -> Arc<EmbeddedCounters> {
        self.engine.gauge(&self.engine.view.load());
        Arc::clone(&self.engine.counters)
    }

    /// The last backup that was made of it, as the data directory tells.
    pub fn last_backup(&self) -> Option<LastBackup> {
        LastBackup::read(self.engine.disk.as_ref(), &self.engine.config.data_dir)
    }

    /// The engine, without tasks.
    #[cfg(test)]
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Lets the store know what others in this process hold of the memory that it plans with.
    pub fn share_memory(&self, others: Arc<dyn Fn() -> u64 + Send + Sync>) {
        self.engine.budget.share(others);
    }

    async fn append_with(
        &self,
        tenant: &TenantId,
        batch: WriteBatch,
        begin: Begin<'static>,
    ) -> Result<(Appended, Ticket, Option<WriteBatch>)> {
        if batch.policy == AppendPolicy::default() {
            return self.engine.append(tenant, batch, begin);
        }
        // Such a batch may have to look into parts.
        let tenant = tenant.clone();
        self.blocking(move |engine| engine.append(&tenant, batch, begin)).await
    }

    /// Appends what has series already; then as many series as may begin.
    async fn append_bounded(&self, tenant: &TenantId, batch: WriteBatch) -> Result<Appended> {
        let room = batch.room.as_ref().map(Arc::clone);
        let (mut appended, ticket, rest) = self.append_with(tenant, batch, Begin::None).await?;
        let (Some(rest), Some(room)) = (rest, room) else {
            ticket.wait().await?;
            return Ok(appended);
        };
        // What was taken is kept, and is no harm when all of it is sent again.
        self.engine.may_begin()?;
        let of = tenant.clone();
        let (rest, wanted, active) = self
            .blocking(move |engine| {
                engine.recall(&of);
                let wanted = engine.unknown_series(&of, &rest);
                Ok((rest, wanted, engine.active_series(&of)))
            })
            .await?;
        let mut allowance = Allowance::ask(room.as_ref(), active, wanted).await;
        let of = tenant.clone();
        let (rest, ticket) = self
            .blocking(move |engine| {
                let (mut rest, ticket, _) = engine.append(&of, rest, Begin::Some(&mut allowance))?;
                rest.over = allowance.over(engine.active_series(&of));
                if allowance.is_crowded() {
                    engine.crowded.store(true, Relaxed);
                }
                Ok((rest, ticket))
            })
            .await?;
        appended.add(rest);
        appended.rejected.sort_by_key(|r| (r.series, r.timestamp));
        // It stands for all that was pushed before, too.
        ticket.wait().await?;
        Ok(appended)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || work(&engine)).await.unwrap_or_else(|e| {
            Err(StorageError::Unavailable { detail: format!("the work was lost: {e}"), retry_after: None })
        })
    }
}

/// Flushes when it is time, removes what is too old, and lays the reserve down again.
async fn upkeep(engine: Weak<Engine>, mut stopped: watch::Receiver<bool>) {
    let mut last_retention = None;
    let mut last_ballast = Duration::ZERO;
    loop {
        tokio::select! {
            // The sender is gone when the store was dropped.
            _ = stopped.changed() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let Some(engine) = engine.upgrade() else { return };
        let now = engine.clock.elapsed();
        let retention = last_retention.is_none_or(|last| now.saturating_sub(last) >= RETENTION);
        let ballast = now.saturating_sub(last_ballast) >= BALLAST;
        if retention {
            last_retention = Some(now);
        }
        if ballast {
            last_ballast = now;
        }
        let work = move || {
            if engine.flush_is_due()
                && let Err(error) = engine.flush_head()
            {
                tracing::error!(%error, "a flush failed, the log keeps what it would have written");
            }
            if retention && let Err(error) = engine.enforce_retention() {
                tracing::error!(%error, "what is too old could not be removed");
            }
            if ballast && engine.wal.refusal().is_none() {
                engine.ballast.restore(engine.config.segment_bytes.saturating_mul(2));
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%error, "upkeep of the store failed");
        }
    }
}

/// Merges parts when it is time, takes out of them what is hidden, and downsamples what is old, at a pace that leaves room
/// for others.
async fn rewrites(engine: Weak<Engine>, mut stopped: watch::Receiver<bool>) {
    let mut last_tidy = engine.upgrade().map(|engine| engine.clock.elapsed()).unwrap_or_default();
    let mut downsamples = false;
    loop {
        tokio::select! {
            // The sender is gone when the store was dropped.
            _ = stopped.changed() => return,
            () = tokio::time::sleep(MERGES) => {}
        }
        let Some(engine) = engine.upgrade() else { return };
        let now = engine.clock.elapsed();
        let tidy = now.saturating_sub(last_tidy) >= TIDY;
        if tidy {
            last_tidy = now;
        }
        let look = downsamples || tidy;
        let work = move || {
            engine.merge_days(Haste::Paced);
            if tidy && let Err(error) = engine.tidy(Haste::Paced) {
                tracing::warn!(%error, "what is hidden could not be taken out of parts");
            }
            // One part at a time: merges do not wait for years of them.
            look && engine.downsample_next(Haste::Paced).unwrap_or_else(|error| {
                tracing::warn!(%error, "old samples could not be downsampled");
                false
            })
        };
        downsamples = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "merging parts failed");
            false
        });
    }
}

impl SelectHere for EmbeddedStore {
    fn select_here(
        &self,
        tenant: &TenantId,
        request: &SelectRequest,
        is_over: IsOver<'_>,
    ) -> Result<Selected> {
        self.engine.select(tenant, request, is_over)
    }
}

#[async_trait]
impl Storage for EmbeddedStore {
    async fn append(&self, tenant: &TenantId, batch: WriteBatch) -> Result<Appended> {
        if batch.room.is_some() {
            return self.append_bounded(tenant, batch).await;
        }
        let short = self.engine.pressure() >= Pressure::Series;
        let begin = if short { Begin::None } else { Begin::All };
        let (appended, ticket, rest) = self.append_with(tenant, batch, begin).await?;
        ticket.wait().await?;
        if rest.is_some() {
            self.engine.may_begin()?;
            // There is room again, and the sender comes again.
            return Err(StorageError::Overloaded {
                detail: "series could not begin while memory was short".to_owned(),
                retry_after: Duration::from_secs(1),
            });
        }
        Ok(appended)
    }

    async fn select(&self, tenant: &TenantId, request: SelectRequest) -> Result<Selected> {
        let tenant = tenant.clone();
        self.blocking(move |engine| engine.select(&tenant, &request, &|| false)).await
    }

    fn here(&self) -> Option<&dyn SelectHere> {
        Some(self)
    }

    async fn series(&self, tenant: &TenantId, request: LabelsRequest) -> Result<Vec<Labels>> {
        let tenant = tenant.clone();
        self.blocking(move |engine| engine.series(&tenant, &request)).await
    }

    async fn label_names(&self, tenant: &TenantId, request: LabelsRequest) -> Result<Vec<String>> {
        let tenant = tenant.clone();
        self.blocking(move |engine| engine.label_names(&tenant, &request)).await
    }

    async fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        let (tenant, name) = (tenant.clone(), name.to_owned());
        self.blocking(move |engine| engine.label_values(&tenant, &name, &request)).await
    }

    async fn sift_label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
        sift: Arc<dyn Sift>,
    ) -> Result<()> {
        let (tenant, name) = (tenant.clone(), name.to_owned());
        self.blocking(move |engine| engine.sift_label_values(&tenant, &name, &request, sift.as_ref())).await
    }

    async fn estimate(&self, tenant: &TenantId, request: SelectRequest) -> Result<Estimate> {
        let tenant = tenant.clone();
        self.blocking(move |engine| engine.estimate(&tenant, &request)).await
    }

    async fn metadata(&self, tenant: &TenantId, metric: Option<&str>) -> Result<Vec<Metadata>> {
        self.engine.metadata(tenant, metric)
    }

    async fn exemplars(
        &self,
        tenant: &TenantId,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>> {
        let tenant = tenant.clone();
        self.blocking(move |engine| engine.exemplars(&tenant, &matchers, range)).await
    }

    async fn delete(&self, tenant: &TenantId, matchers: MatcherSets, range: TimeRange) -> Result<()> {
        self.engine.delete(tenant, matchers, range)?.wait().await
    }

    async fn clean_tombstones(&self, tenant: &TenantId) -> Result<()> {
        let tenant = tenant.clone();
        self.blocking(move |engine| engine.clean_tombstones(&tenant)).await
    }

    async fn cardinality(
        &self,
        tenant: &TenantId,
        matchers: MatcherSets,
        limit: usize,
    ) -> Result<Cardinality> {
        let tenant = tenant.clone();
        self.blocking(move |engine| engine.cardinality(&tenant, &matchers, limit)).await
    }

    fn active_series(&self, tenant: &TenantId) -> Option<u64> {
        Some(self.engine.active_series(tenant))
    }

    async fn put_document(&self, tenant: &TenantId, kind: DocumentKind, text: Option<String>) -> Result<()> {
        let tenant = tenant.clone();
        self.blocking(move |engine| {
            engine.is_open()?;
            engine.documents.put(&tenant, kind, text)
        })
        .await
    }

    async fn documents(&self, kind: DocumentKind) -> Result<Vec<(TenantId, String)>> {
        // Who changes one holds them until that is durable.
        self.blocking(move |engine| {
            engine.is_open()?;
            Ok(engine.documents.all(kind))
        })
        .await
    }

    async fn changes(&self, tenant: &TenantId, range: TimeRange) -> Result<Option<Changes>> {
        self.engine.is_open()?;
        Ok(Some(self.engine.changes.of(tenant, range)))
    }

    async fn flush(&self) -> Result<()> {
        self.blocking(|engine| {
            engine.is_open()?;
            engine.flush()
        })
        .await
    }

    async fn snapshot(&self, skip_head: bool) -> Result<String> {
        self.blocking(move |engine| {
            engine.is_open()?;
            engine.snapshot(skip_head)
        })
        .await
    }

    async fn enforce_retention(&self) -> Result<()> {
        self.blocking(|engine| {
            engine.is_open()?;
            engine.enforce_retention()
        })
        .await
    }

    async fn status(&self) -> Result<StorageStatus> {
        self.blocking(Engine::status).await
    }

    fn health(&self) -> Health {
        self.engine.health()
    }

    fn checks(&self) -> Vec<Check> {
        self.engine.checks()
    }

    fn replay(&self) -> Option<Replay> {
        Some(self.engine.replay)
    }

    async fn close(&self) -> Result<()> {
        // Nobody listens if upkeep never began.
        let _ = self.stop.send(true);
        // A merge that upkeep is at could take longer than we are given.
        self.engine.leaving.store(true, Relaxed);
        let upkeep = std::mem::take(&mut *self.upkeep.lock());
        for task in upkeep {
            if let Err(error) = task.await {
                tracing::warn!(%error, "upkeep did not end in order");
            }
        }
        self.blocking(Engine::close).await
    }
}
