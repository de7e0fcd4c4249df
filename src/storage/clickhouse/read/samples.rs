//! Samples, from the servers to runs.
//!
//! ```text
//! unit 1 ─ floats ────┐ merge by (bucket, series), settle, hide
//!          histograms ┘────────────▶ runs ─┐
//! unit 2 …                         ▶ runs ─┤ in the units' order ─▶ the query
//! unit 3, 4 read ahead             ▶ runs ─┘
//! ```
//!
//! All channels are bounded: a query that does not take what is read stops the reading, on the server too.
//! A query that is gone ends its statements. Rows come in the order of the key, which is time's for each
//! series; runs that would go back in time are an error, as is whatever else goes wrong on the way: an
//! answer is whole or none.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{
    Reads,
    counters::{ReadCounters, add},
    groups::{Group, Groups, Wanted},
    series::{Found, SCOPE, days, scoped},
    settle,
    units::{self, Unit},
};
use crate::{
    model::{Labels, TenantId, TimeRange, Timestamp},
    storage::{
        Result, Run, Runs, SelectRequest, Selected, SeriesSamples, StorageError,
        clickhouse::client::{Servers, Statement},
    },
};

/// Statements of a query that run at a time.
const AHEAD: usize = 4;
/// Samples that are handed on together.
const BATCH_SAMPLES: usize = 16 << 10;
/// Batches that wait to be taken.
const BATCHES: usize = 4;

type Batches = mpsc::Sender<Result<Vec<Run>>>;

impl Reads {
    pub(in crate::storage::clickhouse) async fn select(
        &self,
        tenant: &TenantId,
        request: SelectRequest,
    ) -> Result<Selected> {
        let (send, runs) = mpsc::channel(BATCHES);
        let selected =
            |series| Selected { series, runs: Runs::TimeMajor(runs), taken: 0, warnings: Vec::new() };
        let Some(range) = self.kept(tenant, request.range) else { return Ok(selected(Vec::new())) };
        let bounds = (request.max_series, request.max_label_bytes);
        let found = self.find(tenant, &request.sets(), range, bounds).await?;
        if found.series.is_empty() {
            return Ok(selected(Vec::new()));
        }
        if let Some(plan) = self.rollups.plan(tenant, &request, &found).await? {
            let (servers, counters) = (Arc::clone(&self.servers), Arc::clone(&self.counters));
            let samples = SampleReader { servers, counters };
            return Ok(self.rollups.answer(tenant, plan, found, samples));
        }
        if let Some(answer) = self.pushdown.answer(tenant, &found, &request).await? {
            return Ok(answer);
        }
        let days = if is_long(range) { self.filled(tenant, &found).await? } else { None };
        let units = units::units(&found, found.range, days);
        let labels: Vec<Labels> = found.series.iter().map(|series| series.labels.clone()).collect();
        let wanted = Wanted::new(&found.series);
        let reading = Arc::new(Reading {
            servers: Arc::clone(&self.servers),
            counters: Arc::clone(&self.counters),
            tenant: tenant.clone(),
            starts: request.start_timestamps,
            wanted,
            hidden: found.hidden,
        });
        let series = labels.len();
        let counters = Arc::clone(&self.counters);
        add(&counters.selects, 1);
        crate::task::spawn("clickhouse-select", async move {
            let work = async {
                if let Err(error) = forward(reading, units, series, &send).await {
                    // If nobody is there to hear of it, nobody waits for the rest either.
                    let _ = send.send(Err(error)).await;
                }
            };
            if while_wanted(send.clone(), work).await == Ended::GivenUp {
                add(&counters.selects_cancelled, 1);
            }
        });
        Ok(selected(labels))
    }

    /// On which days there is something of what was found.
    async fn filled(&self, tenant: &TenantId, found: &Found) -> Result<Option<(u16, u16)>> {
        let sql = format!(
            "SELECT toUInt16(min(day)), toUInt16(max(day)) FROM series WHERE {SCOPE} AND {}",
            found.condition.sql()
        );
        let statement = found.condition.bind(scoped(Statement::new(sql), tenant, found.range));
        let rows = self.servers.rows(&statement).await?.all(|row| Ok((row.u16()?, row.u16()?))).await?;
        Ok(Some(rows.first().copied().unwrap_or(days(found.range))))
    }
}

/// Reads samples of what was found.
#[derive(Clone, Debug)]
pub(in crate::storage::clickhouse) struct SampleReader {
    servers: Arc<Servers>,
    counters: Arc<ReadCounters>,
}

impl SampleReader {
    /// The samples that lie in `ranges`, which are in order and within the range in which it was found.
    pub(in crate::storage::clickhouse) fn read(
        &self,
        tenant: &TenantId,
        found: &Found,
        ranges: &[TimeRange],
    ) -> mpsc::Receiver<Result<Vec<Run>>> {
        let units: Vec<Unit> = ranges.iter().flat_map(|range| units::units(found, *range, None)).collect();
        let reading = Arc::new(Reading {
            servers: Arc::clone(&self.servers),
            counters: Arc::clone(&self.counters),
            tenant: tenant.clone(),
            starts: false,
            wanted: Wanted::new(&found.series),
            hidden: found.hidden.clone(),
        });
        let series = found.series.len();
        let (send, runs) = mpsc::channel(BATCHES);
        crate::task::spawn(
            "clickhouse-select",
            while_wanted(send.clone(), async move {
                if let Err(error) = forward(reading, units, series, &send).await {
                    // If nobody is there to hear of it, nobody waits for the rest either.
                    let _ = send.send(Err(error)).await;
                }
            }),
        );
        runs
    }
}

fn is_long(range: TimeRange) -> bool {
    range.start().plus(units::LONG) < range.end()
}

/// What the statements of a query share.
#[derive(Debug)]
struct Reading {
    servers: Arc<Servers>,
    counters: Arc<ReadCounters>,
    tenant: TenantId,
    starts: bool,
    wanted: Wanted,
    hidden: HashMap<u32, Vec<TimeRange>>,
}

/// Works until the work is done or nobody waits for it.
async fn while_wanted(send: Batches, work: impl Future<Output = ()>) -> Ended {
    tokio::select! {
        () = work => Ended::Done,
        () = send.closed() => Ended::GivenUp,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Done,
    GivenUp,
}

/// Hands on what the units read, one after another, while the next ones read ahead.
async fn forward(reading: Arc<Reading>, units: Vec<Unit>, series: usize, to: &Batches) -> Result<()> {
    let mut waiting = units.into_iter();
    let mut running = VecDeque::with_capacity(AHEAD);
    let mut latest = vec![None; series];
    loop {
        while running.len() < AHEAD
            && let Some(unit) = waiting.next()
        {
            let (send, runs) = mpsc::channel(BATCHES);
            let reading = Arc::clone(&reading);
            let work = while_wanted(send.clone(), async move {
                if let Err(error) = reading.read(&unit, &send).await {
                    // As above.
                    let _ = send.send(Err(error)).await;
                }
            });
            running.push_back((crate::task::spawn("clickhouse-read", work), runs));
        }
        let Some((task, mut runs)) = running.pop_front() else { return Ok(()) };
        while let Some(batch) = runs.recv().await {
            let batch = batch?;
            for run in &batch {
                follows(&mut latest, run)?;
            }
            if to.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        // Its channel is closed as well if it broke down; that is no end of the samples.
        task.await.map_err(|error| StorageError::Remote { detail: format!("reading samples: {error}") })?;
    }
}

/// Checks that a run is later than the runs of its series before it.
fn follows(latest: &mut [Option<i64>], run: &Run) -> Result<()> {
    let samples = &run.samples;
    let ends = |floats: Option<&i64>, histograms: Option<i64>, of: fn(i64, i64) -> i64| match (
        floats.copied(),
        histograms,
    ) {
        (Some(a), Some(b)) => Some(of(a, b)),
        (a, b) => a.or(b),
    };
    let first = ends(samples.timestamps.first(), samples.histograms.first().map(|h| h.timestamp), i64::min);
    let last = ends(samples.timestamps.last(), samples.histograms.last().map(|h| h.timestamp), i64::max);
    let place = usize::try_from(run.ordinal).ok().and_then(|ordinal| latest.get_mut(ordinal));
    match place {
        Some(before) if before.is_none() || *before < first => {
            *before = last.or(*before);
            Ok(())
        }
        _ => Err(StorageError::Remote {
            detail: "the samples of a series did not come in time order".to_owned(),
        }),
    }
}

impl Reading {
    /// Reads what one unit says, floats and histograms side by side.
    async fn read(&self, unit: &Unit, to: &Batches) -> Result<()> {
        let mut floats =
            Groups::floats(&self.servers, &self.counters, unit, &self.tenant, self.starts).await?;
        let mut histograms = Groups::histograms(&self.servers, &self.counters, unit, &self.tenant).await?;
        let (mut float, mut histogram) =
            tokio::try_join!(floats.next(&self.wanted), histograms.next(&self.wanted))?;
        let (mut batch, mut samples) = (Vec::new(), 0);
        loop {
            let group = match (float.take(), histogram.take()) {
                (None, None) => break,
                (Some(a), Some(b)) if a.key == b.key => {
                    (float, histogram) =
                        tokio::try_join!(floats.next(&self.wanted), histograms.next(&self.wanted))?;
                    a.joined(b)
                }
                (Some(a), b) if b.as_ref().is_none_or(|b| a.key < b.key) => {
                    histogram = b;
                    float = floats.next(&self.wanted).await?;
                    a
                }
                (a, Some(b)) => {
                    float = a;
                    histogram = histograms.next(&self.wanted).await?;
                    b
                }
                (Some(_), None) => unreachable!("nothing is after the last group"),
            };
            let Some(run) = self.run(group) else { continue };
            samples += run.samples.len();
            batch.push(run);
            if samples >= BATCH_SAMPLES {
                samples = 0;
                if to.send(Ok(std::mem::take(&mut batch))).await.is_err() {
                    return Ok(());
                }
            }
        }
        if !batch.is_empty() {
            // If the query is gone it needs no more.
            let _ = to.send(Ok(batch)).await;
        }
        Ok(())
    }

    /// The samples of a group that count and are not hidden.
    fn run(&self, mut group: Group) -> Option<Run> {
        settle::settle_floats(&mut group.samples);
        settle::settle_histograms(&mut group.samples.histograms);
        settle::settle_kinds(&mut group.samples);
        if let Some(ranges) = self.hidden.get(&group.ordinal) {
            hide(&mut group.samples, ranges);
        }
        (!group.samples.is_empty()).then_some(Run { ordinal: group.ordinal, samples: group.samples })
    }
}

/// Takes out the samples that lie in any of the ranges.
fn hide(samples: &mut SeriesSamples, ranges: &[TimeRange]) {
    let hidden = |at: i64| ranges.iter().any(|range| range.contains(Timestamp(at)));
    samples.histograms.retain(|histogram| !hidden(histogram.timestamp));
    if samples.timestamps.iter().any(|at| hidden(*at)) {
        let all = std::mem::take(samples);
        for (i, at) in all.timestamps.iter().enumerate().filter(|(_, at)| !hidden(**at)) {
            samples.push(*at, all.values[i], all.start(i));
        }
        samples.histograms = all.histograms;
    }
}
