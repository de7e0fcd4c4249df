//! Forgets the series of days on which a cleaned tombstone left nothing.
//!
//! Rows of the last days stay, since the pods know them as written and would not write them again. Rows of
//! earlier days are written with every batch that has samples of such a day, so those that were written
//! shortly before the removal or after it may belong to samples on their way, and stay as well.

use super::apply::{Applier, Which};
use crate::{
    model::{Millis, TenantId, TimeRange, Timestamp},
    storage::{Result, clickhouse::client::Statement},
};

/// Days that pods may know as written, today included, and a day for clocks that differ.
const KNOWN_DAYS: i64 = 3;
/// Longer than a batch may be on its way.
const ON_THE_WAY_SECONDS: u64 = 300;
/// Bytes of label values in one statement.
const MAX_BYTES: usize = 32 << 10;
/// What is told of rows in the tables that have days.
const OLD: &str = "tenant = {tenant:String} AND day BETWEEN toDate({first:UInt16}) AND toDate({last:UInt16}) \
                   AND written < toDateTime({before:UInt32}, 'UTC')";

impl Applier {
    /// The servers' time before which whatever was written is settled, in seconds.
    pub(super) async fn settled(&self) -> Result<u64> {
        let now = Statement::new("SELECT toUInt64(toUnixTimestamp(now()))");
        let now = self.servers.rows(&now).await?.all(|row| row.u64()).await?;
        Ok(now.first().map_or(0, |now| now.saturating_sub(ON_THE_WAY_SECONDS)))
    }

    /// Removes the series' rows, and those of labels that no series has any more, of the days that lie
    /// wholly in the range, are no longer written as a matter of course, and were written before a time.
    pub(super) async fn forget(
        &self,
        tenant: &TenantId,
        range: TimeRange,
        whose: &[Which],
        now: Timestamp,
        before: u64,
    ) -> Result<()> {
        let Some((first, last)) = whole_days(range, now) else { return Ok(()) };
        let bind = |statement: Statement| {
            statement
                .param("tenant", tenant.as_str())
                .param("first", u64::from(first))
                .param("last", u64::from(last))
                .param("before", before)
        };
        for which in whose {
            let condition = format!("{OLD}{}", which.sql("mid"));
            let there = format!("SELECT toUInt8(1) FROM series WHERE {condition} LIMIT 1");
            let there = which.bind(bind(Statement::new(there)));
            if self.servers.rows(&there).await?.all(|row| row.u8()).await?.is_empty() {
                continue;
            }
            self.carry_out(&which.bind(bind(self.delete_from("series", &condition)))).await?;
            let metrics = which.metrics();
            let of_metrics = metrics.sql("xxh3(toString(metric))");
            let unused = format!(
                "SELECT DISTINCT toString(name), value, toString(metric) FROM label_values \
                 WHERE {OLD}{of_metrics} AND (toString(name), value, toString(metric)) NOT IN \
                 (SELECT toString(k), v, toString(metric) FROM series ARRAY JOIN mapKeys(labels) AS k, mapValues(labels) AS v \
                 WHERE tenant = {{tenant:String}} AND day BETWEEN toDate({{first:UInt16}}) AND toDate({{last:UInt16}}){of_metrics})"
            );
            let unused = metrics.bind(bind(Statement::new(unused)));
            let row = self.servers.rows(&unused).await?;
            let unused = row.all(|row| Ok((row.string()?, row.string()?, row.string()?))).await?;
            for some in pieces(&unused) {
                let condition = format!(
                    "{OLD} AND has(arrayZip({{names:Array(String)}}, {{values:Array(String)}}, {{metrics:Array(String)}}), \
                     (toString(name), value, toString(metric)))"
                );
                let column = |of: fn(&(String, String, String)) -> &String| -> Vec<String> {
                    some.iter().map(|row| of(row).clone()).collect()
                };
                let delete = bind(self.delete_from("label_values", &condition))
                    .param("names", column(|row| &row.0))
                    .param("values", column(|row| &row.1))
                    .param("metrics", column(|row| &row.2));
                self.carry_out(&delete).await?;
            }
        }
        Ok(())
    }
}

/// The days of the tables that lie wholly in a range, as far as pods do not know them as written.
fn whole_days(range: TimeRange, now: Timestamp) -> Option<(u16, u16)> {
    let day = |day: i64| u16::try_from(day).ok();
    // The first day of the tables holds all times before it too.
    let first = match range.start() {
        start if start == Timestamp::MIN => 0,
        start => start.plus(Millis(Millis::DAY.0 - 1)).day().max(1),
    };
    let last = range.end().plus(Millis(1)).day() - 1;
    let last = last.min(now.day() - KNOWN_DAYS);
    (first <= last).then_some((day(first)?, day(last)?))
}

/// Cuts rows into pieces that a statement can carry.
fn pieces(rows: &[(String, String, String)]) -> Vec<&[(String, String, String)]> {
    let mut pieces = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (i, (name, value, metric)) in rows.iter().enumerate() {
        let size = name.len() + value.len() + metric.len() + 12;
        if bytes + size > MAX_BYTES && i > from {
            pieces.push(&rows[from..i]);
            (from, bytes) = (i, 0);
        }
        bytes += size;
    }
    if from < rows.len() {
        pieces.push(&rows[from..]);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_days_of_the_past_are_forgotten() {
        let day = Millis::DAY.0;
        let now = Timestamp(100 * day + 5);
        let days = |start, end| whole_days(TimeRange::new(Timestamp(start), Timestamp(end)).unwrap(), now);
        assert_eq!(days(10 * day, 12 * day - 1), Some((10, 11)));
        assert_eq!(days(10 * day + 1, 12 * day - 2), None);
        assert_eq!(days(10 * day + 1, 12 * day - 1), Some((11, 11)));
        assert_eq!(days(95 * day, i64::MAX), Some((95, 97)));
        assert_eq!(days(98 * day, i64::MAX), None);
        assert_eq!(days(i64::MIN, 3 * day), Some((0, 2)));
        assert_eq!(days(-5 * day, 3 * day), Some((1, 2)));
    }

    #[test]
    fn pieces_hold_all_rows_and_stay_small() {
        let row = |n: usize| (String::new(), "v".repeat(n), String::new());
        let rows: Vec<_> = [1, MAX_BYTES, 5, 20_000, 20_000, 3].map(row).to_vec();
        let lengths: Vec<usize> = pieces(&rows).iter().map(|piece| piece.len()).collect();
        assert_eq!(lengths, [1, 1, 2, 2]);
        assert!(pieces(&[]).is_empty());
    }
}
