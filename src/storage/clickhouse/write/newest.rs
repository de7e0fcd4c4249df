//! How late samples are, where a tenant bounds that.
//!
//! No pod knows all of a series, so ClickHouse is asked for its newest sample, once: after that the pod
//! goes by what it writes itself. Samples that other pods write in the meantime do not count until then,
//! so the bound is exact when a series stays with a pod, and may let more in when it does not.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::{retention::Keep, rows::mid};
use crate::{
    model::{Histogram, Millis, SeriesId, TenantId, Timestamp},
    storage::{
        RejectReason, WriteBatch,
        clickhouse::{
            client::{Failure, Servers, Statement},
            histogram,
            rowbinary::Reader,
            tables::bucket,
        },
    },
};

/// Series asked for in one statement: a parameter's text is bounded.
const ASKED_AT_ONCE: usize = 2_000;

/// Series remembered at most; beyond that all are asked for again.
const CAPACITY: usize = 1_000_000;

/// The newest sample of each series of the tenants that bound how late samples may be.
#[derive(Debug)]
pub(super) struct Newest {
    servers: Option<Arc<Servers>>,
    series: Mutex<HashMap<(TenantId, SeriesId), Known, RandomState>>,
}

/// What is known of a series: no sample of it after `complete_from` is later than `newest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    newest: i64,
    complete_from: i64,
}

/// Which of a batch's samples come too late; empty if all may.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    late_samples: HashSet<usize>,
    late_histograms: HashSet<usize>,
    /// Whether what is written is to be remembered.
    bounded: bool,
    /// Series that may not begin.
    pub(super) refused: HashMap<SeriesId, RejectReason>,
}

impl Verdicts {
    #[inline]
    pub(super) fn of_sample(&self, i: usize) -> Result<(), RejectReason> {
        if self.late_samples.contains(&i) { Err(RejectReason::OutOfOrder) } else { Ok(()) }
    }

    #[inline]
    pub(super) fn of_histogram(&self, i: usize) -> Result<(), RejectReason> {
        if self.late_histograms.contains(&i) { Err(RejectReason::OutOfOrder) } else { Ok(()) }
    }
}

impl Newest {
    pub(super) fn new(servers: Arc<Servers>) -> Self {
        Self { servers: Some(servers), series: Mutex::default() }
    }

    /// Who is asked.
    pub(super) fn servers(&self) -> Option<Arc<Servers>> {
        self.servers.as_ref().map(Arc::clone)
    }

    /// One that has nobody to ask.
    #[cfg(test)]
    pub(super) fn alone() -> Self {
        Self { servers: None, series: Mutex::default() }
    }

    /// Tells which samples of a batch come too late. One that is there already, to the bit, never does.
    pub(super) async fn judge(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        keep: Keep,
    ) -> Result<Verdicts, Failure> {
        let Some(window) = batch.policy.out_of_order_window else { return Ok(Verdicts::default()) };
        self.learn(tenant, &batch_floors(batch, keep, window)).await?;
        let mut verdicts = self.compare(tenant, batch, keep, window);
        self.pardon(tenant, batch, &mut verdicts).await?;
        Ok(verdicts)
    }

    /// Notes what was written.
    pub(super) fn written(&self, tenant: &TenantId, batch: &WriteBatch, verdicts: &Verdicts) {
        if !verdicts.bounded {
            return;
        }
        let mut series = self.series.lock();
        for (_, at, ordinal) in everything(batch) {
            if let Some(known) = series.get_mut(&(tenant.clone(), id_of(batch, ordinal))) {
                known.newest = known.newest.max(at.0);
            }
        }
    }

    /// Asks for the series of which it is not known what they have after the times given.
    async fn learn(&self, tenant: &TenantId, floors: &BTreeMap<SeriesId, i64>) -> Result<(), Failure> {
        let unknown: Vec<SeriesId> = {
            let series = self.series.lock();
            let is_known = |(id, floor): &(&SeriesId, &i64)| {
                series.get(&(tenant.clone(), **id)).is_some_and(|known| known.complete_from <= **floor)
            };
            floors.iter().filter(|entry| !is_known(entry)).map(|(id, _)| *id).collect()
        };
        for ids in unknown.chunks(ASKED_AT_ONCE) {
            let after = ids.iter().filter_map(|id| floors.get(id)).min().copied().unwrap_or(i64::MAX);
            let mut newest: HashMap<SeriesId, i64> = HashMap::new();
            for table in ["samples", "histograms"] {
                let found = self.ask_newest(table, tenant, ids, after).await?;
                for (id, at) in found {
                    let newest = newest.entry(id).or_insert(i64::MIN);
                    *newest = (*newest).max(at);
                }
            }
            let mut series = self.series.lock();
            if series.len() + ids.len() > CAPACITY {
                series.clear();
            }
            for id in ids {
                let found = newest.get(id).copied().unwrap_or(i64::MIN);
                let known = series
                    .entry((tenant.clone(), *id))
                    .or_insert(Known { newest: i64::MIN, complete_from: i64::MAX });
                known.newest = known.newest.max(found);
                known.complete_from = known.complete_from.min(after);
            }
        }
        Ok(())
    }

    async fn ask_newest(
        &self,
        table: &str,
        tenant: &TenantId,
        ids: &[SeriesId],
        after: i64,
    ) -> Result<Vec<(SeriesId, i64)>, Failure> {
        let Some(servers) = &self.servers else { return Ok(Vec::new()) };
        let statement = Statement::new(format!(
            "SELECT mid, sid, max(ts) FROM {table} WHERE tenant = {{tenant:String}} \
             AND intDiv(ts, 7200000) >= {{bucket:Int64}} AND mid IN {{mids:Array(UInt64)}} \
             AND sid IN {{sids:Array(UInt64)}} AND ts > {{after:Int64}} GROUP BY mid, sid"
        ));
        let statement =
            of_series(statement, tenant, ids).param("bucket", bucket(after)).param("after", after);
        let rows = servers.rows(&statement).await?;
        rows.all(|row| Ok((id(row)?, row.i64()?))).await
    }

    /// Compares a batch with what is known.
    fn compare(&self, tenant: &TenantId, batch: &WriteBatch, keep: Keep, window: Millis) -> Verdicts {
        let mut verdicts = Verdicts { bounded: true, ..Verdicts::default() };
        let series = self.series.lock();
        // What comes earlier in the batch counts too.
        let mut newest: HashMap<SeriesId, i64, RandomState> = HashMap::default();
        for (place, at, ordinal) in everything(batch).filter(|(_, at, _)| *at >= keep.oldest) {
            let id = id_of(batch, ordinal);
            let known = || series.get(&(tenant.clone(), id)).map_or(i64::MIN, |known| known.newest);
            let newest = newest.entry(id).or_insert_with(known);
            if at < Timestamp(*newest).minus(window) {
                match place {
                    Place::Sample(i) => verdicts.late_samples.insert(i),
                    Place::Histogram(i) => verdicts.late_histograms.insert(i),
                };
            } else {
                *newest = (*newest).max(at.0);
            }
        }
        verdicts
    }

    /// Lets in again what is there already.
    async fn pardon(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        verdicts: &mut Verdicts,
    ) -> Result<(), Failure> {
        let Some(servers) = &self.servers else { return Ok(()) };
        if !verdicts.late_samples.is_empty() {
            let late = verdicts.late_samples.iter().map(|i| &batch.samples[*i]);
            let late: BTreeSet<(SeriesId, i64)> =
                late.map(|s| (id_of(batch, s.series), s.timestamp.0)).collect();
            let mut there: HashSet<(SeriesId, i64, u64)> = HashSet::new();
            for statement in
                at_times(tenant, &late, "SELECT mid, sid, ts, reinterpretAsUInt64(value) FROM samples")
            {
                let rows = servers.rows(&statement).await?;
                there.extend(rows.all(|row| Ok((id(row)?, row.i64()?, row.u64()?))).await?);
            }
            verdicts.late_samples.retain(|i| {
                let sample = &batch.samples[*i];
                !there.contains(&(id_of(batch, sample.series), sample.timestamp.0, sample.value.to_bits()))
            });
        }
        if !verdicts.late_histograms.is_empty() {
            let late = verdicts.late_histograms.iter().map(|i| &batch.histograms[*i]);
            let late: BTreeSet<(SeriesId, i64)> =
                late.map(|s| (id_of(batch, s.series), s.timestamp.0)).collect();
            let mut there: HashMap<(SeriesId, i64), Vec<Histogram>> = HashMap::new();
            let select = format!("SELECT mid, sid, ts, {} FROM histograms", histogram::COLUMNS);
            for statement in at_times(tenant, &late, &select) {
                let rows = servers.rows(&statement).await?;
                let found = rows.all(|row| Ok(((id(row)?, row.i64()?), histogram::take(row)?))).await?;
                found.into_iter().for_each(|(key, histogram)| there.entry(key).or_default().push(histogram));
            }
            verdicts.late_histograms.retain(|i| {
                let sample = &batch.histograms[*i];
                let there = there.get(&(id_of(batch, sample.series), sample.timestamp.0));
                !there.is_some_and(|all| all.iter().any(|h| h.same_bits(&sample.histogram)))
            });
        }
        Ok(())
    }
}

/// Where in a batch something is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Sample(usize),
    Histogram(usize),
}

/// The samples of a batch, then its histograms.
fn everything(batch: &WriteBatch) -> impl Iterator<Item = (Place, Timestamp, u32)> {
    let samples = batch.samples.iter().enumerate().map(|(i, s)| (Place::Sample(i), s.timestamp, s.series));
    let histograms =
        batch.histograms.iter().enumerate().map(|(i, s)| (Place::Histogram(i), s.timestamp, s.series));
    samples.chain(histograms)
}

fn id_of(batch: &WriteBatch, ordinal: u32) -> SeriesId {
    batch.series[usize::try_from(ordinal).expect("an index fits")]
}

/// For each series, after when something would make one of its samples in the batch too late.
fn batch_floors(batch: &WriteBatch, keep: Keep, window: Millis) -> BTreeMap<SeriesId, i64> {
    let mut floors = BTreeMap::new();
    for (_, at, ordinal) in everything(batch).filter(|(_, at, _)| *at >= keep.oldest) {
        let floor = floors.entry(id_of(batch, ordinal)).or_insert(i64::MAX);
        *floor = (*floor).min(at.plus(window).0);
    }
    floors
}

/// Statements for what some series have at some times.
fn at_times(tenant: &TenantId, late: &BTreeSet<(SeriesId, i64)>, select: &str) -> Vec<Statement> {
    let late: Vec<(SeriesId, i64)> = late.iter().copied().collect();
    let statement = |late: &[(SeriesId, i64)]| {
        let (ids, times): (Vec<SeriesId>, Vec<i64>) = late.iter().copied().unzip();
        let statement = Statement::new(format!(
            "{select} WHERE tenant = {{tenant:String}} AND intDiv(ts, 7200000) BETWEEN {{first:Int64}} AND {{last:Int64}} \
             AND mid IN {{mids:Array(UInt64)}} AND sid IN {{sids:Array(UInt64)}} \
             AND reinterpretAsUInt64(ts) IN {{times:Array(UInt64)}}"
        ));
        let ends = |time: Option<&i64>| bucket(time.copied().unwrap_or(0));
        of_series(statement, tenant, &ids)
            .param("first", ends(times.iter().min()))
            .param("last", ends(times.iter().max()))
            .param("times", times.iter().map(|time| time.cast_unsigned()).collect::<Vec<u64>>())
    };
    late.chunks(ASKED_AT_ONCE).map(statement).collect()
}

fn of_series(statement: Statement, tenant: &TenantId, ids: &[SeriesId]) -> Statement {
    let mids: BTreeSet<u64> = ids.iter().map(|id| mid(*id)).collect();
    let sids: BTreeSet<u64> = ids.iter().map(|id| id.hash64()).collect();
    statement
        .param("tenant", tenant.as_str())
        .param("mids", mids.into_iter().collect::<Vec<u64>>())
        .param("sids", sids.into_iter().collect::<Vec<u64>>())
}

fn id(row: &mut Reader<'_>) -> Result<SeriesId, crate::storage::clickhouse::rowbinary::Incomplete> {
    Ok(SeriesId(u128::from(row.u64()?) << 64 | u128::from(row.u64()?)))
}
