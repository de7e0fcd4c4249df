//! What the servers compute of an offer, so that rows of a grid come back instead of samples.
//!
//! The servers have PromQL's functions as aggregates: `timeSeries…ToGrid(start, end, step, window)(ts, value)`
//! gives a series' values over a grid, `…ForEach` makes one of many. One statement does both ([`sql`]),
//! its rows are decoded as they come ([`decode`]), and which functions may be used at all is found out by
//! trying them on each version of a server ([`probe`]).
//!
//! # What is exact
//!
//! Measured on 26.9 over random series (counters with resets, gauges, gaps, jitter, NaN, infinities, the
//! ends of the floats; windows longer and shorter than steps; parts merged in any order):
//!
//! | | to the bit | not |
//! |---|---|---|
//! | of samples | newest, `last`, `min`, `max`, `count`, `present`, `changes`, `resets`, `idelta` | `rate`, `increase`, `delta`, `irate`, `avg`, `sum`, `deriv` |
//! | of series | `count`, `group`, `min`, `max` | `sum`, `avg` |
//!
//! Of the right column, `rate`, `increase`, `delta`, `irate`, `sum` and `avg` are off by a few units in the last place
//! (at most 6e-16 of the value for one series; sums of many series lose as a plain sum does), and `deriv`
//! by the digits that its differences cancel (3e-6 seen). Where infinities or values near the end of
//! the floats are added they give NaN or an infinity where we give the other or a number. `auto` uses the left
//! column only, where it pays, `exact` always; `force` uses both. Which values are there never differs.
//!
//! Of two samples at one time the servers take the greatest, and numbers before NaN, as [`settle`](super::read::settle)
//! does. Only which of two NaN (one may be a stale marker), or of two zeros of different sign, is left to chance there;
//! so where that can be told from the answer, such samples are looked for.
//!
//! # When nothing is taken
//!
//! If the offer's rows would be too many; if something of the series is deleted, or a histogram among them, or
//! samples between which chance would decide; if there are more metrics than a few statements can name;
//! if times are beyond what the servers' times can say; in `auto`, if there is little to read; if a statement
//! fails before its first row, which is counted, and the samples are read instead.

mod counters;
mod decode;
pub mod probe;
mod sql;

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    client::Servers,
    config::{ClickHouseConfig, Pushdown as Mode},
    read::{
        groups::Wanted,
        series::Found,
        units::{Unit, units},
    },
};
use crate::{
    clock::Clock,
    model::{Labels, TenantId},
    storage::{Combine, Grid, Operation, Result, SelectRequest, Selected, WindowFunction},
};
pub use counters::PushdownCounters;
use probe::{Exactness, Proven};

/// Fewer samples than this are read: choosing would cost more.
const FEW_SAMPLES: u64 = 200_000;
/// How far samples are apart when nothing is known, in milliseconds.
const USUAL_INTERVAL_MS: i64 = 15_000;
/// The servers' times end in 2299, and begin in 1900; these are well within.
const TIMES: std::ops::RangeInclusive<i64> = -2_000_000_000_000..=9_000_000_000_000;

/// Decides what the servers compute, and has it computed.
#[derive(Debug)]
pub(super) struct Pushdown {
    servers: Arc<Servers>,
    mode: Mode,
    clock: Arc<dyn Clock>,
    proven: Mutex<Option<Arc<Proven>>>,
    probing: tokio::sync::Mutex<()>,
    counters: Arc<PushdownCounters>,
}

/// What of an offer is taken.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What is made of samples.
    pub(super) first: Operation,
    /// How rows are joined, and by which labels.
    pub(super) combine: Option<(Combine, Vec<String>)>,
    /// For which instants.
    pub(super) grid: Grid,
    /// How the servers are told that we want it.
    pub(super) setting: &'static str,
}

impl Plan {
    /// How many operations these are.
    fn taken(&self) -> usize {
        1 + usize::from(self.combine.is_some())
    }
}

impl Pushdown {
    pub(super) fn new(servers: Arc<Servers>, config: &ClickHouseConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            servers,
            mode: config.pushdown,
            clock,
            proven: Mutex::new(None),
            probing: tokio::sync::Mutex::new(()),
            counters: Arc::default(),
        }
    }

    /// What it counts.
    pub(super) fn counters(&self) -> &Arc<PushdownCounters> {
        &self.counters
    }

    /// Which functions the servers have shown to know, if they were asked yet.
    pub(super) fn proven(&self) -> Option<Arc<Proven>> {
        self.proven.lock().clone()
    }

    /// How it stands, in a line: answers are the same whatever it is.
    pub(super) fn standing(&self) -> String {
        match (self.mode, self.proven()) {
            (Mode::Off, _) => "off".to_owned(),
            (_, None) => "the servers were not asked yet what they know".to_owned(),
            (_, Some(proven)) if proven.version.is_empty() => "the servers could not be asked".to_owned(),
            (_, Some(proven)) => {
                let names = |exactness| match proven.names(exactness) {
                    names if names.is_empty() => "nothing".to_owned(),
                    names => names.join(", "),
                };
                let (exact, close) = (names(Exactness::Bits), names(Exactness::Close));
                format!("{} gives to the bit {exact}; nearly {close}", proven.version)
            }
        }
    }

    /// The answer to a request as rows; none if the samples are to be read.
    pub(super) async fn answer(
        &self,
        tenant: &TenantId,
        found: &Found,
        request: &SelectRequest,
    ) -> Result<Option<Selected>> {
        if self.mode == Mode::Off || request.offer.is_empty() || found.series.is_empty() {
            return Ok(None);
        }
        let Some(plan) = self.plan(found, request).await else {
            PushdownCounters::add(&self.counters.declined, 1);
            return Ok(None);
        };
        // A range that is long is one statement too: the servers hold little of what they have seen.
        let units = units(found, found.range, None);
        let (labels, groups) = match &plan.combine {
            None => (found.series.iter().map(|series| series.labels.clone()).collect(), None),
            Some((_, by)) => {
                let groups = decode::Groups::of(&found.series, by);
                (groups.labels(), Some(groups))
            }
        };
        let answering = decode::Answering {
            servers: Arc::clone(&self.servers),
            tenant: tenant.clone(),
            wanted: Wanted::new(&found.series),
            counters: Arc::clone(&self.counters),
            taken: plan.taken(),
            plan,
        };
        let answer: Option<Selected> = match groups {
            None => answering.series(units, labels).await?,
            Some(groups) => match <[Unit; 1]>::try_from(units) {
                Ok([unit]) => answering.groups(found, &unit, &groups, labels).await?,
                Err(_) => None,
            },
        };
        let counted = if answer.is_some() { &self.counters.taken } else { &self.counters.declined };
        PushdownCounters::add(counted, 1);
        Ok(answer)
    }

    /// What of the offer is to be taken, if anything.
    async fn plan(&self, found: &Found, request: &SelectRequest) -> Option<Plan> {
        let grid = request.grid?;
        let first = request.offer.operations.first()?;
        let back = match first {
            Operation::Newest { lookback } => lookback.0,
            Operation::Window { range, .. } => range.0,
            Operation::Aggregate { .. } => return None,
        };
        let within = [grid.start.0, grid.end.0, grid.start.0.saturating_sub(back)];
        if request.start_timestamps
            || !found.hidden.is_empty()
            || !within.iter().all(|at| TIMES.contains(at))
            || (self.mode == Mode::Auto && expected(found) < FEW_SAMPLES)
        {
            return None;
        }
        let proven = self.ensure_proven().await?;
        let first_fits = self.allows(proven.of(first)?);
        let places = |rows: usize| u64::try_from(rows.saturating_mul(grid.count())).unwrap_or(u64::MAX);
        let fit = |rows: usize| places(rows) <= request.offer.max_places;
        let mut plan = Plan { first: first.clone(), combine: None, grid, setting: proven.setting };
        if let Some(Operation::Aggregate { combine, by }) = request.offer.operations.get(1)
            && first_fits
            && self.allows(exactness_of(*combine))
            && can_be_grouped(found)
            && fit(decode::Groups::of(&found.series, by).len())
        {
            plan.combine = Some((*combine, by.clone()));
            return Some(plan);
        }
        let pays =
            self.mode == Mode::Force || places(found.series.len()).saturating_mul(2) <= expected(found);
        (first_fits && pays && fit(found.series.len())).then_some(plan)
    }

    fn allows(&self, exactness: Exactness) -> bool {
        match exactness {
            Exactness::Bits => true,
            Exactness::Close => self.mode == Mode::Force,
        }
    }

    /// What the servers know, asked of them if it was not asked lately.
    async fn ensure_proven(&self) -> Option<Arc<Proven>> {
        let fresh = || self.proven().filter(|proven| proven.is_fresh(self.clock.elapsed()));
        if let Some(proven) = fresh() {
            return Some(proven);
        }
        let _one_at_a_time = self.probing.lock().await;
        if let Some(proven) = fresh() {
            return Some(proven);
        }
        match probe::probe(&self.servers, self.clock.elapsed()).await {
            Ok(proven) => {
                let proven = Arc::new(proven);
                let before = self.proven.lock().replace(Arc::clone(&proven));
                if before.is_none_or(|before| before.version != proven.version) {
                    tracing::info!(
                        event = "pushdown_probed",
                        version = proven.version,
                        exact = proven.names(Exactness::Bits).join(","),
                        close = proven.names(Exactness::Close).join(","),
                    );
                }
                Some(proven)
            }
            Err(failure) => {
                tracing::warn!(event = "pushdown_probe_failed", error = failure.message);
                let nothing = Arc::new(Proven::nothing(self.clock.elapsed()));
                *self.proven.lock() = Some(Arc::clone(&nothing));
                Some(nothing)
            }
        }
    }
}

/// How many samples there may be, going by how often samples usually come.
fn expected(found: &Found) -> u64 {
    let each = found.range.end().0.saturating_sub(found.range.start().0) / USUAL_INTERVAL_MS + 1;
    let series = u64::try_from(found.series.len()).unwrap_or(u64::MAX);
    u64::try_from(each).unwrap_or(0).saturating_mul(series)
}

/// Whether the statement sees exactly the series that were found, and their names do not matter.
fn can_be_grouped(found: &Found) -> bool {
    let described = |labels: &Labels| labels.get("__type__").is_some() || labels.get("__unit__").is_some();
    let whole = units(found, found.range, None).iter().all(|unit| unit.is_exact(found.left_out));
    whole && !found.series.iter().any(|series| described(&series.labels))
}

fn exactness_of(combine: Combine) -> Exactness {
    match combine {
        Combine::Count | Combine::Group | Combine::Min | Combine::Max => Exactness::Bits,
        Combine::Sum | Combine::Avg => Exactness::Close,
    }
}

/// The servers' name of a function.
fn function_of(operation: &Operation) -> Option<&'static str> {
    Some(match operation {
        Operation::Newest { .. } => "timeSeriesLastToGrid",
        Operation::Window { function, .. } => match function {
            WindowFunction::Rate => "timeSeriesRateToGrid",
            WindowFunction::Increase => "timeSeriesIncreaseToGrid",
            WindowFunction::Delta => "timeSeriesDeltaToGrid",
            WindowFunction::Irate => "timeSeriesInstantRateToGrid",
            WindowFunction::Idelta => "timeSeriesInstantDeltaToGrid",
            WindowFunction::Deriv => "timeSeriesDerivToGrid",
            WindowFunction::Changes => "timeSeriesChangesToGrid",
            WindowFunction::Resets => "timeSeriesResetsToGrid",
            WindowFunction::Avg => "timeSeriesAvgToGrid",
            WindowFunction::Sum => "timeSeriesSumToGrid",
            WindowFunction::Min => "timeSeriesMinToGrid",
            WindowFunction::Max => "timeSeriesMaxToGrid",
            WindowFunction::Count | WindowFunction::Present => "timeSeriesCountToGrid",
            WindowFunction::Last => "timeSeriesLastToGrid",
        },
        Operation::Aggregate { .. } => return None,
    })
}
