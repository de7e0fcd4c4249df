//! Range functions over windows.
//!
//! ```text
//!      ├─ raw ─┼──── rolled up ────┼ raw ┼── rolled up ──┼──── raw ────┤
//!   retention begins            marked or             until          the last step
//!   within a window           hidden by a tombstone
//! ```
//!
//! Where windows cannot be read, the samples are, and become windows here: all else is the same for both.
//! It is done where the steps, the range and the windows fall together, and where most of a long
//! stretch is rolled up; else nothing is taken.
//!
//! Series are read by dozens, in the order of the key, so that what is held at a time has a bound.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::mpsc;

use super::{
    Resolution, RollupCounters, Rollups,
    window::{self, Sum, Window},
};
use crate::{
    model::{Millis, TenantId, TimeRange, Timestamp},
    storage::{
        GridRow, Operation, Result, Run, Runs, SelectRequest, Selected, StorageError, WindowFunction,
        clickhouse::{
            client::Statement,
            read::{Found, SampleReader},
            rowbinary::{Incomplete, Reader},
        },
        offer::ABSENT,
    },
};

/// Less than this is not worth it.
const LEAST: Millis = Millis(6 * Millis::HOUR.0);
/// Stretches that are read as samples, at most.
const MOST_STRETCHES: usize = 16;
/// Windows that are read at a time, about.
const MOST_WINDOWS: i64 = 200_000;
/// Series that are read at a time.
const MOST_SERIES: i64 = 1_000;
/// Places of rows that are handed on together.
const BATCH_PLACES: usize = 64 << 10;
/// Batches that wait to be taken.
const BATCHES: usize = 4;

/// How a selection is read from windows.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::storage::clickhouse) struct Plan {
    function: WindowFunction,
    resolution: Resolution,
    /// The first step, the distance to the next, and how many there are.
    start: i64,
    step: i64,
    steps: usize,
    /// How far a step looks back.
    range: i64,
    /// The windows that end in `(from, to]`, all that is looked at.
    span: (i64, i64),
    /// Those of them that are read as samples, in order.
    raw: Vec<(i64, i64)>,
}

impl Rollups {
    /// How to answer a request from windows; none if that cannot be or does not pay.
    pub(in crate::storage::clickhouse) async fn plan(
        &self,
        tenant: &TenantId,
        request: &SelectRequest,
        found: &Found,
    ) -> Result<Option<Plan>> {
        if !self.config.rollups {
            return Ok(None);
        }
        let Some(mut plan) = Plan::of(request, found.series.len()) else { return Ok(None) };
        // First how things stand, then what is there: what changes in between is marked until it is there.
        let (until, marked) = tokio::try_join!(self.until(plan.resolution), self.marked(tenant, plan.span))?;
        let Some(until) = until else { return Ok(None) };
        let mut raw = marked;
        raw.push((until.min(plan.span.1), plan.span.1));
        raw.push((plan.span.0, found.range.start().0.saturating_sub(1)));
        let hidden = found.hidden.values().flatten();
        raw.extend(hidden.map(|range| (range.start().0.saturating_sub(1), range.end().0)));
        if !plan.read_raw(raw) || self.has_histograms(tenant, &plan, found).await? {
            return Ok(None);
        }
        Ok(Some(plan))
    }

    /// Starts to answer a request as planned.
    pub(in crate::storage::clickhouse) fn answer(
        self: &Arc<Self>,
        tenant: &TenantId,
        plan: Plan,
        found: Found,
        samples: SampleReader,
    ) -> Selected {
        let series = found.series.iter().map(|series| series.labels.clone()).collect();
        let (send, rows) = mpsc::channel(BATCHES);
        let (rollups, tenant) = (Arc::clone(self), tenant.clone());
        RollupCounters::add(&self.counters.reads, 1);
        crate::task::spawn("clickhouse-windows", async move {
            let to = send.clone();
            let work = async {
                if let Err(error) = rollups.read_all(&tenant, &plan, &found, &samples, &send).await {
                    // If nobody is there to hear of it, nobody waits for the rest either.
                    let _ = send.send(Err(error)).await;
                }
            };
            tokio::select! {
                () = work => {}
                () = to.closed() => {}
            }
        });
        Selected { series, runs: Runs::Rows(rows), taken: 1, warnings: Vec::new() }
    }

    async fn read_all(
        &self,
        tenant: &TenantId,
        plan: &Plan,
        found: &Found,
        samples: &SampleReader,
        to: &mpsc::Sender<Result<Vec<GridRow>>>,
    ) -> Result<()> {
        let mut order: Vec<u32> = (0..).take(found.series.len()).collect();
        let at = |ordinal: u32| usize::try_from(ordinal).expect("an index fits");
        order
            .sort_unstable_by_key(|ordinal| (found.series[at(*ordinal)].mid, found.series[at(*ordinal)].sid));
        let mut batch = Vec::new();
        for ordinals in order.chunks(plan.series_at_a_time()) {
            let some = found.only(ordinals);
            let (rolled, raw) = tokio::try_join!(
                self.read_rolled(tenant, plan, &some),
                read_raw(tenant, plan, &some, samples)
            )?;
            for ((ordinal, mut windows), raw) in ordinals.iter().zip(rolled).zip(raw) {
                if !raw.is_empty() {
                    windows.extend(raw);
                    windows.sort_unstable_by_key(|window| window.end);
                }
                if !windows.is_empty() {
                    batch.push(GridRow { ordinal: *ordinal, values: plan.row(&windows) });
                }
                if batch.len() * plan.steps >= BATCH_PLACES
                    && to.send(Ok(std::mem::take(&mut batch))).await.is_err()
                {
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

    /// The windows of series that are rolled up, in time order.
    async fn read_rolled(&self, tenant: &TenantId, plan: &Plan, found: &Found) -> Result<Vec<Vec<Window>>> {
        let places: HashMap<(u64, u64), usize> = found
            .series
            .iter()
            .enumerate()
            .map(|(place, series)| ((series.mid, series.sid), place))
            .collect();
        let columns = Columns::of(plan.function);
        let statement = plan.scoped(
            format!(
                "SELECT mid, sid, ts, cnt{} FROM {} FINAL WHERE tenant = {{tenant:String}} \
                 AND intDiv(ts, 86400000) BETWEEN {{day_from:Int64}} AND {{day_to:Int64}} \
                 AND ts > {{from:Int64}} AND ts <= {{to:Int64}} \
                 AND positiveModulo({{start:Int64}} - ts, {{step:Int64}}) < {{range:Int64}} \
                 AND mid IN {{mids:Array(UInt64)}} AND sid IN {{sids:Array(UInt64)}}",
                columns.sql(),
                plan.resolution.table()
            ),
            tenant,
            found,
        );
        let mut all = vec![Vec::new(); found.series.len()];
        let mut rows = self.servers.rows(&statement).await?;
        let mut count = 0;
        while let Some((key, window)) =
            rows.next(|row| Ok(((row.u64()?, row.u64()?), columns.window(row)?))).await?
        {
            count += 1;
            // A window that has lost its samples is there to say so.
            if window.count == 0 || plan.is_raw(window.end) {
                continue;
            }
            if let Some(place) = places.get(&key) {
                all[*place].push(window);
            }
        }
        RollupCounters::add(&self.counters.rows_read, count);
        all.iter_mut().for_each(|windows| windows.sort_unstable_by_key(|window| window.end));
        Ok(all)
    }

    /// Whether any of what was found may have a histogram in the time that is looked at.
    async fn has_histograms(&self, tenant: &TenantId, plan: &Plan, found: &Found) -> Result<bool> {
        let statement = Statement::new(
            "SELECT 1 FROM histograms WHERE tenant = {tenant:String} \
             AND intDiv(ts, 7200000) BETWEEN intDiv({from:Int64}, 7200000) AND intDiv({to:Int64}, 7200000) \
             AND ts > {from:Int64} AND ts <= {to:Int64} \
             AND ({any:UInt8} OR mid IN {mids:Array(UInt64)}) LIMIT 1",
        );
        let mut mids: Vec<u64> = found.series.iter().map(|series| series.mid).collect();
        mids.sort_unstable();
        mids.dedup();
        // Too many to be named: those of anybody count.
        let any = mids.len() > 2_000;
        let statement = statement
            .param("tenant", tenant.as_str())
            .param("from", plan.span.0)
            .param("to", plan.span.1)
            .param("any", u64::from(any))
            .param("mids", if any { Vec::new() } else { mids });
        Ok(!self.servers.rows(&statement).await?.all(|row| row.u8()).await?.is_empty())
    }
}

/// The windows of series where they have to be made of samples.
async fn read_raw(
    tenant: &TenantId,
    plan: &Plan,
    found: &Found,
    samples: &SampleReader,
) -> Result<Vec<Vec<Window>>> {
    let mut all = vec![Vec::new(); found.series.len()];
    let ranges: Vec<TimeRange> = (plan.raw.iter())
        .filter_map(|(from, to)| {
            TimeRange::new(Timestamp(from + 1), Timestamp(*to))?.intersection(found.range)
        })
        .collect();
    let mut runs = samples.read(tenant, found, &ranges);
    while let Some(batch) = runs.recv().await {
        for Run { ordinal, samples } in batch? {
            if !samples.histograms.is_empty() {
                // It came after we had looked.
                let detail = "a histogram came in while windows were read".to_owned();
                return Err(StorageError::Unavailable { detail, retry_after: None });
            }
            let windows = usize::try_from(ordinal).ok().and_then(|ordinal| all.get_mut(ordinal));
            let Some(windows) = windows else { continue };
            let floats = samples.timestamps.iter().zip(&samples.values);
            for (at, value) in floats.filter(|(_, value)| !crate::model::is_stale(**value)) {
                window::add(windows, plan.resolution.millis(), *at, *value);
            }
        }
    }
    Ok(all)
}

impl Plan {
    /// What of an offer can be answered from windows, if they are there.
    fn of(request: &SelectRequest, series: usize) -> Option<Self> {
        let (grid, first) = (request.grid?, request.offer.operations.first()?);
        let (function, range) = match first {
            Operation::Window { function, range } if window::can(*function) => (*function, range.0),
            Operation::Window { .. } | Operation::Newest { .. } | Operation::Aggregate { .. } => return None,
        };
        let steps = grid.count();
        let (start, count) = (grid.start.0, i64::try_from(steps).ok()?);
        // With one step its distance is nothing.
        let step = if count == 1 { range } else { grid.step.0 };
        let last = step.checked_mul(count - 1)?.checked_add(start)?;
        let from = start.checked_sub(range)?;
        let places = u64::try_from(series).ok()?.checked_mul(u64::try_from(steps).ok()?)?;
        let fits =
            |resolution: &Resolution| [start, step, range].iter().all(|span| span % resolution.millis() == 0);
        let resolution = Resolution::ALL.into_iter().rev().find(fits)?;
        let usual = count > 0
            && from >= 0
            && range > 0
            && step > 0
            && last - from >= LEAST.0
            && places <= request.offer.max_places
            && request.range.start().0 <= from + 1
            && last <= request.range.end().0;
        usual.then(|| Self {
            function,
            resolution,
            start,
            step,
            steps,
            range,
            span: (from, last),
            raw: Vec::new(),
        })
    }

    /// Says which windows are to be read as samples, and whether enough is left.
    fn read_raw(&mut self, ranges: Vec<(i64, i64)>) -> bool {
        let length = self.resolution.millis();
        let mut ranges: Vec<(i64, i64)> = ranges
            .into_iter()
            .map(|(from, to)| (from.max(self.span.0), to.min(self.span.1)))
            .filter(|(from, to)| from < to)
            .map(|(from, to)| (from - from.rem_euclid(length), window::end_of(to, length)))
            .collect();
        ranges.sort_unstable();
        for (from, to) in ranges {
            match self.raw.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                Some(_) | None => self.raw.push((from, to)),
            }
        }
        let all = self.span.1 - self.span.0;
        let rolled = all - self.raw.iter().map(|(from, to)| to - from).sum::<i64>();
        self.raw.len() <= MOST_STRETCHES && rolled >= LEAST.0 && rolled >= all / 2
    }

    fn is_raw(&self, end: i64) -> bool {
        let next = self.raw.partition_point(|(_, to)| *to < end);
        self.raw.get(next).is_some_and(|(from, _)| *from < end)
    }

    fn series_at_a_time(&self) -> usize {
        let looked_at = (self.span.1 - self.span.0) / self.resolution.millis();
        usize::try_from((MOST_WINDOWS / looked_at.max(1)).clamp(1, MOST_SERIES)).unwrap_or(1)
    }

    /// A series' values over the grid.
    fn row(&self, windows: &[Window]) -> Vec<f64> {
        let (mut low, mut high) = (0, 0);
        let mut at = self.start;
        let mut values = Vec::with_capacity(self.steps);
        for _ in 0..self.steps {
            let after = at - self.range;
            while windows.get(high).is_some_and(|window| window.end <= at) {
                high += 1;
            }
            while low < high && windows[low].end <= after {
                low += 1;
            }
            let within = &windows[low..high];
            values.push(window::evaluate(self.function, within, after, at).unwrap_or(ABSENT));
            at = at.saturating_add(self.step);
        }
        values
    }

    fn scoped(&self, sql: String, tenant: &TenantId, found: &Found) -> Statement {
        let mut mids: Vec<u64> = found.series.iter().map(|series| series.mid).collect();
        mids.dedup();
        Statement::new(sql)
            .param("tenant", tenant.as_str())
            .param("from", self.span.0)
            .param("to", self.span.1)
            .param("day_from", (self.span.0 + 1) / Millis::DAY.0)
            .param("day_to", self.span.1 / Millis::DAY.0)
            .param("start", self.start)
            .param("step", self.step)
            .param("range", self.range)
            .param("mids", mids)
            .param("sids", found.series.iter().map(|series| series.sid).collect::<Vec<_>>())
    }
}

/// What a function needs of a window, besides how many samples it has.
#[derive(Clone, Copy, Debug)]
enum Columns {
    Nothing,
    Sum,
    Least,
    Greatest,
    Last,
    Growth,
}

impl Columns {
    fn of(function: WindowFunction) -> Self {
        use WindowFunction as F;
        match function {
            F::Count | F::Present => Self::Nothing,
            F::Sum | F::Avg => Self::Sum,
            F::Min => Self::Least,
            F::Max => Self::Greatest,
            F::Last => Self::Last,
            F::Rate | F::Increase | F::Delta | F::Resets | F::Irate | F::Idelta | F::Deriv | F::Changes => {
                Self::Growth
            }
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Sum => ", sum",
            Self::Least => ", min",
            Self::Greatest => ", max",
            Self::Last => ", last",
            Self::Growth => ", first, last, first_ts, last_ts, resets, before_resets",
        }
    }

    /// Reads a window; what was not asked for is zero.
    fn window(self, row: &mut Reader<'_>) -> Result<Window, Incomplete> {
        let mut window = Window {
            end: row.i64()?,
            count: u64::from(row.u32()?),
            sum: Sum::default(),
            min: 0.0,
            max: 0.0,
            first: 0.0,
            last: 0.0,
            first_ts: 0,
            last_ts: 0,
            resets: 0,
            before_resets: 0.0,
        };
        match self {
            Self::Nothing => {}
            Self::Sum => window.sum = Sum::of(row.f64()?),
            Self::Least => window.min = row.f64()?,
            Self::Greatest => window.max = row.f64()?,
            Self::Last => window.last = row.f64()?,
            Self::Growth => {
                (window.first, window.last) = (row.f64()?, row.f64()?);
                (window.first_ts, window.last_ts) = (row.i64()?, row.i64()?);
                (window.resets, window.before_resets) = (u64::from(row.u32()?), row.f64()?);
            }
        }
        Ok(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Grid, Offer};

    const HOUR: i64 = Millis::HOUR.0;
    const DAY: i64 = Millis::DAY.0;

    fn request(function: WindowFunction, start: i64, end: i64, step: i64, range: i64) -> SelectRequest {
        let within = TimeRange::new(Timestamp(start - range + 1), Timestamp(end)).unwrap();
        SelectRequest {
            grid: Some(Grid { start: Timestamp(start), end: Timestamp(end), step: Millis(step) }),
            offer: Offer {
                operations: vec![Operation::Window { function, range: Millis(range) }],
                max_places: 10_000,
            },
            ..SelectRequest::new(Vec::new(), within)
        }
    }

    #[test]
    fn the_longest_windows_that_fit_are_read() {
        let of = |start, step, range| {
            Plan::of(&request(WindowFunction::Rate, start, start + 2 * DAY, step, range), 1)
                .map(|plan| plan.resolution)
        };
        assert_eq!(of(DAY, HOUR, HOUR), Some(Resolution::Hour));
        assert_eq!(of(DAY, HOUR, HOUR / 12), Some(Resolution::FiveMinutes));
        assert_eq!(of(DAY + HOUR / 12, HOUR, HOUR), Some(Resolution::FiveMinutes));
        assert_eq!(of(DAY + 1, HOUR, HOUR), None);
        assert_eq!(of(DAY, HOUR + 1, HOUR), None);
        assert_eq!(of(DAY, HOUR, HOUR / 60), None);
    }

    #[test]
    fn what_is_short_or_much_or_unknown_is_left_alone() {
        let usual = request(WindowFunction::Rate, DAY, 2 * DAY, HOUR, HOUR);
        assert!(Plan::of(&usual, 400).is_some());
        assert!(Plan::of(&usual, 401).is_none());
        assert!(Plan::of(&request(WindowFunction::Irate, DAY, 2 * DAY, HOUR, HOUR), 1).is_none());
        assert!(Plan::of(&request(WindowFunction::Rate, DAY, DAY + 4 * HOUR, HOUR, HOUR), 1).is_none());
        assert!(Plan::of(&request(WindowFunction::Rate, HOUR, 2 * DAY, HOUR, 2 * HOUR), 1).is_none());
        // One step that looks far back does pay; its distance to the next is nothing.
        assert!(Plan::of(&request(WindowFunction::Rate, DAY, DAY, 1, DAY), 1).is_some());
        let narrow = TimeRange::new(Timestamp(DAY), Timestamp(2 * DAY)).unwrap();
        assert!(Plan::of(&SelectRequest { range: narrow, ..usual }, 1).is_none());
    }

    #[test]
    fn what_cannot_be_read_is_read_as_samples_in_whole_windows() {
        let plan = Plan::of(&request(WindowFunction::Sum, DAY, 2 * DAY, HOUR, HOUR), 1).unwrap();
        let mut some = plan.clone();
        let at = DAY;
        assert!(some.read_raw(vec![
            (at + 90, at + 91),
            (2 * DAY - 1, 9 * DAY),
            (at - HOUR, at - HOUR),
            (at + 1, at + 2)
        ]));
        assert_eq!(some.raw, [(DAY, DAY + HOUR), (2 * DAY - HOUR, 2 * DAY)]);
        for (end, raw) in [(DAY, false), (DAY + HOUR, true), (DAY + 2 * HOUR, false), (2 * DAY, true)] {
            assert_eq!(some.is_raw(end), raw, "{end}");
        }
        // Too little is left, or in too many pieces.
        assert!(!plan.clone().read_raw(vec![(0, DAY + 13 * HOUR)]));
        let long = Plan::of(&request(WindowFunction::Sum, DAY, 9 * DAY, HOUR, HOUR), 1).unwrap();
        let pieces = |n: i64| (0..n).map(|i| (DAY + 3 * i * HOUR, DAY + (3 * i + 1) * HOUR)).collect();
        assert!(long.clone().read_raw(pieces(16)));
        assert!(!long.clone().read_raw(pieces(17)));
    }

    #[test]
    fn a_step_sees_the_windows_in_its_range() {
        let plan = Plan::of(&request(WindowFunction::Count, DAY, 2 * DAY, 12 * HOUR, 6 * HOUR), 1).unwrap();
        let mut windows = Vec::new();
        // One each hour, at its end, from six hours before the first step.
        (0..31).for_each(|i| window::add(&mut windows, HOUR, DAY + (i - 6) * HOUR, 1.0));
        assert_eq!(plan.row(&windows), [6.0, 6.0, 6.0]);
        assert_eq!(plan.row(&[]).iter().filter(|value| crate::model::is_stale(**value)).count(), 3);
    }
}
