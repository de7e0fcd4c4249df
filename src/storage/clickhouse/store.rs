//! The store: its parts, and which of them answers what.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use async_trait::async_trait;

use super::{
    census::Census,
    changes::ChangeNotes,
    client::{BreakerState, ClientCounters, EndpointState, Servers},
    config::ClickHouseConfig,
    deletes::Deletes,
    documents::Documents,
    migrate::Migrator,
    pushdown::{Pushdown, PushdownCounters, probe::Proven},
    read::{Reads, counters::ReadCounters},
    rollup::{RollupCounters, Rollups},
    watch::{FullestPartition, Watch},
    write::{WriteCounters, Writes},
};
use crate::{
    clock::Clock,
    model::{Labels, Metadata, TenantId, TimeRange},
    storage::{
        Appended, Cardinality, Changes, Check, CheckState, DocumentKind, Estimate, Health, LabelsRequest,
        MatcherSets, Replay, Result, SelectRequest, Selected, SeriesExemplars, Sift, Storage, StorageError,
        StorageStatus, WriteBatch,
    },
};

/// Our tables, for whoever asks what they take on disk.
const TABLES: [&str; 14] = [
    "samples",
    "histograms",
    "exemplars",
    "series",
    "label_values",
    "metadata",
    "tombstones",
    "documents",
    "changes",
    "rollup_5m",
    "rollup_1h",
    "rollup_progress",
    "rollup_late",
    "schema_migrations",
];

/// A store over ClickHouse.
#[derive(Debug)]
pub struct ClickHouseStore {
    clock: Arc<dyn Clock>,
    servers: Arc<Servers>,
    migrator: Arc<Migrator>,
    watch: Watch,
    writes: Arc<Writes>,
    reads: Reads,
    deletes: Arc<Deletes>,
    documents: Documents,
    changes: ChangeNotes,
    counters: Arc<ReadCounters>,
    queue_bytes: usize,
    pushdown: Arc<Pushdown>,
    rollups: Arc<Rollups>,
}

impl ClickHouseStore {
    /// Gets ready to use the servers, and does not wait for them: the store is
    /// [`Health::Starting`] until one answers and its schema is known to be ours.
    ///
    /// Background work runs on the runtime this is called in.
    pub fn open(config: ClickHouseConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let config = Arc::new(config);
        let servers = Arc::new(Servers::new(&config, Arc::clone(&clock))?);
        let migrator = Arc::new(Migrator::new(&config, Arc::clone(&clock))?);
        let counters = Arc::new(ReadCounters::default());
        let rollups = Rollups::new(Arc::clone(&servers), Arc::clone(&config), Arc::clone(&clock));
        let deletes = Arc::new(Deletes::new(
            Arc::clone(&servers),
            migrator.target().tables(),
            Arc::clone(&counters),
            Arc::clone(&rollups),
            Arc::clone(&clock),
        ));
        let documents = Documents::new(Arc::clone(&servers), Arc::clone(&clock), config.seed);
        let changes = ChangeNotes::new(Arc::clone(&servers), &config);
        let pushdown = Arc::new(Pushdown::new(Arc::clone(&servers), &config, Arc::clone(&clock)));
        Ok(Arc::new(Self {
            watch: Watch::start(Arc::clone(&migrator)),
            clock: Arc::clone(&clock),
            servers: Arc::clone(&servers),
            queue_bytes: config.batch.queue_bytes,
            writes: Arc::new(Writes::new(Arc::clone(&servers), Arc::clone(&config), Arc::clone(&clock))),
            reads: Reads::new(
                Arc::clone(&servers),
                config,
                clock,
                Arc::clone(&deletes),
                Arc::clone(&counters),
                Arc::clone(&pushdown),
                Arc::clone(&rollups),
            ),
            pushdown,
            deletes,
            documents,
            changes,
            migrator,
            counters,
            rollups,
        }))
    }

    /// What the way in counts.
    pub fn write_counters(&self) -> Arc<WriteCounters> {
        self.writes.counters()
    }

    /// What reading and deleting count.
    pub fn read_counters(&self) -> &ReadCounters {
        &self.counters
    }

    /// What is counted of work that the servers do for us.
    pub fn pushdown_counters(&self) -> &Arc<PushdownCounters> {
        self.pushdown.counters()
    }

    /// Which functions the servers have shown to know, once there was something to ask of them.
    pub fn pushdown_proven(&self) -> Option<Arc<Proven>> {
        self.pushdown.proven()
    }

    /// Brings the schema to what this version needs.
    pub async fn apply_schema(&self) -> Result<()> {
        self.migrator.apply(|_| ()).await?;
        Ok(())
    }

    /// What the client counts.
    pub fn client_counters(&self) -> &ClientCounters {
        self.servers.counters()
    }

    /// How each server stands, in the order of the configuration.
    pub fn servers(&self) -> Vec<EndpointState> {
        self.servers.endpoints()
    }

    /// How near the tables are to being written to no more; none is not known.
    pub fn parts(&self) -> Option<FullestPartition> {
        self.watch.parts()
    }

    /// The bytes of rows that may wait.
    pub fn queue_limit_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// Rolls up what has closed, as is done in the background if the configuration says so.
    pub async fn roll_up(&self) -> Result<()> {
        self.rollups.pass().await
    }

    /// What is counted of the rolling up.
    pub fn rollup_counters(&self) -> &RollupCounters {
        self.rollups.counters()
    }
}

#[async_trait]
impl Storage for ClickHouseStore {
    async fn append(&self, tenant: &TenantId, batch: WriteBatch) -> Result<Appended> {
        let late = self.rollups.late(tenant, &batch);
        if late.is_empty() {
            return self.writes.append(tenant, batch).await;
        }
        let (writes, rollups) = (Arc::clone(&self.writes), Arc::clone(&self.rollups));
        let tenant = tenant.clone();
        // Whether it failed or nobody waits for it any longer: samples may be there now.
        let append = crate::task::spawn("clickhouse-late", async move {
            let appended = writes.append(&tenant, batch).await;
            let marked = rollups.mark(&tenant, late).await;
            appended.and_then(|appended| marked.map(|()| appended))
        });
        append.await.map_err(|error| StorageError::Remote { detail: format!("appending: {error}") })?
    }

    async fn select(&self, tenant: &TenantId, request: SelectRequest) -> Result<Selected> {
        self.reads.select(tenant, request).await
    }

    async fn series(&self, tenant: &TenantId, request: LabelsRequest) -> Result<Vec<Labels>> {
        self.reads.series(tenant, request).await
    }

    async fn label_names(&self, tenant: &TenantId, request: LabelsRequest) -> Result<Vec<String>> {
        self.reads.label_names(tenant, request).await
    }

    async fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        self.reads.label_values(tenant, name, request).await
    }

    async fn sift_label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
        sift: Arc<dyn Sift>,
    ) -> Result<()> {
        self.reads.sift_label_values(tenant, name, request, sift.as_ref()).await
    }

    async fn estimate(&self, tenant: &TenantId, request: SelectRequest) -> Result<Estimate> {
        self.reads.estimate(tenant, request).await
    }

    async fn metadata(&self, tenant: &TenantId, metric: Option<&str>) -> Result<Vec<Metadata>> {
        self.reads.metadata(tenant, metric).await
    }

    async fn exemplars(
        &self,
        tenant: &TenantId,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>> {
        self.reads.exemplars(tenant, matchers, range).await
    }

    async fn delete(&self, tenant: &TenantId, matchers: MatcherSets, range: TimeRange) -> Result<()> {
        self.deletes.delete(tenant, matchers, range).await
    }

    async fn clean_tombstones(&self, tenant: &TenantId) -> Result<()> {
        self.deletes.clean(tenant).await
    }

    async fn cardinality(
        &self,
        tenant: &TenantId,
        matchers: MatcherSets,
        limit: usize,
    ) -> Result<Cardinality> {
        self.reads.cardinality(tenant, &matchers, limit).await
    }

    fn active_series(&self, tenant: &TenantId) -> Option<u64> {
        self.writes.active_series(tenant)
    }

    async fn put_document(&self, tenant: &TenantId, kind: DocumentKind, text: Option<String>) -> Result<()> {
        self.documents.put(tenant, kind, text).await
    }

    async fn documents(&self, kind: DocumentKind) -> Result<Vec<(TenantId, String)>> {
        self.documents.all(kind).await
    }

    async fn changes(&self, tenant: &TenantId, range: TimeRange) -> Result<Option<Changes>> {
        self.changes.of(tenant, range, &self.reads).await
    }

    async fn flush(&self) -> Result<()> {
        self.writes.flush().await
    }

    async fn snapshot(&self, _: bool) -> Result<String> {
        Err(StorageError::Unsupported(
            "snapshots are of the files of the embedded storage; ClickHouse makes backups of its own: \
             luminate backup create"
                .to_owned(),
        ))
    }

    async fn enforce_retention(&self) -> Result<()> {
        // Parts carry their end; the servers drop them.
        Ok(())
    }

    async fn status(&self) -> Result<StorageStatus> {
        let census = Census { servers: self.migrator.servers(), target: self.migrator.target() };
        let tables = census.tables().await?;
        let rows_of = |names: &[&str]| -> u64 {
            tables.iter().filter(|table| names.contains(&table.name.as_str())).map(|table| table.rows).sum()
        };
        let disk_bytes = TABLES
            .iter()
            .map(|name| {
                (*name, tables.iter().filter(|table| table.name == *name).map(|table| table.bytes).sum())
            })
            .collect();
        Ok(StorageStatus {
            backend: "clickhouse",
            active_series: census.series_on(self.clock.now().day()).await?,
            samples_appended: self.writes.counters().samples_written.load(Relaxed),
            disk_bytes,
            part_samples: rows_of(&["samples", "histograms"]),
            parts: tables.iter().map(|table| table.parts).sum(),
            range: census.range().await?,
            quarantined: Vec::new(),
        })
    }

    fn health(&self) -> Health {
        let health = self.watch.health();
        let answers = |server: &EndpointState| server.breaker == BreakerState::Closed;
        if health == Health::Ready && !self.servers.endpoints().iter().any(answers) {
            return Health::Unavailable { reason: "no server of ClickHouse answers".to_owned() };
        }
        health
    }

    fn replay(&self) -> Option<Replay> {
        None
    }

    fn checks(&self) -> Vec<Check> {
        let mut checks = self.watch.checks();
        checks.extend(self.servers.endpoints().iter().map(of_server));
        let (waiting, most) = (self.writes.counters().queue_bytes.load(Relaxed), self.queue_bytes as u64);
        // More than half of it, and senders are about to be told to come back.
        let state = if waiting > most / 2 { CheckState::Degraded } else { CheckState::Ok };
        let detail = format!("{waiting} of {most} bytes wait to be written");
        checks.push(Check { name: "queue".to_owned(), state, detail });
        checks.push(Check {
            name: "pushdown".to_owned(),
            state: CheckState::Ok,
            detail: self.pushdown.standing(),
        });
        checks
    }

    async fn close(&self) -> Result<()> {
        self.watch.stop();
        self.rollups.close();
        self.deletes.stop();
        self.writes.close().await
    }
}

/// How a server stands.
fn of_server(server: &EndpointState) -> Check {
    let (state, breaker) = match server.breaker {
        BreakerState::Closed => (CheckState::Ok, "used"),
        BreakerState::Open => (CheckState::Degraded, "left alone until it answers a probe"),
        BreakerState::Probing => (CheckState::Degraded, "left alone, and being probed"),
    };
    let mut detail = format!("{breaker}, {} statements under way", server.in_flight);
    if let Some(last) = &server.last_failure {
        detail.push_str(&format!("; the last failure was {} at {}", last.class.as_str(), last.at));
    }
    Check { name: format!("server {}", server.address), state, detail }
}
