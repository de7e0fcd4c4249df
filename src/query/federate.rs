//! The newest sample of each series, for those who federate.

use std::{collections::HashSet, sync::Arc};

use foldhash::fast::RandomState;

use super::{Asked, Origin, QueryFailure, QueryService, Reader, Running, selectors::require_any_selectors};
use crate::{
    model::{Histogram, Labels, Limit, Matcher, Millis, TimeRange, Timestamp, is_stale},
    promql::{QueryError, Ticket, memory::Share},
    storage::{Runs, SelectRequest, Selected, SeriesSamples, StorageError},
};

/// About what a series takes besides the text of its labels and its histogram, which are here and in the answer.
const SERIES_BYTES: u64 = 160;

/// A series and its newest sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Newest {
    /// The series.
    pub labels: Labels,
    /// When the sample is, in milliseconds.
    pub timestamp: i64,
    /// The sample.
    pub value: NewestValue,
}

/// A sample as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum NewestValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

/// What is federated; over when this is dropped.
#[derive(Debug)]
pub struct Federated {
    /// Sorted by metric, then by labels.
    pub newest: Vec<Newest>,
    _running: Running,
    _memory: Arc<Share>,
}

impl QueryService {
    /// The newest samples, not older than the lookback, of the series that match.
    ///
    /// Series that are gone have none.
    pub async fn federate(
        &self,
        reader: &Reader,
        selectors: &[String],
        origin: &Origin,
    ) -> Result<Federated, QueryFailure> {
        let sets = require_any_selectors(selectors, self.limits.max_query_bytes)?;
        let (now, lookback) = (self.clock.now(), self.limits.lookback);
        let range = TimeRange::new(now.minus(lookback), now)
            .ok_or_else(|| QueryFailure::Request("the lookback is less than nothing".to_owned()))?;
        let (text, asked) = told(selectors, now);
        let mut running = Running::begin(&self.active, &self.journal, reader, &text, asked, origin);
        let (most, ticket) = (self.timeout(reader), Arc::clone(running.ticket()));
        let memory = Arc::new(self.memory.share(&reader.view.tenants()[0], &ticket));
        let gathered = Gathered {
            several: sets.len() > 1,
            reader: reader.clone(),
            ticket: Arc::clone(&ticket),
            memory: Arc::clone(&memory),
            seen: HashSet::default(),
            newest: Vec::new(),
            read: 0,
            bytes: 0,
        };
        let federate = async {
            running.enter(&self.admission, most).await?;
            self.newest_of_sets(reader, sets, range, gathered).await
        };
        let found = tokio::select! {
            found = tokio::time::timeout(most, federate) => {
                found.unwrap_or_else(|_| Err(QueryError::Timeout("federation").into()))
            }
            () = ticket.canceled() => Err(QueryError::Canceled("federation").into()),
        };
        running.settle(found.as_ref().err());
        Ok(Federated { newest: found?, _running: running, _memory: memory })
    }

    async fn newest_of_sets(
        &self,
        reader: &Reader,
        sets: Vec<Vec<Matcher>>,
        range: TimeRange,
        mut gathered: Gathered,
    ) -> Result<Vec<Newest>, QueryFailure> {
        let mut selected_series = 0;
        for set in sets {
            let request = reader.bounded(SelectRequest {
                lookback: self.limits.lookback,
                start_timestamps: false,
                ..SelectRequest::new(set, range)
            });
            let selected = reader.view.select(&*self.storage, request).await;
            let Selected { series, runs, warnings, taken: _ } =
                selected.map_err(|failure| reader.named(failure.into()))?;
            for warning in warnings {
                tracing::warn!(event = "federation_incomplete", warning);
            }
            selected_series += series.len() as u64;
            gathered.ticket.selected(series.len() as u64);
            reader.within(Limit::QuerySeries, selected_series)?;
            gathered = match runs {
                // No operation was offered.
                Runs::Rows(_) => gathered,
                Runs::SeriesMajor(read) => {
                    let mut samples = SeriesSamples::default();
                    let reading = Arc::clone(&read);
                    let newest = move |ordinal| {
                        samples.clear();
                        read.read(ordinal, &mut samples)?;
                        Ok(newest_of(&samples))
                    };
                    let gathered = off_the_io_threads(move || gathered.gather(series, newest)).await?;
                    for warning in reading.warnings() {
                        tracing::warn!(event = "federation_incomplete", warning);
                    }
                    gathered
                }
                Runs::TimeMajor(mut runs) => {
                    let mut last: Vec<Option<(i64, NewestValue)>> = vec![None; series.len()];
                    while let Some(batch) = runs.recv().await {
                        for run in batch? {
                            let at = usize::try_from(run.ordinal).unwrap_or(usize::MAX);
                            if let (Some(last), Some(found)) = (last.get_mut(at), newest_of(&run.samples))
                                && last.as_ref().is_none_or(|(before, _)| *before < found.0)
                            {
                                *last = Some(found);
                            }
                        }
                    }
                    let newest = move |ordinal: usize| Ok(last.get_mut(ordinal).and_then(Option::take));
                    off_the_io_threads(move || gathered.gather(series, newest)).await?
                }
            };
        }
        off_the_io_threads(move || Ok(gathered.sorted())).await
    }
}

/// What the list of queries tells of it.
fn told(selectors: &[String], now: Timestamp) -> (String, Asked) {
    (format!("federation of {}", selectors.join(" and ")), Asked { start: now, end: now, step: Millis(0) })
}

/// The newest samples of selectors so far.
#[derive(Debug)]
struct Gathered {
    reader: Reader,
    ticket: Arc<Ticket>,
    memory: Arc<Share>,
    /// Whether another selector may select the same again.
    several: bool,
    seen: HashSet<Labels, RandomState>,
    newest: Vec<Newest>,
    read: u64,
    bytes: u64,
}

impl Gathered {
    /// Adds those of the series that no earlier selector has selected.
    fn gather(
        mut self,
        series: Vec<Labels>,
        mut newest: impl FnMut(usize) -> Result<Option<(i64, NewestValue)>, StorageError>,
    ) -> Result<Self, QueryFailure> {
        for (ordinal, labels) in series.into_iter().enumerate() {
            self.ticket.check("federation")?;
            if self.several && !self.seen.insert(labels.clone()) {
                continue;
            }
            let Some((timestamp, value)) = newest(ordinal)? else { continue };
            self.ticket.read(1);
            self.read += 1;
            self.reader.within(Limit::QuerySamples, self.read)?;
            if value.is_stale() {
                continue;
            }
            let size = labels.as_canonical().len() + value.memory_bytes();
            self.bytes += 2 * size as u64 + SERIES_BYTES;
            self.memory.fit(self.bytes)?;
            self.newest.push(Newest { labels, timestamp, value });
        }
        Ok(self)
    }

    fn sorted(mut self) -> Vec<Newest> {
        self.newest.sort_by(|a, b| {
            let names = a.labels.metric_name().cmp(&b.labels.metric_name());
            names.then_with(|| a.labels.cmp(&b.labels))
        });
        self.newest
    }
}

impl NewestValue {
    fn is_stale(&self) -> bool {
        match self {
            Self::Float(value) => is_stale(*value),
            Self::Histogram(histogram) => histogram.is_stale(),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Float(_) => 0,
            Self::Histogram(histogram) => histogram.memory_bytes(),
        }
    }
}

async fn off_the_io_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueryFailure> + Send + 'static,
) -> Result<T, QueryFailure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StorageError::Unavailable {
        detail: format!("reading was interrupted: {error}"),
        retry_after: None,
    })?
}

fn newest_of(samples: &SeriesSamples) -> Option<(i64, NewestValue)> {
    let float = samples.timestamps.last().copied().zip(samples.values.last().copied());
    let histogram = samples.histograms.last();
    match (float, histogram) {
        (Some((at, _)), Some(histogram)) if at < histogram.timestamp => {
            Some((histogram.timestamp, NewestValue::Histogram(Arc::clone(&histogram.histogram))))
        }
        (Some((at, value)), _) => Some((at, NewestValue::Float(value))),
        (None, Some(histogram)) => {
            Some((histogram.timestamp, NewestValue::Histogram(Arc::clone(&histogram.histogram))))
        }
        (None, None) => None,
    }
}
