//! From the servers' rows to rows of the answer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{Plan, PushdownCounters, sql};
use crate::{
    model::{Labels, TenantId},
    storage::{
        GridRow, Result, Runs, Selected, StorageError,
        clickhouse::{
            client::{Class, Failure, Rows, Servers, Statement},
            read::{
                blocks::numbers,
                groups::Wanted,
                series::{Found, Series},
                units::Unit,
            },
            rowbinary::{Incomplete, Reader},
        },
    },
};

/// Places that are handed on together.
const BATCH_PLACES: usize = 64 << 10;
/// Batches that wait to be taken.
const BATCHES: usize = 4;

/// Statements of a query that run at a time.
const AT_ONCE: usize = 4;

/// What answering an offer needs.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) servers: Arc<Servers>,
    pub(super) tenant: TenantId,
    pub(super) wanted: Wanted,
    pub(super) counters: Arc<PushdownCounters>,
    pub(super) plan: Plan,
    pub(super) taken: usize,
}

/// The groups that series fall into, sorted by their labels.
#[derive(Debug)]
pub(super) struct Groups(BTreeMap<Labels, Vec<String>>);

impl Groups {
    /// Those of series, by labels.
    pub(super) fn of(series: &[Series], by: &[String]) -> Self {
        let mut groups = BTreeMap::new();
        for Series { labels, .. } in series {
            let key = labels.only(|name| by.iter().any(|label| label == name));
            groups.entry(key).or_insert_with_key(|labels| {
                by.iter().map(|name| labels.get(name).unwrap_or_default().to_owned()).collect()
            });
        }
        Self(groups)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn labels(&self) -> Vec<Labels> {
        self.0.keys().cloned().collect()
    }
}

type PerSeries = ((u64, u64), Vec<f64>);

impl Answering {
    /// A row for each series, as they come.
    pub(super) async fn series(self, units: Vec<Unit>, labels: Vec<Labels>) -> Result<Option<Selected>> {
        // All of them begin before the first is read to its end.
        if units.len() > AT_ONCE {
            return Ok(None);
        }
        let places = self.plan.grid.count();
        let mut opened = Vec::with_capacity(units.len());
        for unit in &units {
            let Some(statement) = sql::series(&self.plan, unit, &self.tenant) else { return Ok(None) };
            let first = async {
                let mut rows = self.servers.rows(&statement).await?;
                let row = rows.next(per_series).await?;
                Ok((rows, row))
            };
            match self.unless_told_otherwise(unit, first).await? {
                Some((rows, row)) => opened.push((rows, row)),
                None => return Ok(None),
            }
        }
        let (send, runs) = mpsc::channel(BATCHES);
        let work = {
            let send = send.clone();
            async move {
                for (rows, first) in opened {
                    if let Err(error) = self.forward(rows, first, places, &send).await {
                        // If nobody is there to hear of it, nobody waits for the rest either.
                        let _ = send.send(Err(error)).await;
                        return;
                    }
                }
            }
        };
        crate::task::spawn("clickhouse-rows", async move {
            tokio::select! {
                () = work => {}
                () = send.closed() => {}
            }
        });
        Ok(Some(Selected { series: labels, runs: Runs::Rows(runs), taken: 1, warnings: Vec::new() }))
    }

    /// Hands on the rows of one statement.
    async fn forward(
        &self,
        mut rows: Rows,
        first: Option<PerSeries>,
        places: usize,
        to: &mpsc::Sender<Result<Vec<GridRow>>>,
    ) -> Result<()> {
        let mut row = first;
        let mut batch = Vec::new();
        while let Some((id, values)) = row {
            if values.len() != places {
                return Err(misshapen(values.len(), places));
            }
            if let Some(ordinal) = self.wanted.of(id) {
                batch.push(GridRow { ordinal, values });
            }
            if batch.len().saturating_mul(places) >= BATCH_PLACES {
                self.count(&batch);
                if to.send(Ok(std::mem::take(&mut batch))).await.is_err() {
                    return Ok(());
                }
            }
            row = rows.next(per_series).await?;
        }
        self.count(&batch);
        // Nobody waits for it if it cannot be sent.
        let _ = to.send(Ok(batch)).await;
        Ok(())
    }

    /// A row for each group, when all are there.
    pub(super) async fn groups(
        self,
        found: &Found,
        unit: &Unit,
        groups: &Groups,
        labels: Vec<Labels>,
    ) -> Result<Option<Selected>> {
        let Some(statement) = sql::groups(&self.plan, found, unit, &self.tenant) else {
            return Ok(None);
        };
        let all = async { self.servers.rows(&statement).await?.all(per_group).await };
        let Some(rows) = self.unless_told_otherwise(unit, all).await? else { return Ok(None) };
        let ordinals: HashMap<&[String], u32> = groups.0.values().map(Vec::as_slice).zip(0..).collect();
        let places = self.plan.grid.count();
        let mut batch = Vec::with_capacity(rows.len());
        for (key, odd, values) in rows {
            if odd {
                return Ok(None);
            }
            if values.len() != places {
                return Err(misshapen(values.len(), places));
            }
            // A group that nobody knows is of series that were written since.
            let Some(ordinal) = ordinals.get(key.as_slice()) else { return Ok(None) };
            batch.push(GridRow { ordinal: *ordinal, values });
        }
        self.count(&batch);
        let (send, runs) = mpsc::channel(1);
        send.try_send(Ok(batch))
            .map_err(|_| StorageError::Remote { detail: "no room for an answer".to_owned() })?;
        Ok(Some(Selected { series: labels, runs: Runs::Rows(runs), taken: self.taken, warnings: Vec::new() }))
    }

    /// What `work` gives, unless there is what rows cannot tell or it fails; both mean that samples are to be read.
    async fn unless_told_otherwise<T>(
        &self,
        unit: &Unit,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Option<T>> {
        let histogram = self.none(Some(sql::histograms(unit, &self.tenant)));
        let undecided = self.none(sql::undecided(&self.plan.first, unit, &self.tenant));
        let work = async { work.await.map_err(Some) };
        match tokio::try_join!(work, histogram, undecided) {
            Ok((done, (), ())) => Ok(Some(done)),
            Err(None) => Ok(None),
            Err(Some(failure)) => match failure.class {
                // Reading samples would fail as well.
                Class::Unreachable | Class::Overloaded | Class::Denied => Err(failure.into()),
                Class::ReadOnly | Class::Exhausted | Class::Schema | Class::Broken => {
                    PushdownCounters::add(&self.counters.fallbacks, 1);
                    tracing::warn!(event = "pushdown_failed", error = failure.message);
                    Ok(None)
                }
            },
        }
    }

    /// Fails if a statement has a row; with an error, if it fails itself.
    async fn none(&self, statement: Option<Statement>) -> Result<(), Option<Failure>> {
        let Some(statement) = statement else { return Ok(()) };
        let rows = self.servers.rows(&statement).await?.all(|row| row.u8()).await?;
        if rows.is_empty() { Ok(()) } else { Err(None) }
    }

    fn count(&self, batch: &[GridRow]) {
        PushdownCounters::add(&self.counters.rows, batch.len());
        PushdownCounters::add(&self.counters.places, batch.iter().map(|row| row.values.len()).sum());
    }
}

fn per_series(row: &mut Reader<'_>) -> Result<PerSeries, Incomplete> {
    Ok(((row.u64()?, row.u64()?), floats(row)?))
}

fn per_group(row: &mut Reader<'_>) -> Result<(Vec<String>, bool, Vec<f64>), Incomplete> {
    Ok((row.array(Reader::string)?, row.u8()? != 0, floats(row)?))
}

/// An `Array(Float64)`, in one piece.
pub(super) fn floats(row: &mut Reader<'_>) -> Result<Vec<f64>, Incomplete> {
    let bytes = row.length()?.checked_mul(8).ok_or(Incomplete)?;
    Ok(numbers(row.take(bytes)?, f64::from_le_bytes))
}

fn misshapen(got: usize, wanted: usize) -> StorageError {
    StorageError::Remote { detail: format!("a server sent a row of {got} places for a grid of {wanted}") }
}
