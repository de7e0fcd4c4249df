//! The store's answers, fetched before evaluation begins; the few that depend on what was found, later.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::{
    model::Labels,
    promql::{QueryError, exec::context::Budget},
    storage::{GridRow, ReadSeries, Runs, SelectRequest, Selected, SeriesSamples},
};

/// The series of one selection and a way to their samples.
#[derive(Debug)]
pub struct SelectedSeries {
    /// The series, sorted; groups of them, if the store aggregated.
    pub labels: Vec<Labels>,
    /// How many of the offered operations the store has done.
    pub taken: usize,
    /// Their samples.
    samples: Samples,
}

/// What an answer has to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Operations that were offered.
    offered: usize,
    /// Places of a row.
    places: usize,
}

impl Expected {
    /// What the answer to a request has to be like.
    pub fn of(request: &SelectRequest) -> Self {
        Self { offered: request.offer.operations.len(), places: request.grid.map_or(0, |grid| grid.count()) }
    }
}

/// A float and its time.
const SAMPLE_BYTES: usize = 16;

#[derive(Debug)]
enum Samples {
    /// Read where they are evaluated.
    InStore(Arc<dyn ReadSeries>),
    /// They came in time order and were sorted by series.
    Here(Vec<SeriesSamples>),
    /// None: the store has made rows of them, empty where a series has no value.
    Rows(Vec<Mutex<Vec<f64>>>),
}

impl SelectedSeries {
    /// Takes a store's answer over; what comes in time order or as rows is received to its end, against the budget.
    ///
    /// Such samples stay in the budget until the query is done.
    pub async fn receive(
        selected: Selected,
        expected: Expected,
        budget: &Budget,
    ) -> Result<(Self, Vec<String>), QueryError> {
        let Selected { series: labels, runs, taken, warnings } = selected;
        if taken > expected.offered || (taken > 0) != matches!(runs, Runs::Rows(_)) {
            let text = format!("the store took {taken} of {} operations", expected.offered);
            return Err(QueryError::Execution(text));
        }
        budget.hold_series(&labels)?;
        let samples = match runs {
            Runs::SeriesMajor(reader) => Samples::InStore(reader),
            Runs::TimeMajor(mut runs) => {
                let mut sorted = vec![SeriesSamples::default(); labels.len()];
                while let Some(batch) = runs.recv().await {
                    for run in batch? {
                        budget.hold(samples_weight(&run.samples))?;
                        extend(place(&mut sorted, run.ordinal)?, &run.samples);
                    }
                }
                Samples::Here(sorted)
            }
            Runs::Rows(mut rows) => {
                let mut sorted: Vec<Vec<f64>> = vec![Vec::new(); labels.len()];
                while let Some(batch) = rows.recv().await {
                    for GridRow { ordinal, values } in batch? {
                        budget.hold(row_weight(values.len()))?;
                        let into = place(&mut sorted, ordinal)?;
                        if values.len() != expected.places || !into.is_empty() {
                            let text = format!("the store sent a row of {} places", values.len());
                            return Err(QueryError::Execution(text));
                        }
                        *into = values;
                    }
                }
                Samples::Rows(sorted.into_iter().map(Mutex::new).collect())
            }
        };
        Ok((Self { labels, taken, samples }, warnings))
    }

    /// Who reads the samples where the store has them, if somebody does.
    pub fn reader(&self) -> Option<Arc<dyn ReadSeries>> {
        match &self.samples {
            Samples::InStore(reader) => Some(Arc::clone(reader)),
            Samples::Here(_) | Samples::Rows(_) => None,
        }
    }

    /// The row that the store has made for series or group number `ordinal`, given away and let go of.
    pub fn take_row(&self, ordinal: usize, budget: &Budget) -> Option<Vec<f64>> {
        let Samples::Rows(rows) = &self.samples else { return None };
        let row = std::mem::take(&mut *rows.get(ordinal)?.lock());
        budget.release(row_weight(row.len()));
        (!row.is_empty()).then_some(row)
    }

    /// What reading `samples` adds to what is held: nothing if they have been here since they were received.
    pub fn weight(&self, samples: u64) -> u64 {
        match &self.samples {
            Samples::InStore(_) => samples,
            Samples::Here(_) | Samples::Rows(_) => 0,
        }
    }

    /// The samples of series number `ordinal`; `scratch` is where they are read into if need be.
    pub fn samples<'a>(
        &'a self,
        ordinal: usize,
        scratch: &'a mut SeriesSamples,
    ) -> Result<&'a SeriesSamples, QueryError> {
        match &self.samples {
            Samples::InStore(reader) => {
                scratch.clear();
                reader.read(ordinal, scratch)?;
                Ok(scratch)
            }
            Samples::Here(sorted) => Ok(&sorted[ordinal]),
            Samples::Rows(_) => Err(QueryError::Execution("the store sent no samples".to_owned())),
        }
    }
}

/// A way to ask the store from within the evaluation, which must not wait for I/O itself.
#[derive(Debug)]
pub struct LateSelects(mpsc::Sender<LateSelect>);

/// What is asked, and where the answer goes.
#[derive(Debug)]
pub struct LateSelect {
    /// The request.
    pub request: SelectRequest,
    /// Where the evaluation waits.
    pub answer: oneshot::Sender<Result<SelectedSeries, QueryError>>,
}

impl LateSelects {
    /// A way, and the end where it is answered. The evaluation asks one thing at a time.
    pub fn channel() -> (Self, mpsc::Receiver<LateSelect>) {
        let (asking, asked) = mpsc::channel(1);
        (Self(asking), asked)
    }

    /// Asks, and waits for the answer; if nobody is there to answer, the query is over.
    pub fn ask(&self, request: SelectRequest) -> Result<SelectedSeries, QueryError> {
        let canceled = || QueryError::Canceled("expression evaluation");
        let (answer, answered) = oneshot::channel();
        self.0.blocking_send(LateSelect { request, answer }).map_err(|_| canceled())?;
        answered.blocking_recv().map_err(|_| canceled())?
    }
}

/// A place without a time takes half of what a sample does.
fn row_weight(places: usize) -> u64 {
    u64::try_from(places.div_ceil(2)).unwrap_or(u64::MAX)
}

/// What samples count as while they are kept: a histogram as many floats as take its memory.
pub fn samples_weight(samples: &SeriesSamples) -> u64 {
    let histograms = samples.histograms.iter().map(|sample| sample.histogram.memory_bytes() / SAMPLE_BYTES);
    u64::try_from(samples.timestamps.len() + histograms.sum::<usize>()).unwrap_or(u64::MAX)
}

/// Where what the store sent for series number `ordinal` goes.
fn place<T>(sorted: &mut [T], ordinal: u32) -> Result<&mut T, QueryError> {
    let series = sorted.len();
    usize::try_from(ordinal).ok().and_then(|at| sorted.get_mut(at)).ok_or_else(|| {
        QueryError::Execution(format!("the store sent samples of series {ordinal} of {series}"))
    })
}

fn extend(into: &mut SeriesSamples, more: &SeriesSamples) {
    for (i, (timestamp, value)) in more.timestamps.iter().zip(&more.values).enumerate() {
        into.push(*timestamp, *value, more.start(i));
    }
    into.histograms.extend_from_slice(&more.histograms);
}
