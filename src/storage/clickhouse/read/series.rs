//! Which series a request means.

use std::collections::HashMap;

use super::{
    Reads,
    matchers::{Condition, Patterns},
};
use crate::{
    model::{Labels, Matcher, TenantId, TimeRange, Timestamp},
    storage::{
        Result, StorageError,
        clickhouse::{
            client::{Failure, Statement},
            deletes::{Tombstone, hidden},
            rowbinary::{Incomplete, Reader},
        },
    },
};

/// CANNOT_COMPILE_REGEXP: the servers' bounds on patterns are not ours.
const REFUSES_PATTERN: u32 = 427;

/// A series and its id, in the two halves that the tables have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage::clickhouse) struct Series {
    pub(in crate::storage::clickhouse) labels: Labels,
    pub(in crate::storage::clickhouse) mid: u64,
    pub(in crate::storage::clickhouse) sid: u64,
}

/// The series that a request means.
#[derive(Debug)]
pub(in crate::storage::clickhouse) struct Found {
    /// In label order.
    pub(in crate::storage::clickhouse) series: Vec<Series>,
    /// What is hidden of some of them, by their place: ranges in order, none touching another.
    pub(in crate::storage::clickhouse) hidden: HashMap<u32, Vec<TimeRange>>,
    /// Lets these series through, and maybe others.
    pub(in crate::storage::clickhouse) condition: Condition,
    /// Where the samples may be: the request's range as far as it is kept.
    pub(in crate::storage::clickhouse) range: TimeRange,
}

/// The days that a range touches, as the tables count them: what is out of reach is in the first or last.
pub(in crate::storage::clickhouse) fn days(range: TimeRange) -> (u16, u16) {
    let day = |at: Timestamp| u16::try_from(at.day().max(0)).unwrap_or(u16::MAX);
    (day(range.start()), day(range.end()))
}

/// Binds what [`SCOPE`] has.
pub(in crate::storage::clickhouse) fn scoped(
    statement: Statement,
    tenant: &TenantId,
    range: TimeRange,
) -> Statement {
    let (from, to) = days(range);
    statement
        .param("tenant", tenant.as_str())
        .param("day_from", u64::from(from))
        .param("day_to", u64::from(to))
}

/// A tenant's rows of the days in a range, in the tables that have days.
pub(in crate::storage::clickhouse) const SCOPE: &str =
    "tenant = {tenant:String} AND day BETWEEN toDate({day_from:UInt16}) AND toDate({day_to:UInt16})";

/// Whether any of the sets matches; no sets match everything.
pub(super) fn matches(sets: &[Vec<Matcher>], labels: &Labels) -> bool {
    let matches_all = |set: &Vec<Matcher>| {
        set.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
    };
    sets.is_empty() || sets.iter().any(matches_all)
}

/// Reads a `Map(String, String)` as labels; it is checked before anything is kept of it.
pub(super) fn read_labels(reader: &mut Reader<'_>) -> Result<Labels, Incomplete> {
    let pairs = reader.array(|reader| Ok((reader.string()?, reader.string()?)))?;
    // Labels that are not in order, or there twice, are none of ours; they match nothing and are not found.
    Ok(Labels::from_pairs(pairs).unwrap_or_else(|_| Labels::empty()))
}

impl Reads {
    /// What a tenant's retention leaves of a range.
    pub(in crate::storage::clickhouse) fn kept(
        &self,
        tenant: &TenantId,
        range: TimeRange,
    ) -> Option<TimeRange> {
        let own = self.config.tenant_retention.iter().find(|(t, _)| t == tenant);
        let Some(keep) = own.map_or(self.config.retention, |(_, keep)| *keep) else { return Some(range) };
        let keep = crate::model::Millis(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        TimeRange::new(range.start().max(self.clock.now().minus(keep)), range.end())
    }

    /// The series that any of the sets matches and that have samples on the days of the range.
    pub(in crate::storage::clickhouse) async fn find(
        &self,
        tenant: &TenantId,
        sets: &[Vec<Matcher>],
        range: TimeRange,
        limit: Option<usize>,
    ) -> Result<Found> {
        let tombstones = self.deletes.hiding(tenant, range);
        let (tombstones, mut answer) =
            tokio::try_join!(tombstones, self.matching(tenant, sets, range, limit))?;
        if let Some(limit) = limit.filter(|limit| answer.1.len() > *limit) {
            if tombstones.is_empty() {
                return Err(StorageError::TooManySeries { limit });
            }
            // Reading stopped there, but some of them may be hidden.
            answer = self.matching(tenant, sets, range, None).await?;
        }
        let (condition, mut series) = answer;
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        series.dedup_by(|a, b| a.labels == b.labels);
        let mut found = Found { series, hidden: HashMap::new(), condition, range };
        found.hide(&tombstones);
        match limit {
            Some(limit) if found.series.len() > limit => Err(StorageError::TooManySeries { limit }),
            Some(_) | None => Ok(found),
        }
    }

    /// The labels of the series that any of the sets matches, sorted, and the days they have.
    pub(super) async fn find_unhidden(
        &self,
        tenant: &TenantId,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<(Labels, Vec<u16>)>> {
        let mut found = match self.read_days(tenant, sets, &Condition::of(sets, Patterns::Sent), range).await
        {
            Err(failure) if failure.code == Some(REFUSES_PATTERN) => {
                self.read_days(tenant, sets, &Condition::of(sets, Patterns::Kept), range).await?
            }
            answer => answer?,
        };
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found.dedup_by(|a, b| a.0 == b.0);
        Ok(found)
    }

    async fn read_days(
        &self,
        tenant: &TenantId,
        sets: &[Vec<Matcher>],
        condition: &Condition,
        range: TimeRange,
    ) -> Result<Vec<(Labels, Vec<u16>)>, Failure> {
        let sql = format!(
            "SELECT any(labels), groupUniqArray(toUInt16(day)) FROM series WHERE {SCOPE} AND {} GROUP BY mid, sid",
            condition.sql()
        );
        let statement = condition.bind(scoped(Statement::new(sql), tenant, range));
        let rows = self.servers.rows(&statement).await?;
        let mut found = rows.all(|row| Ok((read_labels(row)?, row.array(Reader::u16)?))).await?;
        found.retain(|(labels, _)| matches(sets, labels));
        Ok(found)
    }

    /// Reads what matches; with a limit, no more than one above it.
    async fn matching(
        &self,
        tenant: &TenantId,
        sets: &[Vec<Matcher>],
        range: TimeRange,
        limit: Option<usize>,
    ) -> Result<(Condition, Vec<Series>)> {
        let condition = Condition::of(sets, Patterns::Sent);
        match self.read_series(tenant, sets, &condition, range, limit).await {
            Err(failure) if failure.code == Some(REFUSES_PATTERN) && condition.patterns => {
                let condition = Condition::of(sets, Patterns::Kept);
                let series = self.read_series(tenant, sets, &condition, range, limit).await?;
                Ok((condition, series))
            }
            answer => Ok((condition, answer?)),
        }
    }

    async fn read_series(
        &self,
        tenant: &TenantId,
        sets: &[Vec<Matcher>],
        condition: &Condition,
        range: TimeRange,
        limit: Option<usize>,
    ) -> Result<Vec<Series>, Failure> {
        let enough = limit.map(|limit| limit.saturating_add(1));
        // What is asked again here must all come.
        let enough_rows = enough.filter(|_| condition.complete && !condition.patterns);
        let limited = enough_rows.map(|n| format!(" LIMIT {n}")).unwrap_or_default();
        let sql = format!(
            "SELECT mid, sid, labels FROM series WHERE {SCOPE} AND {} LIMIT 1 BY mid, sid{limited}",
            condition.sql()
        );
        let statement = condition.bind(scoped(Statement::new(sql), tenant, range));
        let mut rows = self.servers.rows(&statement).await?;
        let mut series = Vec::new();
        while let Some(row) = rows
            .next(|row| Ok(Series { mid: row.u64()?, sid: row.u64()?, labels: read_labels(row)? }))
            .await?
        {
            if matches(sets, &row.labels) {
                series.push(row);
                if enough.is_some_and(|enough| series.len() >= enough) {
                    break;
                }
            }
        }
        Ok(series)
    }
}

impl Found {
    /// These of the series alone, in this order.
    pub(in crate::storage::clickhouse) fn only(&self, ordinals: &[u32]) -> Self {
        let at = |ordinal: u32| usize::try_from(ordinal).expect("an index fits");
        let hidden = (0..)
            .zip(ordinals)
            .filter_map(|(place, ordinal)| self.hidden.get(ordinal).map(|ranges| (place, ranges.clone())));
        Self {
            series: ordinals.iter().map(|ordinal| self.series[at(*ordinal)].clone()).collect(),
            hidden: hidden.collect(),
            condition: self.condition.clone(),
            range: self.range,
        }
    }

    /// Leaves out the series that are hidden altogether, and notes what is hidden of the others.
    fn hide(&mut self, tombstones: &[Tombstone]) {
        if tombstones.is_empty() {
            return;
        }
        let range = self.range;
        let mut kept = Vec::with_capacity(self.series.len());
        for series in std::mem::take(&mut self.series) {
            let ranges = hidden(tombstones, &series.labels, range);
            if ranges == [range] {
                continue;
            }
            if !ranges.is_empty() {
                let place = u32::try_from(kept.len()).unwrap_or(u32::MAX);
                self.hidden.insert(place, ranges);
            }
            kept.push(series);
        }
        self.series = kept;
    }
}
