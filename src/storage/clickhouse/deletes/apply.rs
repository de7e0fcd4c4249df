//! Removes the rows that tombstones hide.
//!
//! The servers delete by rewriting which rows of a part are there, part by part, so deletes are done one at
//! a time and only where there is something to remove.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::{COLUMNS, Row, Servers, State, Tombstone, write};
use crate::{
    model::TenantId,
    storage::{
        Result, StorageError,
        clickhouse::{
            client::Statement,
            read::{
                counters::{ReadCounters, add},
                series::Look,
            },
        },
    },
};

/// Tables whose rows belong to a series and a time. Rollups of samples have to join them.
const TABLES: [(&str, &str); 3] = [
    ("samples", " AND intDiv(ts, 7200000) BETWEEN {bucket_from:Int64} AND {bucket_to:Int64}"),
    ("histograms", " AND intDiv(ts, 7200000) BETWEEN {bucket_from:Int64} AND {bucket_to:Int64}"),
    ("exemplars", ""),
];
/// Time between two looks for something to do.
const PAUSE: Duration = Duration::from_secs(30);
/// Ids in one value of a statement: at most 84 KiB, and a server takes 128.
const IDS: usize = 4_000;
/// Such values in one statement.
const LISTS: usize = 10;

/// Removes what tombstones hide.
#[derive(Clone, Debug)]
pub(super) struct Applier {
    pub(super) servers: Arc<Servers>,
    pub(super) counters: Arc<ReadCounters>,
    /// Told when this pod has written a tombstone.
    pub(super) written: Arc<Notify>,
}

impl Applier {
    pub(super) fn new(servers: Arc<Servers>, counters: Arc<ReadCounters>) -> Self {
        Self { servers, counters, written: Arc::default() }
    }

    /// Applies tombstones as they come, one at a time, for as long as it is left to run.
    pub(super) async fn run(self) {
        loop {
            // Those of other pods, and those that failed, are found in time.
            let _ = tokio::time::timeout(PAUSE, self.written.notified()).await;
            // Servers that are away or have no tables yet are the watch's to complain about.
            while self.apply_next().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "tombstones are not applied");
                false
            }) {}
        }
    }

    /// Applies the oldest tombstone that is waiting; whether there was one.
    async fn apply_next(&self) -> Result<bool> {
        let sql = format!(
            "SELECT {COLUMNS} FROM tombstones FINAL WHERE state = 'active' ORDER BY created, id LIMIT 1"
        );
        let mut rows = self.servers.rows(&Statement::new(sql)).await?.all(Row::take).await?;
        let Some(row) = rows.pop() else { return Ok(false) };
        let damaged = |_| StorageError::Remote { detail: "a tombstone is of no possible tenant".to_owned() };
        let tenant = TenantId::new(&row.tenant).map_err(damaged)?;
        self.remove(&tenant, &row.tombstone()?).await?;
        tracing::info!(tenant = row.tenant, from = row.min, to = row.max, "removed what was deleted");
        write(&self.servers, &[Row { state: State::Applied, ..row }]).await?;
        add(&self.counters.tombstones_applied, 1);
        Ok(true)
    }

    /// Removes the rows that a tombstone hides now.
    pub(super) async fn remove(&self, tenant: &TenantId, tombstone: &Tombstone) -> Result<()> {
        if tombstone.matchers.is_empty() {
            return self.remove_where(tenant, tombstone, Which::default()).await;
        }
        let sets = std::slice::from_ref(&tombstone.matchers);
        let look =
            Look { servers: &self.servers, counters: &self.counters, tenant, sets, range: tombstone.range };
        let (only_names, mut ids) = look.ids().await?;
        ids.sort_unstable();
        if only_names {
            // All series of these metrics.
            ids.dedup_by_key(|(mid, _)| *mid);
        }
        for ids in ids.chunks(IDS * LISTS) {
            let mut mids: Vec<u64> = ids.iter().map(|(mid, _)| *mid).collect();
            mids.dedup();
            let sids = if only_names { Vec::new() } else { ids.iter().map(|(_, sid)| *sid).collect() };
            self.remove_where(tenant, tombstone, Which { mids, sids }).await?;
        }
        Ok(())
    }

    async fn remove_where(&self, tenant: &TenantId, tombstone: &Tombstone, which: Which) -> Result<()> {
        for (table, buckets) in TABLES {
            let condition = format!(
                "tenant = {{tenant:String}} AND ts BETWEEN {{from:Int64}} AND {{to:Int64}}{buckets}{}{}",
                Which::sql("mid", &which.mids),
                Which::sql("sid", &which.sids)
            );
            let there = format!("SELECT toUInt8(1) FROM {table} WHERE {condition} LIMIT 1");
            let there = which.bind(bind(Statement::new(there), tenant, tombstone, buckets));
            if self.servers.rows(&there).await?.all(|row| row.u8()).await?.is_empty() {
                continue;
            }
            let delete = Statement::new(format!("DELETE FROM {table} WHERE {condition}"))
                .setting("lightweight_deletes_sync", 2);
            self.servers.run(&which.bind(bind(delete, tenant, tombstone, buckets))).await?;
            add(&self.counters.delete_statements, 1);
        }
        Ok(())
    }
}

fn bind(statement: Statement, tenant: &TenantId, tombstone: &Tombstone, buckets: &str) -> Statement {
    let (from, to) = (tombstone.range.start().0, tombstone.range.end().0);
    let statement = statement.param("tenant", tenant.as_str()).param("from", from).param("to", to);
    if buckets.is_empty() {
        statement
    } else {
        statement.param("bucket_from", from / 7_200_000).param("bucket_to", to / 7_200_000)
    }
}

/// Whose rows: of all, of some metrics, of some series of some metrics.
#[derive(Debug, Default)]
struct Which {
    mids: Vec<u64>,
    sids: Vec<u64>,
}

impl Which {
    /// That a column is one of the ids, in as many lists as there have to be.
    fn sql(column: &str, ids: &[u64]) -> String {
        let list = |i| format!("{column} IN {{{column}{i}:Array(UInt64)}}");
        let lists: Vec<String> = (0..ids.chunks(IDS).count()).map(list).collect();
        if lists.is_empty() { String::new() } else { format!(" AND ({})", lists.join(" OR ")) }
    }

    fn bind(&self, statement: Statement) -> Statement {
        let lists = [("mid", &self.mids), ("sid", &self.sids)];
        let lists = lists.into_iter().flat_map(|(column, ids)| {
            ids.chunks(IDS).enumerate().map(move |(i, ids)| (format!("{column}{i}"), ids.to_vec()))
        });
        lists.fold(statement, |statement, (name, ids)| statement.param(name, ids))
    }
}
