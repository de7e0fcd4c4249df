//! Rows gathered by series and bucket of time, in the order of the key.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    blocks::{Block, read_block},
    counters::{ReadCounters, add},
    series::Series,
    units::Unit,
};
use crate::{
    model::TenantId,
    storage::{
        HistogramSample, Result, SeriesSamples, StorageError,
        clickhouse::{
            client::{Rows, Servers},
            histogram,
            tables::bucket,
        },
    },
};

/// What the key sorts by before time: bucket, metric, series.
pub(super) type Key = (i64, u64, u64);

/// The places of the wanted series.
#[derive(Debug)]
pub(in crate::storage::clickhouse) struct Wanted(HashMap<(u64, u64), u32, foldhash::fast::FixedState>);

/// The samples of one series in one bucket, as they came.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: Key,
    pub(super) ordinal: u32,
    pub(super) samples: SeriesSamples,
}

/// The rows of one statement, gathered.
#[derive(Debug)]
pub(super) struct Groups {
    rows: Rows,
    counters: Arc<ReadCounters>,
    kind: Kind,
    ended: bool,
    /// The one that goes on, as far as is known, and those before it.
    open: Option<Group>,
    ready: VecDeque<Group>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Floats,
    Histograms,
}

impl Wanted {
    pub(in crate::storage::clickhouse) fn new(series: &[Series]) -> Self {
        Self((0..).zip(series).map(|(ordinal, series)| ((series.mid, series.sid), ordinal)).collect())
    }

    fn get(&self, key: Key) -> Option<u32> {
        self.of((key.1, key.2))
    }

    /// The place of a series, by metric and series.
    pub(in crate::storage::clickhouse) fn of(&self, id: (u64, u64)) -> Option<u32> {
        self.0.get(&id).copied()
    }
}

impl Group {
    /// This one's floats and the histograms of another.
    pub(super) fn joined(mut self, other: Self) -> Self {
        self.samples.histograms = other.samples.histograms;
        self
    }
}

impl Groups {
    /// Asks for a unit's floats.
    pub(super) async fn floats(
        servers: &Servers,
        counters: &Arc<ReadCounters>,
        unit: &Unit,
        tenant: &TenantId,
        starts: bool,
    ) -> Result<Self> {
        let columns = if starts { "mid, sid, ts, value, start_ts" } else { "mid, sid, ts, value" };
        let statement = unit.statement(columns, "samples", tenant, " FORMAT Native");
        Ok(Self::of(servers.rows(&statement).await?, counters, Kind::Floats))
    }

    /// Asks for a unit's histograms.
    pub(super) async fn histograms(
        servers: &Servers,
        counters: &Arc<ReadCounters>,
        unit: &Unit,
        tenant: &TenantId,
    ) -> Result<Self> {
        let columns = format!("mid, sid, ts, start_ts, {}", histogram::COLUMNS);
        let statement = unit.statement(&columns, "histograms", tenant, "");
        Ok(Self::of(servers.rows(&statement).await?, counters, Kind::Histograms))
    }

    fn of(rows: Rows, counters: &Arc<ReadCounters>, kind: Kind) -> Self {
        add(&counters.sample_statements, 1);
        Self { rows, counters: Arc::clone(counters), kind, ended: false, open: None, ready: VecDeque::new() }
    }

    /// The next group of a wanted series, whole.
    pub(super) async fn next(&mut self, wanted: &Wanted) -> Result<Option<Group>> {
        while self.ready.is_empty() && !self.ended {
            match self.kind {
                Kind::Floats => match self.rows.next(read_block).await? {
                    Some(Ok(block)) => {
                        add(&self.counters.samples_read, block.timestamps.len());
                        self.take_block(&block, wanted);
                    }
                    Some(Err(detail)) => {
                        return Err(StorageError::Remote { detail: format!("reading samples: {detail}") });
                    }
                    None => self.end(),
                },
                Kind::Histograms => {
                    let row = self.rows.next(|row| {
                        let (mid, sid, timestamp, start) = (row.u64()?, row.u64()?, row.i64()?, row.i64()?);
                        Ok(((bucket(timestamp), mid, sid), timestamp, start, histogram::take(row)?))
                    });
                    match row.await? {
                        Some((key, timestamp, start, histogram)) => {
                            add(&self.counters.histograms_read, 1);
                            let histogram = Arc::new(histogram);
                            if let Some(group) = self.group(key, wanted) {
                                group.samples.histograms.push(HistogramSample {
                                    timestamp,
                                    start,
                                    histogram,
                                });
                            }
                        }
                        None => self.end(),
                    }
                }
            }
        }
        Ok(self.ready.pop_front())
    }

    fn end(&mut self) {
        self.ended = true;
        self.counters.sample_bytes_read.fetch_add(self.rows.received(), Relaxed);
        self.ready.extend(self.open.take());
    }

    /// The group that rows of a key go to, if anybody wants them.
    fn group(&mut self, key: Key, wanted: &Wanted) -> Option<&mut Group> {
        if self.open.as_ref().is_none_or(|open| open.key != key) {
            self.ready.extend(self.open.take());
            self.open =
                wanted.get(key).map(|ordinal| Group { key, ordinal, samples: SeriesSamples::default() });
        }
        self.open.as_mut()
    }

    fn take_block(&mut self, block: &Block, wanted: &Wanted) {
        let key = |i: usize| (bucket(block.timestamps[i]), block.mids[i], block.sids[i]);
        let rows = block.timestamps.len();
        let mut from = 0;
        while from < rows {
            let this = key(from);
            let to = (from + 1..rows).find(|i| key(*i) != this).unwrap_or(rows);
            if let Some(group) = self.group(this, wanted) {
                let samples = &mut group.samples;
                let before = samples.timestamps.len();
                samples.timestamps.extend_from_slice(&block.timestamps[from..to]);
                samples.values.extend_from_slice(&block.values[from..to]);
                if let Some(starts) =
                    block.starts.get(from..to).filter(|starts| starts.iter().any(|start| *start != 0))
                {
                    samples.starts.resize(before, 0);
                    samples.starts.extend_from_slice(starts);
                } else if !samples.starts.is_empty() {
                    samples.starts.resize(samples.timestamps.len(), 0);
                }
            }
            from = to;
        }
    }
}
