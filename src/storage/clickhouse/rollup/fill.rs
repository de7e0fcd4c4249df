//! Rolls windows up once they are closed.
//!
//! A slice is some hours of all tenants. Each tenant's part of it is cut at metrics and series, which the
//! samples are sorted by, so that no statement reduces many more than [`MOST_SAMPLES`]; the servers read and
//! write, nothing comes here. What fails is tried again with the next pass, from the last slice on.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::task::JoinHandle;

use super::{PAUSE, Resolution, RollupCounters, Rollups, late::Mark};
use crate::{
    model::{Millis, TenantId, Timestamp},
    storage::{
        Result,
        clickhouse::{client::Statement, tables::bucket},
    },
};

/// Samples that one statement reduces, about.
const MOST_SAMPLES: u64 = 4_000_000;
/// Marks worked off in one pass.
const MOST_MARKS: u64 = 1_000;
/// Slices end at multiples of this.
const SLICE: i64 = 6 * Millis::HOUR.0;
/// How long a claim holds off the others.
const CLAIM: Millis = Millis(2 * Millis::MINUTE.0);
/// Threads of a server that a statement may take: nobody waits for it.
const THREADS: u32 = 2;

/// The reduction of samples to windows.
///
/// Of samples at one time the one counts that [`settle`](super::super::read::settle) says: numbers by their
/// order, then what is none by its bits. The stale marker loses to all, so it can go first.
const REDUCE: &str = "
WITH
    arrayFilter((row, next) -> row.1 != next, rows, arrayResize(arrayPopFront(rows.1), length(rows), toInt64(0))) AS settled,
    settled.1 AS times,
    settled.4 AS vals,
    arrayFilter((before, after) -> after < before, arrayPopBack(vals), arrayPopFront(vals)) AS fallen,
    arrayFilter(v -> NOT isNaN(v), vals) AS numbers
SELECT
    {tenant:String}, mid, sid, window_end,
    length(vals),
    if(arrayAll(v -> isFinite(v), vals), arrayReduce('sumKahan', vals), arraySum(vals)),
    if(empty(numbers), if(empty(vals), 0, nan), arrayMin(numbers)),
    if(empty(numbers), if(empty(vals), 0, nan), arrayMax(numbers)),
    vals[1], vals[-1], times[1], times[-1],
    length(fallen), arraySum(fallen),
    toUInt64(toUnixTimestamp64Nano(now64(9))), ret
FROM
(
    SELECT
        mid, sid, window_end, max(ret) AS ret,
        arraySort(groupArrayIf((ts, NOT isNaN(value), weight, value), is_sample)) AS rows
    FROM
    (
        SELECT
            mid, sid, ts, value, ret, 1 AS is_sample,
            intDiv(ts + {resolution:Int64} - 1, {resolution:Int64}) * {resolution:Int64} AS window_end,
            reinterpretAsUInt64(value) AS bits,
            multiIf(isNaN(value), bits, bits >= 9223372036854775808, bitNot(bits), bitOr(bits, 9223372036854775808)) AS weight
        FROM samples
        WHERE tenant = {tenant:String} AND intDiv(ts, 7200000) BETWEEN {bucket_from:Int64} AND {bucket_to:Int64}
            AND ts > {from:Int64} AND ts <= {to:Int64}
            AND mid BETWEEN {mid_from:UInt64} AND {mid_to:UInt64} AND sid BETWEEN {sid_from:UInt64} AND {sid_to:UInt64}
            AND reinterpretAsUInt64(value) != {stale:UInt64}";

/// In between, when windows are rolled up again: those there are, which may have lost their samples.
fn again(resolution: Resolution) -> String {
    format!(
        "
        UNION ALL
        SELECT mid, sid, toInt64(0), toFloat64(0), ret, 0, ts, toUInt64(0), toUInt64(0)
        FROM {}
        WHERE tenant = {{tenant:String}} AND intDiv(ts, 86400000) BETWEEN {{day_from:Int64}} AND {{day_to:Int64}}
            AND ts > {{from:Int64}} AND ts <= {{to:Int64}}
            AND mid BETWEEN {{mid_from:UInt64}} AND {{mid_to:UInt64}} AND sid BETWEEN {{sid_from:UInt64}} AND {{sid_to:UInt64}}",
        resolution.table()
    )
}

/// Starts to look for what has closed, again and again, until the store is gone.
pub(super) fn start(rollups: &Arc<Rollups>) -> JoinHandle<()> {
    // Not all of us at the same time.
    let phase = PAUSE.mul_f64(f64::from(u32::try_from(rollups.number() % 1_000).unwrap_or(0)) / 1_000.0);
    let rollups = Arc::downgrade(rollups);
    crate::task::spawn("clickhouse-rollup", async move {
        let mut pause = phase;
        loop {
            tokio::time::sleep(pause).await;
            let Some(rollups) = rollups.upgrade() else { return };
            if let Err(error) = rollups.pass().await {
                tracing::warn!(%error, "rolling up failed, it goes on later");
            }
            pause = PAUSE;
        }
    })
}

/// A part of a tenant's samples: ranges of `mid` and `sid`, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    mids: (u64, u64),
    sids: (u64, u64),
}

impl Rollups {
    /// Rolls up all that has closed and is not rolled up, and works off the marks; unless another of us is at it.
    pub(in crate::storage::clickhouse) async fn pass(&self) -> Result<()> {
        let done = self.try_pass().await;
        let counter = if done.is_ok() { &self.counters.passes } else { &self.counters.passes_failed };
        RollupCounters::add(counter, 1);
        done
    }

    async fn try_pass(&self) -> Result<()> {
        if self.is_claimed().await? {
            return Ok(());
        }
        let mut lag = 0;
        for resolution in Resolution::ALL {
            let until = self.fill(resolution).await?;
            lag = lag.max(self.clock.now().0.saturating_sub(until) / 1_000);
        }
        self.counters.lag_seconds.store(u64::try_from(lag).unwrap_or(0), Relaxed);
        self.work_off().await
    }

    /// Up to which time windows are rolled up; nothing is if there is none.
    pub(super) async fn until(&self, resolution: Resolution) -> Result<Option<i64>> {
        let statement = Statement::new(
            "SELECT count() > 0, max(until) FROM rollup_progress WHERE resolution = {resolution:String}",
        )
        .param("resolution", resolution.table());
        let rows = self.servers.rows(&statement).await?.all(|row| Ok((row.u8()? == 1, row.i64()?))).await?;
        Ok(rows.first().filter(|(any, _)| *any).map(|(_, until)| *until))
    }

    /// Rolls up the windows between what is and what can be, and says up to where they are.
    async fn fill(&self, resolution: Resolution) -> Result<i64> {
        let closed = resolution.closed(self.clock.now());
        // Windows have names from the beginning of time on.
        let mut until = self.until(resolution).await?.unwrap_or_default();
        while until < closed {
            let to = closed.min((until.div_euclid(SLICE) + 1) * SLICE);
            let tenants = self.tenants(until + 1, to).await?;
            for tenant in &tenants {
                self.claim().await?;
                self.roll(resolution, tenant, (until, to), false).await?;
                RollupCounters::add(&self.counters.windows, windows(resolution, until, to));
            }
            until = if tenants.is_empty() {
                // The sample at the beginning of a day is in a window that ends there.
                let next = self.next_day(to).await?.map_or(closed, |day| day - resolution.millis());
                next.clamp(to, closed)
            } else {
                to
            };
            self.proceed(resolution, until).await?;
        }
        Ok(until)
    }

    /// Rolls up again what is marked, once all of it is closed.
    async fn work_off(&self) -> Result<()> {
        let closed = Resolution::Hour.closed(self.clock.now());
        let mut tenants: BTreeMap<TenantId, Vec<Mark>> = BTreeMap::new();
        for mark in self.marks(closed, MOST_MARKS).await? {
            tenants.entry(mark.tenant.clone()).or_default().push(mark);
        }
        for (tenant, marks) in tenants {
            for marked in joined(&marks) {
                let (mut from, to) = self.bounded(&tenant, marked).await?;
                while from < to {
                    let slice = to.min((from.div_euclid(SLICE) + 1) * SLICE);
                    self.claim().await?;
                    for resolution in Resolution::ALL {
                        self.roll(resolution, &tenant, (from, slice), true).await?;
                        RollupCounters::add(&self.counters.windows_again, windows(resolution, from, slice));
                    }
                    from = slice;
                }
            }
            self.done(&marks.iter().collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Rolls up a tenant's windows that end in `(from, to]`.
    async fn roll(
        &self,
        resolution: Resolution,
        tenant: &TenantId,
        (from, to): (i64, i64),
        again: bool,
    ) -> Result<()> {
        let statement = |sql: String| {
            Statement::new(sql)
                .param("tenant", tenant.as_str())
                .param("from", from)
                .param("to", to)
                .param("bucket_from", bucket(from + 1))
                .param("bucket_to", bucket(to))
                .setting("max_threads", THREADS)
                .setting("max_memory_usage", self.config.server_limits.memory_bytes)
        };
        let count = statement(
            "SELECT mid, count() FROM samples WHERE tenant = {tenant:String} \
             AND intDiv(ts, 7200000) BETWEEN {bucket_from:Int64} AND {bucket_to:Int64} \
             AND ts > {from:Int64} AND ts <= {to:Int64} GROUP BY mid ORDER BY mid"
                .to_owned(),
        );
        let counts = self.servers.rows(&count).await?.all(|row| Ok((row.u64()?, row.u64()?))).await?;
        if counts.is_empty() && !again {
            return Ok(());
        }
        let union = if again { self::again(resolution) } else { String::new() };
        for share in shares(&counts) {
            let sql = format!(
                "INSERT INTO {} (tenant, mid, sid, ts, cnt, sum, min, max, first, last, first_ts, last_ts, resets, \
                 before_resets, version, ret){REDUCE}{union}\n    )\n    GROUP BY mid, sid, window_end\n)",
                resolution.table()
            );
            let roll = statement(sql)
                .param("resolution", resolution.millis())
                .param("stale", crate::model::STALE_NAN_BITS)
                .param("mid_from", share.mids.0)
                .param("mid_to", share.mids.1)
                .param("sid_from", share.sids.0)
                .param("sid_to", share.sids.1)
                // If it breaks off and is done again, all of it is to be done.
                .setting("insert_deduplicate", 0);
            let roll = if again {
                roll.param("day_from", (from + 1) / Millis::DAY.0).param("day_to", to / Millis::DAY.0)
            } else {
                roll
            };
            self.servers.run(&roll).await?;
        }
        Ok(())
    }

    /// Who has series on the days of a stretch of time.
    async fn tenants(&self, from: i64, to: i64) -> Result<Vec<TenantId>> {
        let statement = Statement::new(
            "SELECT DISTINCT tenant FROM series \
             WHERE day BETWEEN toDate({from:UInt16}) AND toDate({to:UInt16}) ORDER BY tenant",
        )
        .param("from", day(from))
        .param("to", day(to));
        let names = self.servers.rows(&statement).await?.all(|row| row.string()).await?;
        Ok(names.iter().filter_map(|name| TenantId::new(name).ok()).collect())
    }

    /// The beginning of the next day after the one of `at` on which anybody has series.
    async fn next_day(&self, at: i64) -> Result<Option<i64>> {
        let statement = Statement::new(
            "SELECT count() > 0, toUInt16(min(day)) FROM series WHERE day > toDate({day:UInt16})",
        )
        .param("day", day(at));
        let rows = self.servers.rows(&statement).await?.all(|row| Ok((row.u8()? == 1, row.u16()?))).await?;
        Ok(rows.first().filter(|(any, _)| *any).map(|(_, day)| i64::from(*day) * Millis::DAY.0))
    }

    /// What of `(from, to]` is on days on which a tenant has anything, samples or windows.
    async fn bounded(&self, tenant: &TenantId, (from, to): (i64, i64)) -> Result<(i64, i64)> {
        let statement = Statement::new(
            "SELECT count() > 0, min(touched), max(touched) FROM \
             (SELECT toInt64(toUInt16(day)) AS touched FROM series WHERE tenant = {tenant:String} \
              AND day BETWEEN toDate({day_from:UInt16}) AND toDate({day_to:UInt16}) \
              UNION ALL SELECT intDiv(ts, 86400000) AS touched FROM rollup_5m WHERE tenant = {tenant:String} \
              AND intDiv(ts, 86400000) BETWEEN {day_from:UInt16} AND {day_to:UInt16})",
        )
        .param("tenant", tenant.as_str())
        .param("day_from", day(from))
        .param("day_to", day(to));
        let rows = self.servers.rows(&statement).await?;
        let rows = rows.all(|row| Ok((row.u8()? == 1, row.i64()?, row.i64()?))).await?;
        let Some((_, first, last)) = rows.first().filter(|(any, ..)| *any) else { return Ok((to, to)) };
        // The first sample of a day is in a window of the day before.
        let first = first * Millis::DAY.0 - Millis::HOUR.0;
        Ok((from.max(first).max(0), to.min((last + 1) * Millis::DAY.0)))
    }

    /// Writes down how far windows are rolled up.
    async fn proceed(&self, resolution: Resolution, until: i64) -> Result<()> {
        // The furthest counts, whoever was later.
        let version = u64::try_from(until).unwrap_or(0);
        self.note(resolution.table(), until, version).await
    }

    /// Whether another of us is at it.
    async fn is_claimed(&self) -> Result<bool> {
        let statement = Statement::new(
            "SELECT argMax(owner, version), argMax(until, version) FROM rollup_progress WHERE resolution = 'claim'",
        );
        let rows = self.servers.rows(&statement).await?.all(|row| Ok((row.u64()?, row.i64()?))).await?;
        let Some((owner, since)) = rows.first() else { return Ok(false) };
        let age = self.clock.now().0.saturating_sub(*since).saturating_abs();
        Ok(*owner != self.owner && age < CLAIM.0)
    }

    /// Says that we are at it.
    async fn claim(&self) -> Result<()> {
        let now = self.clock.now().0;
        if now.saturating_sub(self.claimed.load(Relaxed)) < CLAIM.0 / 4 {
            return Ok(());
        }
        self.note("claim", now, u64::try_from(now).unwrap_or(0)).await?;
        self.claimed.store(now, Relaxed);
        Ok(())
    }

    async fn note(&self, resolution: &'static str, until: i64, version: u64) -> Result<()> {
        let statement = Statement::new(
            "INSERT INTO rollup_progress (resolution, until, owner, version) \
             SELECT {resolution:String}, {until:Int64}, {owner:UInt64}, {version:UInt64}",
        )
        .param("resolution", resolution)
        .param("until", until)
        .param("owner", self.owner)
        .param("version", version);
        Ok(self.servers.run(&statement).await?)
    }
}

fn day(at: i64) -> u64 {
    u64::try_from(Timestamp(at).day().clamp(0, i64::from(u16::MAX))).unwrap_or(0)
}

fn windows(resolution: Resolution, from: i64, to: i64) -> u64 {
    u64::try_from((to - from) / resolution.millis()).unwrap_or(0)
}

/// What marks in order of time are of together.
fn joined(marks: &[Mark]) -> Vec<(i64, i64)> {
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for mark in marks {
        match joined.last_mut() {
            Some(last) if mark.from <= last.1 => last.1 = last.1.max(mark.to),
            Some(_) | None => joined.push((mark.from, mark.to)),
        }
    }
    joined
}

/// Cuts a tenant's samples, counted by metric in order, into shares that cover every series there may be.
fn shares(counts: &[(u64, u64)]) -> Vec<Share> {
    const ALL: (u64, u64) = (0, u64::MAX);
    let mut shares = Vec::new();
    let (mut from, mut samples) = (0, 0);
    for (mid, count) in counts {
        if samples > 0 && samples + count > MOST_SAMPLES {
            shares.push(Share { mids: (from, mid - 1), sids: ALL });
            (from, samples) = (*mid, 0);
        }
        samples += count;
        if samples > MOST_SAMPLES {
            // One metric is too much: its series' ids are spread evenly.
            let parts = samples.div_ceil(MOST_SAMPLES);
            let width = u64::MAX / parts;
            let end = |part: u64| if part + 1 == parts { u64::MAX } else { (part + 1) * width - 1 };
            shares
                .extend((0..parts).map(|part| Share { mids: (from, *mid), sids: (part * width, end(part)) }));
            let Some(next) = mid.checked_add(1) else { return shares };
            (from, samples) = (next, 0);
        }
    }
    shares.push(Share { mids: (from, u64::MAX), sids: ALL });
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_series_once() {
        for counts in [
            vec![],
            vec![(5, 10)],
            vec![(0, MOST_SAMPLES), (7, MOST_SAMPLES), (u64::MAX, 1)],
            vec![(3, 1), (9, 3 * MOST_SAMPLES), (10, 5)],
            vec![(u64::MAX, 2 * MOST_SAMPLES + 1)],
        ] {
            let shares = shares(&counts);
            for mid in [0, 3, 5, 7, 8, 9, 10, u64::MAX - 1, u64::MAX] {
                for sid in [0, 1, u64::MAX / 3, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
                    let within = |range: (u64, u64), at| range.0 <= at && at <= range.1;
                    let of = shares.iter().filter(|share| within(share.mids, mid) && within(share.sids, sid));
                    assert_eq!(of.count(), 1, "{mid} {sid} of {counts:?}");
                }
            }
            for share in &shares {
                let of = counts.iter().filter(|(mid, _)| share.mids.0 <= *mid && *mid <= share.mids.1);
                let parts = (u64::MAX / (share.sids.1 - share.sids.0)).max(1);
                assert!(of.map(|(_, count)| count).sum::<u64>() / parts <= MOST_SAMPLES);
            }
        }
    }

    #[test]
    fn marks_that_touch_are_worked_off_together() {
        let mark = |from, to| Mark { tenant: TenantId::new("a").unwrap(), number: 1, from, to };
        assert_eq!(joined(&[mark(0, 5), mark(1, 3), mark(5, 6), mark(8, 20)]), [(0, 6), (8, 20)]);
    }
}
