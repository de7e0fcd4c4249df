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
        Fault, Result, StorageError,
        clickhouse::{
            client::Statement,
            read::{
                counters::{ReadCounters, add},
                series::Look,
            },
            tables::{Tables, bucket},
        },
    },
};

/// Tables whose rows belong to a series and a time. Windows rolled up of them are marked, and rolled up again.
const TABLES: [(&str, &str); 3] = [
    ("samples", " AND intDiv(ts, 7200000) BETWEEN {bucket_from:Int64} AND {bucket_to:Int64}"),
    ("histograms", " AND intDiv(ts, 7200000) BETWEEN {bucket_from:Int64} AND {bucket_to:Int64}"),
    ("exemplars", ""),
];
/// Time between two looks for something to do.
const PAUSE: Duration = Duration::from_secs(30);
/// Ids in one value of a statement: at most 84 KiB, and a server takes 128.
const IDS: usize = 4_000;
/// Such values in one statement, of metrics and of series each. The servers of a cluster hand statements on by
/// way of their keeper, written out, and there a text may have 1 MiB.
const LISTS: usize = 4;
/// Tombstones that are read at a time.
const AT_A_TIME: usize = 1_000;

/// Removes what tombstones hide.
#[derive(Clone, Debug)]
pub(super) struct Applier {
    pub(super) servers: Arc<Servers>,
    tables: Tables,
    pub(super) counters: Arc<ReadCounters>,
    /// Told when this pod has written a tombstone.
    pub(super) written: Arc<Notify>,
}

impl Applier {
    pub(super) fn new(servers: Arc<Servers>, tables: Tables, counters: Arc<ReadCounters>) -> Self {
        Self { servers, tables, counters, written: Arc::default() }
    }

    /// Applies tombstones as they come, one at a time, for as long as it is left to run.
    pub(super) async fn run(self) {
        loop {
            // Those of other pods, and those that failed, are found in time.
            let _ = tokio::time::timeout(PAUSE, self.written.notified()).await;
            // Servers that are away or have no tables yet are the watch's to complain about.
            while self.apply_waiting().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "tombstones are not applied");
                false
            }) {}
        }
    }

    /// Applies the tombstones that are waiting, the oldest first; whether there may be more. One that fails on
    /// its own account does not hold up the others.
    async fn apply_waiting(&self) -> Result<bool> {
        let sql = format!(
            "SELECT {COLUMNS} FROM tombstones FINAL WHERE state = 'active' ORDER BY created, id LIMIT {AT_A_TIME}"
        );
        let rows = self.servers.rows(&Statement::new(sql)).await?.all(Row::take).await?;
        let (all, mut failed) = (rows.len(), 0);
        for row in rows {
            match self.apply_one(row).await {
                Ok(()) => {}
                Err(error) if error.fault() == Fault::Passing => return Err(error),
                Err(error) => {
                    failed += 1;
                    tracing::warn!(event = "tombstone_not_applied", %error);
                }
            }
        }
        Ok(all == AT_A_TIME && failed < all)
    }

    async fn apply_one(&self, row: Row) -> Result<()> {
        let damaged = |_| StorageError::Remote { detail: "a tombstone is of no possible tenant".to_owned() };
        let tenant = TenantId::new(&row.tenant).map_err(damaged)?;
        self.remove(&tenant, &row.tombstone()?).await?;
        tracing::info!(tenant = row.tenant, from = row.min, to = row.max, "removed what was deleted");
        write(&self.servers, &[Row { state: State::Applied, ..row }]).await?;
        add(&self.counters.tombstones_applied, 1);
        Ok(())
    }

    /// Removes the rows that a tombstone hides now, and says whose they were.
    pub(super) async fn remove(&self, tenant: &TenantId, tombstone: &Tombstone) -> Result<Vec<Which>> {
        let all = self.whose(tenant, tombstone).await?;
        for which in &all {
            self.remove_where(tenant, tombstone, which).await?;
        }
        Ok(all)
    }

    /// Whose rows a tombstone hides, in as many pieces as there have to be statements.
    async fn whose(&self, tenant: &TenantId, tombstone: &Tombstone) -> Result<Vec<Which>> {
        if tombstone.matchers.is_empty() {
            return Ok(vec![Which::default()]);
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
        let which = |ids: &[(u64, u64)]| {
            let mut mids: Vec<u64> = ids.iter().map(|(mid, _)| *mid).collect();
            mids.dedup();
            let sids = if only_names { Vec::new() } else { ids.iter().map(|(_, sid)| *sid).collect() };
            Which { mids, sids }
        };
        Ok(ids.chunks(IDS * LISTS).map(which).collect())
    }

    async fn remove_where(&self, tenant: &TenantId, tombstone: &Tombstone, which: &Which) -> Result<()> {
        for (table, buckets) in TABLES {
            let condition = format!(
                "tenant = {{tenant:String}} AND ts BETWEEN {{from:Int64}} AND {{to:Int64}}{buckets}{}",
                which.sql("mid")
            );
            let there = format!("SELECT toUInt8(1) FROM {table} WHERE {condition} LIMIT 1");
            let there = which.bind(bind(Statement::new(there), tenant, tombstone, buckets));
            if self.servers.rows(&there).await?.all(|row| row.u8()).await?.is_empty() {
                continue;
            }
            let delete = self.delete_from(table, &condition);
            self.carry_out(&which.bind(bind(delete, tenant, tombstone, buckets))).await?;
        }
        Ok(())
    }

    /// A statement that removes rows of a table wherever they are, and waits for it.
    pub(super) fn delete_from(&self, table: &str, condition: &str) -> Statement {
        Statement::new(format!("DELETE FROM {} WHERE {condition}", self.tables.rows_of(table)))
            .setting("lightweight_deletes_sync", 2)
    }

    pub(super) async fn carry_out(&self, delete: &Statement) -> Result<()> {
        self.servers.run(delete).await?;
        add(&self.counters.delete_statements, 1);
        Ok(())
    }
}

fn bind(statement: Statement, tenant: &TenantId, tombstone: &Tombstone, buckets: &str) -> Statement {
    let (from, to) = (tombstone.range.start().0, tombstone.range.end().0);
    let statement = statement.param("tenant", tenant.as_str()).param("from", from).param("to", to);
    if buckets.is_empty() {
        statement
    } else {
        statement.param("bucket_from", bucket(from)).param("bucket_to", bucket(to))
    }
}

/// Whose rows: of all, of some metrics, of some series of some metrics.
#[derive(Debug, Default)]
pub(super) struct Which {
    pub(super) mids: Vec<u64>,
    sids: Vec<u64>,
}

impl Which {
    /// That a row is theirs, after other conditions; `mid` is the metric's id in that table.
    pub(super) fn sql(&self, mid: &str) -> String {
        let lists = |column: &str, name: &str, ids: &[u64]| {
            let list = |i| format!("{column} IN {{{name}{i}:Array(UInt64)}}");
            let lists: Vec<String> = (0..ids.chunks(IDS).count()).map(list).collect();
            if lists.is_empty() { String::new() } else { format!(" AND ({})", lists.join(" OR ")) }
        };
        lists(mid, "mid", &self.mids) + &lists("sid", "sid", &self.sids)
    }

    /// The metrics they are of.
    pub(super) fn metrics(&self) -> Self {
        Self { mids: self.mids.clone(), sids: Vec::new() }
    }

    pub(super) fn bind(&self, statement: Statement) -> Statement {
        let lists = [("mid", &self.mids), ("sid", &self.sids)];
        let lists = lists.into_iter().flat_map(|(column, ids)| {
            ids.chunks(IDS).enumerate().map(move |(i, ids)| (format!("{column}{i}"), ids.to_vec()))
        });
        lists.fold(statement, |statement, (name, ids)| statement.param(name, ids))
    }
}
