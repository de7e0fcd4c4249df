//! Where samples came late or went.

use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{LATE, Resolution, RollupCounters, Rollups, window};
use crate::{
    model::{TenantId, TimeRange, Timestamp},
    storage::{
        Result, WriteBatch,
        clickhouse::{
            client::{Insert, Statement},
            rowbinary::Write,
        },
    },
};

/// Marks are of whole windows of the greatest length.
const COARSEST: Resolution = Resolution::Hour;

/// What an append has to mark once it is done: `(from, to]`, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::storage::clickhouse) struct Late(Vec<(i64, i64)>);

/// A mark that is not worked off.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) tenant: TenantId,
    pub(super) number: u64,
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Late {
    pub(in crate::storage::clickhouse) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The windows that end at `ends`; what is closed can be worked off first.
    fn of(ends: BTreeSet<i64>, closed: i64) -> Self {
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        for end in ends {
            let start = end.saturating_sub(COARSEST.millis());
            match ranges.last_mut() {
                Some(last) if last.1 == start && start != closed => last.1 = end,
                Some(_) | None => ranges.push((start, end)),
            }
        }
        Self(ranges)
    }
}

/// Marks that wait for the insert before theirs to end, so that there is one at a time.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    marks: Mutex<BTreeSet<(TenantId, i64, i64)>>,
    turn: tokio::sync::Mutex<()>,
}

/// Marks on their way; if they do not get there, they wait again.
#[derive(Debug)]
struct Taken<'a> {
    marks: BTreeSet<(TenantId, i64, i64)>,
    from: &'a Waiting,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.from.marks.lock().append(&mut self.marks);
    }
}

impl Rollups {
    /// Where a batch has samples that may lie in windows already rolled up.
    pub(in crate::storage::clickhouse) fn late(&self, tenant: &TenantId, batch: &WriteBatch) -> Late {
        if !self.config.rollups {
            return Late::default();
        }
        let now = self.clock.now();
        let (oldest, young) = (self.oldest(tenant).max(Timestamp(1)), now.minus(LATE));
        let late = batch.samples.iter().map(|sample| sample.timestamp);
        let late = late.filter(|at| oldest <= *at && *at < young);
        Late::of(late.map(|at| window::end_of(at.0, COARSEST.millis())).collect(), COARSEST.closed(now))
    }

    /// The windows that a deletion touches. Those that are in the future are not rolled up yet.
    pub(in crate::storage::clickhouse) fn touched_by(&self, range: TimeRange) -> Late {
        let (length, now) = (COARSEST.millis(), self.clock.now());
        let closed = COARSEST.closed(now);
        let from = window::end_of(range.start().0.max(1), length) - length;
        let to = window::end_of(range.end().0.min(now.0), length);
        let parts = [(from, to.min(closed)), (from.max(closed), to)];
        Late(parts.into_iter().filter(|(from, to)| from < to).collect())
    }

    /// Marks windows, to be rolled up again and until then not to be read. To be called when the
    /// samples are there (or gone), and before anybody is told so.
    pub(in crate::storage::clickhouse) async fn mark(&self, tenant: &TenantId, late: Late) -> Result<()> {
        if !self.config.rollups || late.is_empty() {
            return Ok(());
        }
        let mine: Vec<_> = late.0.into_iter().map(|(from, to)| (tenant.clone(), from, to)).collect();
        self.waiting.marks.lock().extend(mine.iter().cloned());
        let _turn = self.waiting.turn.lock().await;
        let mut taken = {
            let mut waiting = self.waiting.marks.lock();
            if !mine.iter().any(|mark| waiting.contains(mark)) {
                // They went with somebody else's, after they had begun to wait.
                return Ok(());
            }
            Taken { marks: std::mem::take(&mut *waiting), from: &self.waiting }
        };
        let marks: Vec<Mark> = (taken.marks.iter())
            .map(|(tenant, from, to)| Mark {
                tenant: tenant.clone(),
                number: self.number(),
                from: *from,
                to: *to,
            })
            .collect();
        self.put(&marks.iter().collect::<Vec<_>>(), 0).await?;
        taken.marks.clear();
        RollupCounters::add(&self.counters.marks, marks.len() as u64);
        Ok(())
    }

    /// Writes down that marks are worked off.
    pub(super) async fn done(&self, marks: &[&Mark]) -> Result<()> {
        self.put(marks, 1).await?;
        RollupCounters::add(&self.counters.marks_done, marks.len() as u64);
        Ok(())
    }

    async fn put(&self, marks: &[&Mark], done: u8) -> Result<()> {
        let mut rows = Vec::new();
        for mark in marks {
            rows.string(mark.tenant.as_str());
            rows.u64(mark.number);
            rows.i64(mark.from);
            rows.i64(mark.to);
            rows.u8(done);
        }
        let token = format!("{:032x}", xxh3_128(&rows));
        let into = "rollup_late (tenant, mark, from_ts, to_ts, done)";
        Ok(self.servers.insert(&Insert { into, rows: Bytes::from(rows), token }).await?)
    }

    /// The marks of all tenants that are of windows up to `closed` and not worked off, `most` of them.
    pub(super) async fn marks(&self, closed: i64, most: u64) -> Result<Vec<Mark>> {
        let statement = Statement::new(
            "SELECT tenant, mark, from_ts, to_ts FROM rollup_late FINAL WHERE done = 0 AND to_ts <= {closed:Int64} \
             ORDER BY tenant, from_ts, to_ts, mark LIMIT {most:UInt64}",
        )
        .param("closed", closed)
        .param("most", most);
        let rows = self.servers.rows(&statement).await?;
        let marks = rows.all(|row| Ok((row.string()?, row.u64()?, row.i64()?, row.i64()?))).await?;
        // What is no tenant's name was written by nobody here.
        let mark = |(tenant, number, from, to): (String, u64, i64, i64)| {
            Some(Mark { tenant: TenantId::new(&tenant).ok()?, number, from, to })
        };
        Ok(marks.into_iter().filter_map(mark).collect())
    }

    /// Where a tenant has marks that are not worked off: `(from, to]`.
    pub(super) async fn marked(&self, tenant: &TenantId, (from, to): (i64, i64)) -> Result<Vec<(i64, i64)>> {
        let statement = Statement::new(
            "SELECT DISTINCT from_ts, to_ts FROM rollup_late FINAL WHERE tenant = {tenant:String} AND done = 0 \
             AND from_ts < {to:Int64} AND to_ts > {from:Int64}",
        )
        .param("tenant", tenant.as_str())
        .param("from", from)
        .param("to", to);
        Ok(self.servers.rows(&statement).await?.all(|row| Ok((row.i64()?, row.i64()?))).await?)
    }

    /// A number that none of us has used.
    pub(super) fn number(&self) -> u64 {
        let mut who = [0; 24];
        who[..8].copy_from_slice(&self.owner.to_le_bytes());
        who[8..16].copy_from_slice(&self.clock.now().0.to_le_bytes());
        who[16..].copy_from_slice(&self.made.fetch_add(1, Relaxed).to_le_bytes());
        xxh3_64(&who)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::clickhouse::{ClickHouseConfig, client::Servers};

    const HOUR: i64 = 3_600_000;

    #[test]
    fn windows_next_to_each_other_are_one_mark_as_far_as_they_are_closed() {
        let of =
            |ends: &[i64], closed| Late::of(ends.iter().map(|end| end * HOUR).collect(), closed * HOUR).0;
        assert_eq!(of(&[], 9), []);
        assert_eq!(of(&[3, 1, 2, 7], 9), [(0, 3 * HOUR), (6 * HOUR, 7 * HOUR)]);
        assert_eq!(of(&[3, 1, 2], 2), [(0, 2 * HOUR), (2 * HOUR, 3 * HOUR)]);
    }

    #[tokio::test]
    async fn a_deletion_touches_whole_windows_up_to_now() {
        let clock = crate::clock::HandClock::at(Timestamp(10 * HOUR + 1));
        let config = Arc::new(ClickHouseConfig::new("http://127.0.0.1:1"));
        let servers = Arc::new(Servers::new(&config, Arc::clone(&clock) as _).unwrap());
        let rollups = Rollups::new(servers, config, clock);
        let of = |from, to| rollups.touched_by(TimeRange::new(Timestamp(from), Timestamp(to)).unwrap()).0;
        assert_eq!(of(1, HOUR), [(0, HOUR)]);
        assert_eq!(of(HOUR + 1, 2 * HOUR + 1), [(HOUR, 3 * HOUR)]);
        // At ten, windows up to nine are closed.
        assert_eq!(of(i64::MIN, i64::MAX), [(0, 9 * HOUR), (9 * HOUR, 11 * HOUR)]);
        assert_eq!(of(20 * HOUR, i64::MAX), []);
        assert_eq!(of(i64::MIN, 0), []);
    }
}
