//! What the servers hold and how it lies, in the words of their own books.
//!
//! These are about all tenants together, for whoever looks after the store; no row of a tenant is read but
//! the ends of time.

use super::{
    client::{Failure, Servers, Statement},
    migrate::Target,
    tables::quoted_name,
};
use crate::model::{TimeRange, Timestamp};

/// A table and the parts it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// As reads and writes name it.
    pub(super) name: String,
    /// Its parts.
    pub(super) parts: u64,
    /// The most that a partition has on one server.
    pub(super) most_parts: u64,
    /// Rows, those included that a merge will drop.
    pub(super) rows: u64,
    /// Bytes on disk.
    pub(super) bytes: u64,
}

/// What the servers do about too many parts in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartLimits {
    /// From so many on, inserts are made to wait.
    pub(super) delay: u64,
    /// From so many on, inserts are refused.
    pub(super) refuse: u64,
}

/// Asks the servers for their books.
#[derive(Clone, Copy, Debug)]
pub(super) struct Census<'a> {
    pub(super) servers: &'a Servers,
    pub(super) target: &'a Target,
}

impl Census<'_> {
    /// What the servers run.
    pub(super) async fn version(self) -> Result<String, Failure> {
        let rows = self.servers.rows(&Statement::new("SELECT version()")).await?;
        Ok(rows.all(|row| row.string()).await?.pop().unwrap_or_default())
    }

    /// Our tables; on a cluster those of one replica of each shard.
    pub(super) async fn tables(self) -> Result<Vec<Table>, Failure> {
        let parts = self.target.tables().of_shards("parts");
        let statement = Statement::new(format!(
            "SELECT name, sum(n), max(n), sum(r), sum(b) FROM (\
             SELECT replaceRegexpOne(table, '_local$', '') AS name, hostName() AS host, partition_id, \
             count() AS n, sum(rows) AS r, sum(bytes_on_disk) AS b \
             FROM {parts} WHERE active AND database = {{database:String}} GROUP BY name, host, partition_id\
             ) GROUP BY name ORDER BY name"
        ))
        .param("database", self.target.database.as_str());
        let rows = self.servers.rows(&statement).await?;
        rows.all(|row| {
            Ok(Table {
                name: row.string()?,
                parts: row.u64()?,
                most_parts: row.u64()?,
                rows: row.u64()?,
                bytes: row.u64()?,
            })
        })
        .await
    }

    /// How many parts are too many.
    pub(super) async fn part_limits(self) -> Result<PartLimits, Failure> {
        let statement = Statement::new(
            "SELECT sumIf(toUInt64(value), name = 'parts_to_delay_insert'), \
             sumIf(toUInt64(value), name = 'parts_to_throw_insert') FROM system.merge_tree_settings \
             WHERE name IN ('parts_to_delay_insert', 'parts_to_throw_insert')",
        );
        let rows = self.servers.rows(&statement).await?;
        let limits = rows.all(|row| Ok(PartLimits { delay: row.u64()?, refuse: row.u64()? })).await?.pop();
        Ok(limits.unwrap_or(PartLimits { delay: 0, refuse: 0 }))
    }

    /// Tables of ours that a server cannot write to now, having lost the keeper of the replicas' order.
    pub(super) async fn read_only_tables(self) -> Result<u64, Failure> {
        let replicas = self.target.tables().of_servers("replicas");
        let statement = Statement::new(format!(
            "SELECT count() FROM {replicas} WHERE is_readonly AND database = {{database:String}}"
        ))
        .param("database", self.target.database.as_str());
        Ok(self.servers.rows(&statement).await?.all(|row| row.u64()).await?.pop().unwrap_or(0))
    }

    /// Series that have samples on a day, counted in days since 1970; of all tenants.
    pub(super) async fn series_on(self, day: i64) -> Result<u64, Failure> {
        let statement = Statement::new(format!(
            "SELECT uniqExact(tenant, sid) FROM {}.series WHERE day = toDate({{day:Int64}})",
            quoted_name(&self.target.database)
        ))
        .param("day", day);
        Ok(self.servers.rows(&statement).await?.all(|row| row.u64()).await?.pop().unwrap_or(0))
    }

    /// The earliest and the latest sample of all tenants; the partitions know it.
    pub(super) async fn range(self) -> Result<Option<TimeRange>, Failure> {
        let database = quoted_name(&self.target.database);
        let statement = Statement::new(format!(
            "SELECT min(low), max(high) FROM (\
             SELECT count() AS n, min(ts) AS low, max(ts) AS high FROM {database}.samples UNION ALL \
             SELECT count() AS n, min(ts) AS low, max(ts) AS high FROM {database}.histograms\
             ) WHERE n > 0 HAVING count() > 0"
        ));
        let rows = self.servers.rows(&statement).await?;
        let ends = rows.all(|row| Ok((Timestamp(row.i64()?), Timestamp(row.i64()?)))).await?.pop();
        Ok(ends.and_then(|(low, high)| TimeRange::new(low, high)))
    }
}
