//! Where a tenant's series come from, as the servers count them.

use super::{
    Reads,
    series::{SCOPE, scoped},
};
use crate::{
    model::{Matcher, Millis, TenantId, TimeRange},
    storage::{Cardinality, Result, cardinality_of, clickhouse::client::Statement},
};

/// Series that had samples this long ago take writes still.
const RECENT: Millis = Millis(2 * Millis::HOUR.0);

impl Reads {
    /// Counts the series of the days that reach into the last two hours; where not all of them are meant, here.
    pub(in crate::storage::clickhouse) async fn cardinality(
        &self,
        tenant: &TenantId,
        sets: &[Vec<Matcher>],
        limit: usize,
    ) -> Result<Cardinality> {
        let now = self.clock.now();
        let Some(recent) = TimeRange::new(now.minus(RECENT), now) else { return Ok(Cardinality::default()) };
        if !sets.is_empty() {
            let found = self.find(tenant, sets, recent, (None, None)).await?;
            return Ok(cardinality_of(found.series.iter().map(|series| &series.labels), limit));
        }
        let count = async |what: &str, from: &str, by: &str| {
            let sql = format!(
                "SELECT {by} AS what, toUInt64({what}) AS n FROM {from} GROUP BY what ORDER BY n DESC, what \
                 LIMIT {{limit:UInt64}}"
            );
            let most = u64::try_from(limit).unwrap_or(u64::MAX);
            let statement = scoped(Statement::new(sql), tenant, recent).param("limit", most);
            let rows = self.servers.rows(&statement).await?;
            rows.all(|row| Ok((row.string()?, row.u64()?))).await
        };
        let total = async |what: &str, from: &str| {
            let sql = format!("SELECT uniqExact({what}) FROM {from} WHERE {SCOPE}");
            let rows = self.servers.rows(&scoped(Statement::new(sql), tenant, recent)).await?;
            rows.all(|row| row.u64()).await.map(|counts| counts.first().copied().unwrap_or(0))
        };
        let named = format!("series WHERE {SCOPE} AND metric != ''");
        let values = format!("(SELECT DISTINCT name, value FROM label_values WHERE {SCOPE})");
        let pairs = format!(
            "(SELECT labels FROM series WHERE {SCOPE} LIMIT 1 BY mid, sid) \
             ARRAY JOIN mapKeys(labels) AS name, mapValues(labels) AS value"
        );
        let (series, pairs_in_all, series_by_metric, values_by_label, bytes_by_label, series_by_pair) = tokio::try_join!(
            total("mid, sid", "series"),
            total("name, value", "label_values"),
            count("uniqExact(sid)", &named, "toString(metric)"),
            count("count()", &values, "toString(name)"),
            count("sum(length(value))", &values, "toString(name)"),
            count("count()", &pairs, "concat(name, '=', value)"),
        )?;
        Ok(Cardinality {
            series,
            pairs: pairs_in_all,
            series_by_metric,
            values_by_label,
            bytes_by_label,
            series_by_pair,
            ..Cardinality::default()
        })
    }
}
