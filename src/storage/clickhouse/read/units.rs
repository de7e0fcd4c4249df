//! Into which statements the reading of samples is cut.
//!
//! One statement reads one stretch of time and some hundred metrics. Where the series are few they are
//! named; where they are all of their metrics the metrics say enough; else the server looks for them again
//! by the matchers, which costs it less than reading what nobody wants and us less than naming thousands.

use std::collections::BTreeMap;

use super::{
    matchers::Condition,
    series::{Found, SCOPE, Series},
};
use crate::{
    model::{Millis, TenantId, TimeRange, Timestamp},
    storage::clickhouse::{
        client::Statement,
        tables::{BUCKET_MS, bucket},
    },
};

/// Series that a statement names one by one.
const MAX_NAMED: usize = 2_000;
/// Metrics that a statement names.
const MAX_METRICS: usize = 500;
/// Ranges longer than this are read in stretches.
pub(super) const LONG: Millis = Millis(7 * Millis::DAY.0);
/// No range is cut into more.
const MAX_STRETCHES: i64 = 64;

/// What one statement reads.
#[derive(Clone, Debug)]
pub(in crate::storage::clickhouse) struct Unit {
    range: TimeRange,
    mids: Vec<u64>,
    which: Which,
}

/// Which series of the metrics.
#[derive(Clone, Debug)]
enum Which {
    All,
    Named(Vec<u64>),
    Matching(Condition),
}

/// The statements for what was found in a range, in the order in which their rows are handed on.
///
/// `days` is on which of the tables' days there is anything, for a range that is long.
pub(in crate::storage::clickhouse) fn units(
    found: &Found,
    range: TimeRange,
    days: Option<(u16, u16)>,
) -> Vec<Unit> {
    let mut metrics: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for Series { mid, sid, .. } in &found.series {
        metrics.entry(*mid).or_default().push(*sid);
    }
    let metrics: Vec<_> = metrics.into_iter().collect();
    let mut units = Vec::new();
    for range in stretches(range, days) {
        for metrics in metrics.chunks(MAX_METRICS) {
            let mids = metrics.iter().map(|(mid, _)| *mid).collect();
            let series: usize = metrics.iter().map(|(_, sids)| sids.len()).sum();
            let which = if series <= MAX_NAMED {
                Which::Named(metrics.iter().flat_map(|(_, sids)| sids.iter().copied()).collect())
            } else if found.condition.only_names {
                Which::All
            } else {
                Which::Matching(found.condition.clone())
            };
            units.push(Unit { range, mids, which });
        }
    }
    units
}

impl Unit {
    /// A statement for `columns` of what this unit reads in `table`, in the order of the key; with `format`
    /// (` FORMAT …`), in another form than rows.
    pub(super) fn statement(&self, columns: &str, table: &str, tenant: &TenantId, format: &str) -> Statement {
        let statement = Statement::new(format!(
            "SELECT {columns} FROM {table} WHERE {} ORDER BY tenant, intDiv(ts, {BUCKET_MS}), mid, sid, ts{format}",
            self.filter()
        ));
        self.bind(statement, tenant)
    }

    /// The condition on the rows of this unit, to stand in a `WHERE`.
    pub(in crate::storage::clickhouse) fn filter(&self) -> String {
        let which = match &self.which {
            Which::All => String::new(),
            Which::Named(_) => " AND sid IN {sids:Array(UInt64)}".to_owned(),
            Which::Matching(condition) => {
                format!(" AND sid IN (SELECT sid FROM series WHERE {SCOPE} AND {})", condition.sql())
            }
        };
        format!(
            "tenant = {{tenant:String}} \
             AND intDiv(ts, {BUCKET_MS}) BETWEEN {{bucket_from:Int64}} AND {{bucket_to:Int64}} \
             AND ts BETWEEN {{from:Int64}} AND {{to:Int64}} AND mid IN {{mids:Array(UInt64)}}{which}"
        )
    }

    /// Binds what [`filter`](Self::filter) has.
    pub(in crate::storage::clickhouse) fn bind(&self, statement: Statement, tenant: &TenantId) -> Statement {
        let (from, to) = (self.range.start().0, self.range.end().0);
        let statement = scoped_samples(statement, tenant, from, to).param("mids", self.mids.clone());
        match &self.which {
            Which::All => statement,
            Which::Named(sids) => statement.param("sids", sids.clone()),
            Which::Matching(condition) => {
                let (day_from, day_to) = super::series::days(self.range);
                condition
                    .bind(statement.param("day_from", u64::from(day_from)).param("day_to", u64::from(day_to)))
            }
        }
    }

    /// Whether its statement asks the series table, and has bound what that takes.
    pub(in crate::storage::clickhouse) fn asks_series(&self) -> bool {
        matches!(self.which, Which::Matching(_))
    }

    /// Whether the server sees exactly the series that were found, if none is left out.
    pub(in crate::storage::clickhouse) fn is_exact(&self, left_out: bool) -> bool {
        match &self.which {
            Which::Named(_) => true,
            Which::All => !left_out,
            Which::Matching(condition) => !left_out && condition.complete && !condition.patterns,
        }
    }
}

fn scoped_samples(statement: Statement, tenant: &TenantId, from: i64, to: i64) -> Statement {
    statement
        .param("tenant", tenant.as_str())
        .param("bucket_from", bucket(from))
        .param("bucket_to", bucket(to))
        .param("from", from)
        .param("to", to)
}

/// A range in pieces of whole days.
fn stretches(range: TimeRange, days: Option<(u16, u16)>) -> Vec<TimeRange> {
    let Some((first, last)) = days else { return vec![range] };
    // What lies before the first day there is has no rows, unless it is the one that holds all before it.
    let day = |day: u16| Timestamp(i64::from(day) * Millis::DAY.0);
    let from = if first == 0 { range.start() } else { range.start().max(day(first)) };
    let to = if last == u16::MAX {
        range.end()
    } else {
        range.end().min(day(last).plus(Millis(Millis::DAY.0 - 1)))
    };
    let (first, last) = (i64::from(first), i64::from(last));
    let length = ((last - first) / MAX_STRETCHES + 1).max(LONG.0 / Millis::DAY.0);
    let mut pieces = Vec::new();
    let mut start = from;
    let mut next = first + length;
    while start <= to {
        let end = if next > last { to } else { Timestamp(next * Millis::DAY.0 - 1).min(to) };
        pieces.extend(TimeRange::new(start, end));
        if end == Timestamp::MAX {
            break;
        }
        start = end.plus(Millis(1)).max(start);
        next += length;
    }
    pieces
}
