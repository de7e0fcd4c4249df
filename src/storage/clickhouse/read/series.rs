//! Which series a request means.

use std::{collections::HashMap, ops::ControlFlow};

use super::{
    Reads,
    counters::{ReadCounters, add},
    matchers::{Condition, Patterns},
    room::Room,
};
use crate::{
    model::{Labels, Matcher, TenantId, TimeRange, Timestamp},
    storage::{
        Result, StorageError,
        clickhouse::{
            client::{Failure, Servers, Statement},
            deletes::{Tombstone, hidden},
            rowbinary::{Incomplete, Reader},
        },
    },
};

/// CANNOT_COMPILE_REGEXP: the servers' bounds on patterns are not ours.
const REFUSES_PATTERN: u32 = 427;

/// What a series takes besides the bytes of its labels.
const SERIES_BYTES: usize = 128;

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
    /// Whether series that match are not among them, because all they have is hidden.
    pub(in crate::storage::clickhouse) left_out: bool,
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

    pub(super) fn look<'a>(
        &'a self,
        tenant: &'a TenantId,
        sets: &'a [Vec<Matcher>],
        range: TimeRange,
    ) -> Look<'a> {
        Look { servers: &self.servers, counters: &self.counters, tenant, sets, range }
    }

    /// The series that any of the sets matches and that have samples on the days of the range.
    pub(in crate::storage::clickhouse) async fn find(
        &self,
        tenant: &TenantId,
        sets: &[Vec<Matcher>],
        range: TimeRange,
        (limit, max_bytes): (Option<usize>, Option<u64>),
    ) -> Result<Found> {
        let look = self.look(tenant, sets, range);
        let (tombstones, answer) = tokio::join!(
            self.deletes.hiding(tenant, range),
            look.series(limit, self.room().within(max_bytes), |_| true)
        );
        let tombstones = tombstones?;
        let mut left_out = false;
        let (condition, mut series) = match answer {
            // Some of them may be hidden.
            Err(
                StorageError::TooManySeries { .. }
                | StorageError::TooManyLabelBytes { .. }
                | StorageError::Exhausted { .. },
            ) if !tombstones.is_empty() => {
                let shows = |labels: &Labels| {
                    let shows = hidden(&tombstones, labels, range) != [range];
                    left_out |= !shows;
                    shows
                };
                look.series(limit, self.room().within(max_bytes), shows).await?
            }
            answer => answer?,
        };
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        series.dedup_by(|a, b| a.labels == b.labels);
        let mut found = Found { series, hidden: HashMap::new(), condition, range, left_out };
        found.hide(&tombstones);
        Ok(found)
    }

    /// Room for what one look-up keeps.
    pub(super) fn room(&self) -> Room {
        Room::of(self.config.lookup_memory)
    }
}

/// A look at the series of a tenant that any of the sets matches, on the days of a range.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage::clickhouse) struct Look<'a> {
    pub(in crate::storage::clickhouse) servers: &'a Servers,
    pub(in crate::storage::clickhouse) counters: &'a ReadCounters,
    pub(in crate::storage::clickhouse) tenant: &'a TenantId,
    pub(in crate::storage::clickhouse) sets: &'a [Vec<Matcher>],
    pub(in crate::storage::clickhouse) range: TimeRange,
}

impl Look<'_> {
    /// Labels and ids of those that show; more than the limit are an error.
    async fn series(
        self,
        limit: Option<usize>,
        mut room: Room,
        mut shows: impl FnMut(&Labels) -> bool,
    ) -> Result<(Condition, Vec<Series>)> {
        let row = |row: &mut Reader<'_>| Ok(((row.u64()?, row.u64()?), read_labels(row)?));
        let most = limit.unwrap_or(usize::MAX);
        let mut all = Vec::new();
        let keep = |(mid, sid), labels: Labels| {
            if !shows(&labels) {
                return ControlFlow::Continue(());
            }
            room.take(labels.as_canonical().len() + SERIES_BYTES)?;
            all.push(Series { labels, mid, sid });
            if all.len() > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let condition = self.read("mid, sid, labels", "LIMIT 1 BY mid, sid", row, keep).await?;
        if all.len() > most {
            return Err(StorageError::TooManySeries { limit: most });
        }
        room.check()?;
        Ok((condition, all))
    }

    /// Their ids alone, and whether they are all the series of their metrics.
    pub(in crate::storage::clickhouse) async fn ids(self) -> Result<(bool, Vec<(u64, u64)>)> {
        let row = |row: &mut Reader<'_>| Ok(((row.u64()?, row.u64()?), read_labels(row)?));
        let mut ids = Vec::new();
        let keep = |id, _| {
            ids.push(id);
            ControlFlow::Continue(())
        };
        let condition = self.read("mid, sid, labels", "LIMIT 1 BY mid, sid", row, keep).await?;
        Ok((condition.only_names, ids))
    }

    /// Hands on their labels and the days they have, until that is enough.
    pub(super) async fn days(self, mut keep: impl FnMut(Labels, &[u16]) -> ControlFlow<()>) -> Result<()> {
        let columns = "groupUniqArray(toUInt16(day)), any(labels)";
        let row = |row: &mut Reader<'_>| Ok((row.array(Reader::u16)?, read_labels(row)?));
        let keep = |days: Vec<u16>, labels| keep(labels, &days);
        self.read(columns, "GROUP BY mid, sid", row, keep).await?;
        Ok(())
    }

    /// Reads with the matchers as a condition, and without their patterns if the servers refuse those;
    /// what was kept until then may be there again.
    async fn read<T>(
        self,
        columns: &str,
        end: &str,
        row: impl Fn(&mut Reader<'_>) -> Result<(T, Labels), Incomplete>,
        mut keep: impl FnMut(T, Labels) -> ControlFlow<()>,
    ) -> Result<Condition> {
        let condition = Condition::of(self.sets, Patterns::Sent);
        match self.read_where(&condition, columns, end, &row, &mut keep).await {
            Err(failure) if failure.code == Some(REFUSES_PATTERN) && condition.patterns => {
                add(&self.counters.patterns_refused, 1);
                let condition = Condition::of(self.sets, Patterns::Kept);
                self.read_where(&condition, columns, end, &row, &mut keep).await?;
                Ok(condition)
            }
            answer => {
                answer?;
                Ok(condition)
            }
        }
    }

    async fn read_where<T>(
        self,
        condition: &Condition,
        columns: &str,
        end: &str,
        row: impl Fn(&mut Reader<'_>) -> Result<(T, Labels), Incomplete>,
        mut keep: impl FnMut(T, Labels) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let sql = format!("SELECT {columns} FROM series WHERE {SCOPE} AND {} {end}", condition.sql());
        let statement = condition.bind(scoped(Statement::new(sql), self.tenant, self.range));
        let mut rows = self.servers.rows(&statement).await?;
        add(&self.counters.series_statements, 1);
        let mut found = 0;
        while let Some((what, labels)) = rows.next(&row).await? {
            if matches(self.sets, &labels) {
                found += 1;
                if keep(what, labels).is_break() {
                    break;
                }
            }
        }
        add(&self.counters.series_read, found);
        Ok(())
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
            // The condition lets the others through.
            left_out: true,
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
                self.left_out = true;
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
