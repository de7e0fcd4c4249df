//! Names and values of labels, and the series that have them; samples are not touched.
//!
//! Names and values come from their own table where nothing but the metric is asked for, else from the
//! series. What the servers cannot decide, because of a pattern or of a tombstone, is decided here.

use std::{ops::ControlFlow, sync::Arc};

use super::{
    Reads,
    matchers::{Condition, Patterns},
    room::First,
    series::{SCOPE, scoped},
};
use crate::{
    model::{Labels, METRIC_NAME, Millis, TenantId, TimeRange, Timestamp},
    storage::{
        LabelsRequest, Result, Sift,
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
    /// In the table of series, by us: this is hidden.
    Here(Arc<[Tombstone]>),
}

/// Where the values of a label are found.
enum Values {
    /// In the rows of a statement that has `SCOPE`, the condition and maybe the name to bind.
    Rows(String, Condition),
    /// In the table of series, by us.
    Here(Arc<[Tombstone]>),
}

/// What a text or a set of labels takes besides its bytes.
const FIXED_BYTES: usize = 64;

impl Reads {
    pub(in crate::storage::clickhouse) async fn series(
        &self,
        tenant: &TenantId,
        request: LabelsRequest,
    ) -> Result<Vec<Labels>> {
        let Some(range) = self.kept(tenant, request.range) else { return Ok(Vec::new()) };
        let tombstones = self.deletes.hiding(tenant, range).await?;
        let bytes = |labels: &Labels| labels.as_canonical().len() + FIXED_BYTES;
        let mut series = First::of(request.limit, self.room(), bytes);
        let keep = |labels: Labels| series.offer(&labels, || labels.clone());
        self.each_shown(tenant, &request, range, &tombstones, keep).await?;
        series.done()
    }

    pub(in crate::storage::clickhouse) async fn label_names(
        &self,
        tenant: &TenantId,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        let Some(range) = self.kept(tenant, request.range) else { return Ok(Vec::new()) };
        let (sql, condition) = match self.source(tenant, &request, range).await? {
            Source::Here(tombstones) => {
                let mut names = self.first_texts(request.limit);
                let keep = |labels: Labels| {
                    labels.iter().try_for_each(|(name, _)| names.offer(name, || name.to_owned()))
                };
                self.each_shown(tenant, &request, range, &tombstones, keep).await?;
                return names.done();
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
        let statement = limited(sql + " ORDER BY name", request.limit);
        self.texts(condition.bind(scoped(statement, tenant, range)), request.limit).await
    }

    pub(in crate::storage::clickhouse) async fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        let Some(range) = self.kept(tenant, request.range) else { return Ok(Vec::new()) };
        let (statement, what) = match self.values(tenant, name, &request, range).await? {
            Values::Rows(sql, condition) => (limited(sql + " ORDER BY value", request.limit), condition),
            Values::Here(tombstones) => {
                let mut values = self.first_texts(request.limit);
                let keep = |labels: Labels| match labels.get(name) {
                    Some(value) => values.offer(value, || value.to_owned()),
                    None => ControlFlow::Continue(()),
                };
                self.each_shown(tenant, &request, range, &tombstones, keep).await?;
                return values.done();
            }
        };
        self.texts(what.bind(named(scoped(statement, tenant, range), name)), request.limit).await
    }

    pub(in crate::storage::clickhouse) async fn sift_label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: LabelsRequest,
        sift: &dyn Sift,
    ) -> Result<()> {
        let Some(range) = self.kept(tenant, request.range) else { return Ok(()) };
        match self.values(tenant, name, &request, range).await? {
            Values::Rows(sql, condition) => {
                let statement = condition.bind(named(scoped(Statement::new(sql), tenant, range), name));
                let mut rows = self.servers.rows(&statement).await?;
                while let Some(text) = rows.next(|row| row.string()).await? {
                    if sift.see(&text).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Values::Here(tombstones) => {
                let show = |labels: Labels| {
                    labels.get(name).map_or(ControlFlow::Continue(()), |value| sift.see(value))
                };
                self.each_shown(tenant, &request, range, &tombstones, show).await
            }
        }
    }

    /// Where the values of a label are found.
    async fn values(
        &self,
        tenant: &TenantId,
        name: &str,
        request: &LabelsRequest,
        range: TimeRange,
    ) -> Result<Values> {
        Ok(match self.source(tenant, request, range).await? {
            Source::Here(tombstones) => Values::Here(tombstones),
            Source::Values(condition) => {
                let sql = format!(
                    "SELECT DISTINCT value FROM label_values WHERE {SCOPE} AND name = {{name:String}} AND {}",
                    condition.sql()
                );
                Values::Rows(sql, condition)
            }
            Source::Series(condition) => {
                let column = if name == METRIC_NAME { "metric" } else { "labels[{name:String}]" };
                let sql = format!(
                    "SELECT DISTINCT {column} AS value FROM series WHERE {SCOPE} AND value != '' AND {}",
                    condition.sql()
                );
                Values::Rows(sql, condition)
            }
        })
    }

    async fn source(&self, tenant: &TenantId, request: &LabelsRequest, range: TimeRange) -> Result<Source> {
        let tombstones = self.deletes.hiding(tenant, range).await?;
        // A server's patterns may mean something else than ours in a corner, and it could not be asked twice.
        let condition = Condition::of(&request.matchers, Patterns::Kept);
        if !tombstones.is_empty() || !condition.complete {
            return Ok(Source::Here(tombstones));
        }
        Ok(if condition.only_names { Source::Values(condition) } else { Source::Series(condition) })
    }

    /// Hands on the labels of the series that match and are not hidden on all their days, until that is enough.
    async fn each_shown(
        &self,
        tenant: &TenantId,
        request: &LabelsRequest,
        range: TimeRange,
        tombstones: &[Tombstone],
        mut keep: impl FnMut(Labels) -> ControlFlow<()>,
    ) -> Result<()> {
        let keep = |labels: Labels, days: &[u16]| {
            let hidden = hidden(tombstones, &labels, range);
            if hidden.is_empty() || days.iter().any(|day| !is_hidden(*day, range, &hidden)) {
                return keep(labels);
            }
            ControlFlow::Continue(())
        };
        self.look(tenant, &request.matchers, range).days(keep).await
    }

    /// The texts that a statement gives in order, as many as are wanted.
    async fn texts(&self, statement: Statement, limit: usize) -> Result<Vec<String>> {
        let mut rows = self.servers.rows(&statement).await?;
        let mut texts = self.first_texts(limit);
        while let Some(text) = rows.next(|row| row.string()).await? {
            if texts.offer(text.as_str(), || text.clone()).is_break() {
                break;
            }
        }
        texts.done()
    }

    fn first_texts(&self, limit: usize) -> First<String> {
        First::of(limit, self.room(), |text| text.len() + FIXED_BYTES)
    }
}

/// Binds the name of a label, where a statement has one.
fn named(statement: Statement, name: &str) -> Statement {
    if statement.sql().contains("{name:String}") { statement.param("name", name) } else { statement }
}

/// A statement that gives no more rows than a limit; 0 is none.
fn limited(sql: String, limit: usize) -> Statement {
    match u64::try_from(limit) {
        Ok(limit @ 1..) => Statement::new(sql + " LIMIT {limit:UInt64}").param("limit", limit),
        Ok(0) | Err(_) => Statement::new(sql),
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
