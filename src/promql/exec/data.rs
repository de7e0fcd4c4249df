//! The store's answers, fetched before evaluation begins; the few that depend on what was found, later.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::{
    model::Labels,
    promql::{QueryError, exec::context::Budget},
    storage::{ReadSeries, Runs, SelectRequest, Selected, SeriesSamples},
};

/// The series of one selection and a way to their samples.
#[derive(Debug)]
pub struct SelectedSeries {
    /// The series, sorted.
    pub labels: Vec<Labels>,
    /// Their samples.
    samples: Samples,
}

#[derive(Debug)]
enum Samples {
    /// Read where they are evaluated.
    InStore(Arc<dyn ReadSeries>),
    /// They came in time order and were sorted by series.
    Here(Vec<SeriesSamples>),
}

impl SelectedSeries {
    /// Takes a store's answer over; what comes in time order is received to its end, against the budget.
    ///
    /// Such samples stay in the budget until the query is done.
    pub async fn receive(selected: Selected, budget: &Budget) -> Result<(Self, Vec<String>), QueryError> {
        let samples = match selected.runs {
            Runs::SeriesMajor(reader) => Samples::InStore(reader),
            Runs::TimeMajor(mut runs) => {
                let mut sorted = vec![SeriesSamples::default(); selected.series.len()];
                while let Some(batch) = runs.recv().await {
                    for run in batch? {
                        budget.hold(u64::try_from(run.samples.len()).unwrap_or(u64::MAX))?;
                        let place = usize::try_from(run.ordinal).ok().and_then(|at| sorted.get_mut(at));
                        let Some(into) = place else {
                            let text = format!(
                                "the store sent samples of series {} of {}",
                                run.ordinal,
                                selected.series.len()
                            );
                            return Err(QueryError::Execution(text));
                        };
                        extend(into, &run.samples);
                    }
                }
                Samples::Here(sorted)
            }
        };
        Ok((Self { labels: selected.series, samples }, selected.warnings))
    }

    /// What reading `samples` adds to what is held: nothing if they have been here since they were received.
    pub fn weight(&self, samples: u64) -> u64 {
        match &self.samples {
            Samples::InStore(_) => samples,
            Samples::Here(_) => 0,
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

fn extend(into: &mut SeriesSamples, more: &SeriesSamples) {
    for (i, (timestamp, value)) in more.timestamps.iter().zip(&more.values).enumerate() {
        into.push(*timestamp, *value, more.start(i));
    }
    into.histograms.extend_from_slice(&more.histograms);
}
