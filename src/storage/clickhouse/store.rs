//! The store: its parts, and which of them answers what.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    client::Servers,
    config::ClickHouseConfig,
    deletes::Deletes,
    migrate::Migrator,
    read::{Reads, counters::ReadCounters},
    tables::Tables,
    write::Writes,
};
use crate::{
    clock::Clock,
    model::{Labels, Metadata, TenantId, TimeRange},
    storage::{
        Appended, Cardinality, Health, LabelsRequest, MatcherSets, Result, SelectRequest, Selected,
        SeriesExemplars, Storage, StorageStatus, WriteBatch,
    },
};

/// A store over ClickHouse.
#[derive(Debug)]
pub struct ClickHouseStore {
    migrator: Arc<Migrator>,
    writes: Writes,
    reads: Reads,
    deletes: Arc<Deletes>,
    counters: Arc<ReadCounters>,
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
        let deletes = Arc::new(Deletes::new(
            Arc::clone(&servers),
            Tables::new(config.cluster.as_deref()),
            Arc::clone(&counters),
            Arc::clone(&clock),
        ));
        Ok(Arc::new(Self {
            writes: Writes::new(Arc::clone(&servers), Arc::clone(&config), Arc::clone(&clock)),
            reads: Reads::new(
                Arc::clone(&servers),
                config,
                clock,
                Arc::clone(&deletes),
                Arc::clone(&counters),
            ),
            deletes,
            migrator,
            counters,
        }))
    }

    /// What reading and deleting count.
    pub fn read_counters(&self) -> &ReadCounters {
        &self.counters
    }

    /// Brings the schema to what this version needs.
    pub async fn apply_schema(&self) -> Result<()> {
        self.migrator.apply(|_| ()).await?;
        Ok(())
    }
}

#[async_trait]
impl Storage for ClickHouseStore {
    async fn append(&self, tenant: &TenantId, batch: WriteBatch) -> Result<Appended> {
        self.writes.append(tenant, batch).await
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

    async fn cardinality(&self, tenant: &TenantId, limit: usize) -> Result<Cardinality> {
        self.reads.cardinality(tenant, limit).await
    }

    async fn flush(&self) -> Result<()> {
        self.writes.flush().await
    }

    async fn enforce_retention(&self) -> Result<()> {
        // Parts carry their end; the servers drop them.
        Ok(())
    }

    async fn status(&self) -> Result<StorageStatus> {
        Ok(StorageStatus { backend: "clickhouse", ..StorageStatus::default() })
    }

    fn health(&self) -> Health {
        Health::Ready
    }

    async fn close(&self) -> Result<()> {
        self.deletes.stop();
        self.writes.close().await
    }
}
