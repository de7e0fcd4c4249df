//! Remote read: the samples of whole series, as others keep them, for those who compute themselves.
//!
//! ```text
//! queries ─▶ admit ─▶ for each: select ─▶ read a batch of series at a time ─▶ channel
//! ```
//!
//! The series of a query come sorted by labels, each once and with all its samples: what is sent of it is a stream that
//! nobody sorts any more. So a series is held whole; of those that a store hands out in order of time, all of a query
//! are, within the samples a query may hold. The channel is short: who does not read holds up the reading, and who goes
//! away ends it at the next batch. Remote reads have places of their own, in which tenants take turns; they hold them
//! longer than queries. They are among the [`active`](super::active) queries, and what they hold is taken of the memory
//! that all queries share.

use std::sync::Arc;

use tokio::{sync::mpsc, task::JoinHandle};

use super::{Asked, Origin, QueryFailure, QueryService, Reader, Running};
use crate::{
    model::{Labels, Limit, Matcher, Millis, TimeRange, Timestamp},
    promql::{QueryError, Ticket, exec::data::samples_weight, memory::Share},
    storage::{ReadSeries, Runs, SelectRequest, Selected, SeriesSamples, StorageError},
    task,
};

/// How many remote reads run at a time.
pub(super) const MAX_READS: usize = 10;

/// Samples in a batch; the last series may bring more.
const BATCH: u64 = 16 * 1024;

/// Batches that wait for the reader.
const AHEAD: usize = 2;

/// About the memory of a sample of weight one.
const SAMPLE_BYTES: u64 = 16;

/// How many times what was read is held while an answer of samples is made of it: as it is written, which is a little
/// more, put together with what other queries have, and compressed.
const ANSWERED: u64 = 4;

/// About what a series takes besides the text of its labels.
const SERIES_BYTES: u64 = 48;

/// One question of a remote read.
#[derive(Clone, Debug)]
pub struct ReadQuery {
    /// All must match; none at all is every series.
    pub matchers: Vec<Matcher>,
    /// When; none is never, and selects nothing.
    pub range: Option<TimeRange>,
}

/// Some series of the answer to a query, sorted by labels, whole, and none without samples.
#[derive(Clone, Debug)]
pub struct ReadPart {
    /// Which query, counted from 0.
    pub query: usize,
    /// The series.
    pub series: Vec<(Labels, SeriesSamples)>,
}

/// The parts of an answer as they are read, query by query. Dropping it ends the reading.
#[derive(Debug)]
pub struct RemoteRead {
    parts: mpsc::Receiver<Result<ReadPart, QueryFailure>>,
    /// What sends them, until it is known how it ended.
    job: Option<JoinHandle<()>>,
    running: Running,
    /// What is made of the parts is counted, too, so that it is held as long.
    _memory: Arc<Share>,
}

impl RemoteRead {
    /// The next part; none after the last.
    pub async fn recv(&mut self) -> Option<Result<ReadPart, QueryFailure>> {
        let part = match (self.parts.recv().await, &mut self.job) {
            (None, Some(job)) => {
                let ended = job.await;
                self.job = None;
                // Who broke off has not sent all there is.
                ended.err().map(|error| Err(interrupted(error).into()))
            }
            (part, _) => part,
        };
        match &part {
            Some(Ok(_)) => {}
            Some(Err(failure)) => self.running.settle(Some(failure)),
            None => self.running.settle(None),
        }
        part
    }
}

impl QueryService {
    /// Starts to read what may be held all at once: within a query's time and its samples.
    pub async fn remote_read(
        self: &Arc<Self>,
        reader: &Reader,
        queries: Vec<ReadQuery>,
        origin: &Origin,
    ) -> Result<RemoteRead, QueryFailure> {
        self.start_read(reader, queries, origin, Holding::All).await
    }

    /// Starts to read what is passed on part by part, however much there is, and as fast as it is taken.
    pub async fn remote_read_stream(
        self: &Arc<Self>,
        reader: &Reader,
        queries: Vec<ReadQuery>,
        origin: &Origin,
    ) -> Result<RemoteRead, QueryFailure> {
        self.start_read(reader, queries, origin, Holding::Parts).await
    }

    async fn start_read(
        self: &Arc<Self>,
        reader: &Reader,
        queries: Vec<ReadQuery>,
        origin: &Origin,
        holding: Holding,
    ) -> Result<RemoteRead, QueryFailure> {
        for range in queries.iter().filter_map(|query| query.range) {
            // As for queries, what they look back does not count.
            let length = i128::from(range.end().0) - i128::from(range.start().0);
            let length = length.saturating_sub(i128::from(self.limits.lookback.0)).max(0);
            reader.within(Limit::QueryRange, u64::try_from(length).unwrap_or(u64::MAX))?;
        }
        let (text, asked) = told(&queries);
        let mut running = Running::begin(&self.active, &self.journal, reader, &text, asked, origin);
        if let Err(failure) = running.enter(&self.remote_reads, self.timeout(reader)).await {
            running.settle(Some(&failure));
            return Err(failure);
        }
        let ticket = Arc::clone(running.ticket());
        let memory = Arc::new(self.memory.share(&reader.view.tenants()[0], &ticket));
        let (parts, read) = mpsc::channel(AHEAD);
        let costs = Costs {
            reader: reader.clone(),
            ticket: Arc::clone(&ticket),
            memory: Arc::clone(&memory),
            most: self.limits.max_samples,
            holding,
            samples: 0,
            bytes: 0,
            labels: 0,
            sorted: 0,
        };
        let job = Job { service: Arc::clone(self), reader: reader.clone(), parts, ticket };
        let job = Some(task::spawn("remote_read", job.run(queries, costs)));
        Ok(RemoteRead { parts: read, job, running, _memory: memory })
    }
}

/// What the list of queries tells of it: its selectors, and all of the time that it is about.
fn told(queries: &[ReadQuery]) -> (String, Asked) {
    let selectors = queries.iter().map(|query| {
        let matchers: Vec<String> = query.matchers.iter().map(ToString::to_string).collect();
        format!("{{{}}}", matchers.join(","))
    });
    let selectors: Vec<String> = selectors.collect();
    let ranges = || queries.iter().filter_map(|query| query.range);
    let asked = Asked {
        start: ranges().map(|range| range.start()).min().unwrap_or(Timestamp(0)),
        end: ranges().map(|range| range.end()).max().unwrap_or(Timestamp(0)),
        step: Millis(0),
    };
    (format!("remote read of {}", selectors.join(" and ")), asked)
}

/// How much of an answer is held at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    All,
    Parts,
}

/// What a remote read has cost, and what it may.
#[derive(Debug)]
struct Costs {
    reader: Reader,
    ticket: Arc<Ticket>,
    memory: Arc<Share>,
    /// Samples that may be held, whoever asks.
    most: u64,
    holding: Holding,
    /// All that was read.
    samples: u64,
    bytes: u64,
    /// Bytes of the series of the query that is answered.
    labels: u64,
    /// Samples of it that are held until the last has come.
    sorted: u64,
}

impl Costs {
    /// Begins a query, of which these are the series.
    fn begin(&mut self, series: &[Labels]) -> Result<(), QueryFailure> {
        let text: u64 = series.iter().map(|labels| labels.as_canonical().len() as u64).sum();
        let count = series.len() as u64;
        self.ticket.selected(count);
        self.bytes = self.bytes.saturating_add(text);
        (self.labels, self.sorted) = (text.saturating_add(count.saturating_mul(SERIES_BYTES)), 0);
        self.reader.within(Limit::QueryBytes, self.bytes)?;
        self.fit(0)
    }

    /// Counts samples that were read, of which the newest `passing` pass by.
    fn read(&mut self, samples: u64, passing: u64) -> Result<(), QueryFailure> {
        self.ticket.check("remote read")?;
        self.ticket.read(samples);
        self.samples = self.samples.saturating_add(samples);
        self.bytes = self.bytes.saturating_add(samples.saturating_mul(SAMPLE_BYTES));
        self.reader.within(Limit::QuerySamples, self.samples)?;
        self.reader.within(Limit::QueryBytes, self.bytes)?;
        if self.holding == Holding::All && self.samples > self.most || self.sorted > self.most {
            return Err(QueryFailure::Request(format!("exceeded sample limit ({})", self.most)));
        }
        self.fit(passing)
    }

    /// The same of samples that are held until the last has come, however they are passed on.
    fn sort(&mut self, samples: u64) -> Result<(), QueryFailure> {
        self.sorted = self.sorted.saturating_add(samples);
        self.read(samples, 0)
    }

    /// Takes of the memory that queries share what is held now.
    fn fit(&self, passing: u64) -> Result<(), QueryFailure> {
        // Those that pass wait in the channel, too, and are written into frames or an answer.
        let copies = AHEAD as u64 + 2;
        let samples = self.sorted.saturating_add(passing.saturating_mul(copies));
        let answered = match self.holding {
            Holding::All => self.bytes.saturating_mul(ANSWERED),
            Holding::Parts => 0,
        };
        let bytes = self.labels.saturating_add(samples.saturating_mul(SAMPLE_BYTES)).saturating_add(answered);
        self.memory.shrink(bytes);
        Ok(self.memory.fit(bytes)?)
    }
}

/// A remote read that runs.
#[derive(Debug)]
struct Job {
    service: Arc<QueryService>,
    reader: Reader,
    parts: mpsc::Sender<Result<ReadPart, QueryFailure>>,
    ticket: Arc<Ticket>,
}

/// Why a read ends early.
enum End {
    Gone,
    Failed(QueryFailure),
}

impl<E: Into<QueryFailure>> From<E> for End {
    fn from(failure: E) -> Self {
        Self::Failed(failure.into())
    }
}

impl Job {
    async fn run(self, queries: Vec<ReadQuery>, costs: Costs) {
        let parts = self.parts.clone();
        let (holding, most) = (costs.holding, self.service.timeout(&self.reader));
        let reading = async {
            match holding {
                Holding::Parts => self.read(queries, costs).await,
                Holding::All => tokio::time::timeout(most, self.read(queries, costs))
                    .await
                    .unwrap_or_else(|_| Err(QueryError::Timeout("remote read").into())),
            }
        };
        let ended = tokio::select! {
            biased;
            () = parts.closed() => Err(End::Gone),
            () = self.ticket.canceled() => Err(QueryError::Canceled("remote read").into()),
            ended = reading => ended,
        };
        if let Err(End::Failed(failure)) = ended {
            // Had the reader left by now, that would be the end, too.
            let _ = parts.send(Err(failure)).await;
        }
    }

    async fn read(&self, queries: Vec<ReadQuery>, mut costs: Costs) -> Result<(), End> {
        for (number, ReadQuery { matchers, range }) in queries.into_iter().enumerate() {
            let Some(range) = range else { continue };
            let request = self.reader.bounded(SelectRequest {
                // Nobody is sent them in chunks.
                start_timestamps: costs.holding == Holding::All,
                ..SelectRequest::new(matchers, range)
            });
            let select = self.reader.view.select(&*self.service.storage, request);
            let selected = self.service.within_timeout(&self.reader, select).await;
            let Selected { series, runs, warnings, taken: _ } =
                selected.map_err(|failure| self.reader.named(failure))?;
            for warning in warnings {
                tracing::warn!(event = "remote_read_incomplete", warning);
            }
            costs.begin(&series)?;
            costs = match runs {
                // No operation was offered.
                Runs::Rows(_) => costs,
                Runs::SeriesMajor(reader) => {
                    let read = Arc::clone(&reader);
                    let costs = self.read_series(number, Arc::new(series), reader, costs).await?;
                    for warning in read.warnings() {
                        tracing::warn!(event = "remote_read_incomplete", warning);
                    }
                    costs
                }
                Runs::TimeMajor(runs) => self.sort_runs(number, series, runs, costs).await?,
            };
        }
        Ok(())
    }

    /// Reads series after series, off the I/O threads.
    async fn read_series(
        &self,
        query: usize,
        series: Arc<Vec<Labels>>,
        reader: Arc<dyn ReadSeries>,
        mut costs: Costs,
    ) -> Result<Costs, End> {
        let mut next = 0;
        while next < series.len() {
            let (all, reader) = (Arc::clone(&series), Arc::clone(&reader));
            let work = move || -> Result<_, QueryFailure> {
                let (mut batch, mut held) = (Vec::new(), 0);
                while held < BATCH && next < all.len() {
                    let mut samples = SeriesSamples::default();
                    reader.read(next, &mut samples)?;
                    let weight = samples_weight(&samples);
                    held += weight;
                    costs.read(weight, held)?;
                    if !samples.is_empty() {
                        batch.push((all[next].clone(), samples));
                    }
                    next += 1;
                }
                Ok((batch, next, costs))
            };
            let work = tokio::task::spawn_blocking(work).await.map_err(interrupted)?;
            let (batch, reached, spent) = work?;
            (next, costs) = (reached, spent);
            self.send(query, batch).await?;
        }
        Ok(costs)
    }

    /// Receives what comes in order of time to its end, and passes it on by series.
    async fn sort_runs(
        &self,
        query: usize,
        series: Vec<Labels>,
        mut runs: mpsc::Receiver<Result<Vec<crate::storage::Run>, StorageError>>,
        mut costs: Costs,
    ) -> Result<Costs, End> {
        let mut sorted = vec![SeriesSamples::default(); series.len()];
        while let Some(batch) = runs.recv().await {
            for run in batch? {
                costs.sort(samples_weight(&run.samples))?;
                let into = usize::try_from(run.ordinal).ok().and_then(|at| sorted.get_mut(at));
                let into = into.ok_or_else(|| StorageError::Unsupported("a run of no series".to_owned()))?;
                into.append(run.samples);
            }
        }
        let (mut batch, mut held) = (Vec::new(), 0);
        for (labels, samples) in series.into_iter().zip(sorted) {
            if samples.is_empty() {
                continue;
            }
            held += samples.len() as u64;
            batch.push((labels, samples));
            if held >= BATCH {
                self.send(query, std::mem::take(&mut batch)).await?;
                held = 0;
            }
        }
        self.send(query, batch).await?;
        Ok(costs)
    }

    async fn send(&self, query: usize, series: Vec<(Labels, SeriesSamples)>) -> Result<(), End> {
        if series.is_empty() {
            return Ok(());
        }
        self.parts.send(Ok(ReadPart { query, series })).await.map_err(|_| End::Gone)
    }
}

fn interrupted(error: tokio::task::JoinError) -> StorageError {
    StorageError::Unavailable { detail: format!("reading was interrupted: {error}"), retry_after: None }
}

#[cfg(test)]
mod tests;
