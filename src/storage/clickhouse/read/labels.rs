//! Names and values of labels, and the series that have them; samples are not touched.
//!
//! Names and values come from their own table where nothing but the metric is asked for, else from the
//! series. What the servers cannot decide, because of a pattern or of a tombstone, is decided here.

use std::collections::BTreeSet;

use super::{
    Reads,
    matchers::{Condition, Patterns},
    series::{SCOPE, scoped},
};
use crate::{
    model::{Labels, METRIC_NAME, Millis, TenantId, TimeRange, Timestamp},
    storage::{
        LabelsRequest, Result,
        clickhouse::{
            client::Statement,
            deletes::{Tombstone, hidden},
        },
    },
};

/// Where the answer is found.
enum Source {
    /// In the table of names and values.
    Values(Condition),
    /// In the table of series, by the server.
    Series(Condition),
    /// In the table of series, by us.
    Here(Vec<Labels>),
}

impl Reads {
    pub(in crate::storage::clickhouse) async fn series(
        &self,
        tenant: &TenantId,
        request: LabelsRequest,
    ) -> Result<Vec<Labels>> {
        let Some(range) = self.kept(tenant, request.range) else { return Ok(Vec::new()) };
        let tombstones = self.deletes.hiding(tenant, range).await?;
        let mut series = self.labels_of(tenant, &request, range, &tombstones).await?;
        series.truncate(at_most(request.limit));
        Ok(series)
    }

    pub(in crate::storage::clickhouse) async fn label_names(
        &self,
        tenant: &TenantId,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        let Some(range) = self.kept(tenant, request.range) else { return Ok(Vec::new()) };
        let (sql, condition) = match self.source(tenant, &request, range).await? {
            Source::Here(series) => {
                let names = series.iter().flat_map(|labels| labels.iter().map(|(name, _)| name.to_owned()));
                return Ok(sorted(names, request.limit));
            }
            Source::Values(condition) => (
                format!("SELECT DISTINCT name FROM label_values WHERE {SCOPE} AND {}", condition.sql()),
                condition,
            ),
            Source::Series(condition) => (
                format!(
                    "SELECT DISTINCT arrayJoin(mapKeys(labels)) AS name FROM series WHERE {SCOPE} AND {}",
                    condition.sql()
                ),
                condition,
            ),
        };
        let sql = format!("{sql} ORDER BY name{}", limited(request.limit));
        self.texts(condition.bind(scoped(Statement::new(sql), tenant, range))).await
    }

    pub(in crate::storage::clickhouse) async fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        let Some(range) = self.kept(tenant, request.range) else { return Ok(Vec::new()) };
        let (sql, condition) = match self.source(tenant, &request, range).await? {
            Source::Here(series) => {
                let values = series.iter().filter_map(|labels| labels.get(name).map(str::to_owned));
                return Ok(sorted(values, request.limit));
            }
            Source::Values(condition) => (
                format!(
                    "SELECT DISTINCT value FROM label_values WHERE {SCOPE} AND name = {{name:String}} AND {}",
                    condition.sql()
                ),
                condition,
            ),
            Source::Series(condition) => {
                let column = if name == METRIC_NAME { "metric" } else { "labels[{name:String}]" };
                let sql = format!(
                    "SELECT DISTINCT {column} AS value FROM series WHERE {SCOPE} AND value != '' AND {}",
                    condition.sql()
                );
                (sql, condition)
            }
        };
        let sql = format!("{sql} ORDER BY value{}", limited(request.limit));
        let mut statement = condition.bind(scoped(Statement::new(sql), tenant, range));
        if statement.sql().contains("{name:String}") {
            statement = statement.param("name", name);
        }
        self.texts(statement).await
    }

    async fn source(&self, tenant: &TenantId, request: &LabelsRequest, range: TimeRange) -> Result<Source> {
        let tombstones = self.deletes.hiding(tenant, range).await?;
        // A server's patterns may mean something else than ours in a corner, and it could not be asked twice.
        let condition = Condition::of(&request.matchers, Patterns::Kept);
        if !tombstones.is_empty() || !condition.complete {
            return Ok(Source::Here(self.labels_of(tenant, request, range, &tombstones).await?));
        }
        Ok(if condition.only_names { Source::Values(condition) } else { Source::Series(condition) })
    }

    /// The labels of the series that match and are not hidden on all their days, sorted.
    async fn labels_of(
        &self,
        tenant: &TenantId,
        request: &LabelsRequest,
        range: TimeRange,
        tombstones: &[Tombstone],
    ) -> Result<Vec<Labels>> {
        let found = self.look(tenant, &request.matchers, range).days().await?;
        if tombstones.is_empty() {
            return Ok(found.into_iter().map(|(labels, _)| labels).collect());
        }
        let shows = |(labels, days): &(Labels, Vec<u16>)| {
            let hidden = hidden(tombstones, labels, range);
            days.iter().any(|day| !is_hidden(*day, range, &hidden))
        };
        Ok(found.into_iter().filter(shows).map(|(labels, _)| labels).collect())
    }

    async fn texts(&self, statement: Statement) -> Result<Vec<String>> {
        Ok(self.servers.rows(&statement).await?.all(|row| row.string()).await?)
    }
}

/// Whether all of a day that is in the range is hidden.
fn is_hidden(day: u16, range: TimeRange, hidden: &[TimeRange]) -> bool {
    // The first and the last day of the tables hold what is beyond them, too.
    let start = if day == 0 { Timestamp::MIN } else { Timestamp(i64::from(day) * Millis::DAY.0) };
    let end = match day {
        u16::MAX => Timestamp::MAX,
        day => Timestamp((i64::from(day) + 1) * Millis::DAY.0 - 1),
    };
    let wanted = TimeRange::new(start, end).and_then(|day| day.intersection(range));
    wanted.is_none_or(|wanted| hidden.iter().any(|hidden| hidden.intersection(wanted) == Some(wanted)))
}

fn at_most(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

fn limited(limit: usize) -> String {
    if limit == 0 { String::new() } else { format!(" LIMIT {limit}") }
}

fn sorted(all: impl Iterator<Item = String>, limit: usize) -> Vec<String> {
    let all: BTreeSet<String> = all.collect();
    all.into_iter().take(at_most(limit)).collect()
}
