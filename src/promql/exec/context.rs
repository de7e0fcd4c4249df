//! What every operator of one evaluation shares: switches, budget, cancellation, and a pool of threads.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use rayon::{iter::ParallelIterator, slice::ParallelSliceMut};

use super::rows::{Row, SeriesRow, is_absent};
use crate::{
    model::{Labels, Limit, OverLimit},
    promql::{QueryError, annotations::Annotations},
    storage::selection::label_bytes,
};

/// Series evaluated in one go by one thread.
///
/// Chunks are cut the same way whatever the number of threads and put together in their order, so that
/// sums, which depend on the order, always come out the same.
pub const CHUNK: usize = 256;

/// The part of the query's options that evaluation looks at.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Names are dropped when the query is done, not where they lose their meaning.
    pub delayed_names: bool,
    /// Start timestamps count as resets.
    pub use_start_timestamps: bool,
    /// What a metric is, is told by `__type__` instead of by its name's ending.
    pub type_and_unit_labels: bool,
    /// The most samples held at a time.
    pub max_samples: u64,
}

/// What the operators of one evaluation share.
#[derive(Debug)]
pub struct Context {
    /// The switches.
    pub settings: Settings,
    /// What may be held in memory, and whether anybody waits for the answer.
    pub budget: Budget,
    /// Where chunks are evaluated.
    pub pool: Arc<rayon::ThreadPool>,
}

/// What one chunk's worker found out besides its result.
#[derive(Debug, Default)]
pub struct Findings {
    /// What the user should know.
    pub notes: Annotations,
    /// Samples in the windows, per step.
    pub queryable: Vec<u64>,
    /// Samples read from the store.
    pub samples_read: u64,
    /// Samples held on to in the result.
    pub held: u64,
}

impl Findings {
    /// Adds what a later chunk found.
    pub fn merge(&mut self, other: Self) {
        self.notes.merge(other.notes);
        if self.queryable.len() < other.queryable.len() {
            self.queryable.resize(other.queryable.len(), 0);
        }
        for (sum, more) in self.queryable.iter_mut().zip(other.queryable) {
            *sum += more;
        }
        self.samples_read += other.samples_read;
        self.held += other.held;
    }
}

impl Context {
    /// Fails if nobody waits for the answer any more.
    pub fn check(&self) -> Result<(), QueryError> {
        self.budget.check()
    }

    /// Evaluates chunks of `series` in parallel and hands the results to `take` in order.
    ///
    /// A result is taken by the thread that has made it or the one before it, while others go on.
    pub fn over_chunks<T: Send>(
        &self,
        series: usize,
        work: impl Fn(Range<usize>, &mut Findings) -> Result<T, QueryError> + Sync,
        mut take: impl FnMut(T) -> Result<(), QueryError> + Send,
    ) -> Result<Findings, QueryError> {
        let chunk = |at: usize| -> Result<(T, Findings), QueryError> {
            let mut findings = Findings::default();
            let done = work(at * CHUNK..series.min((at + 1) * CHUNK), &mut findings)?;
            Ok((done, findings))
        };
        let chunks = series.div_ceil(CHUNK);
        let line = Mutex::new(Line {
            take: &mut take,
            all: Findings::default(),
            next: 0,
            early: BTreeMap::new(),
            failed: None,
        });
        if chunks == 1 {
            line.lock().put(0, chunk(0));
        } else {
            let threads = self.pool.current_num_threads().max(1);
            let mut at = 0;
            // Only so many at a time: what has been taken is smaller than what has not.
            while at < chunks && line.lock().failed.is_none() {
                let end = chunks.min(at + 16 * threads);
                let next = AtomicUsize::new(at);
                self.pool.scope(|scope| {
                    for _ in 0..threads.min(end - at) {
                        scope.spawn(|_| {
                            loop {
                                let at = next.fetch_add(1, Ordering::Relaxed);
                                if at >= end || line.lock().failed.is_some() {
                                    break;
                                }
                                let done = chunk(at);
                                line.lock().put(at, done);
                            }
                        });
                    }
                });
                at = end;
            }
        }
        let line = line.into_inner();
        line.failed.map_or(Ok(line.all), Err)
    }
}

/// Puts results in their order.
struct Line<'a, T> {
    take: &'a mut (dyn FnMut(T) -> Result<(), QueryError> + Send),
    all: Findings,
    /// The number of the result to be taken next.
    next: usize,
    /// Results that came before their turn.
    early: BTreeMap<usize, Result<(T, Findings), QueryError>>,
    /// What the first that failed failed with.
    failed: Option<QueryError>,
}

impl<T> Line<'_, T> {
    /// Takes a result, and those that have waited for it.
    fn put(&mut self, at: usize, result: Result<(T, Findings), QueryError>) {
        self.early.insert(at, result);
        while self.failed.is_none()
            && let Some(result) = self.early.remove(&self.next)
        {
            self.next += 1;
            let taken = result.and_then(|(result, findings)| {
                self.all.merge(findings);
                (self.take)(result)
            });
            self.failed = taken.err();
        }
    }
}

impl Context {
    /// Changes every row in parallel.
    pub fn for_rows(
        &self,
        rows: &mut [SeriesRow],
        work: impl Fn(&mut SeriesRow, &mut Annotations) + Sync,
    ) -> Result<Annotations, QueryError> {
        let chunk = |rows: &mut [SeriesRow]| -> Result<Annotations, QueryError> {
            let mut notes = Annotations::default();
            for row in rows {
                self.check()?;
                work(row, &mut notes);
            }
            Ok(notes)
        };
        if rows.len() <= CHUNK {
            return chunk(rows);
        }
        let parts: Vec<_> = self.pool.install(|| rows.par_chunks_mut(CHUNK).map(chunk).collect());
        let mut all = Annotations::default();
        for notes in parts {
            all.merge(notes?);
        }
        Ok(all)
    }
}

/// The most that a query may hold at a time, besides what the server allows; none is without bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Samples.
    pub samples: Option<u64>,
    /// Bytes of samples and labels.
    pub bytes: Option<u64>,
    /// Series, of all selections together.
    pub series: Option<u64>,
}

/// Counts what is held in memory against the most there may be, for as long as anybody waits for the answer.
#[derive(Debug)]
pub struct Budget {
    canceled: Option<Arc<AtomicBool>>,
    most: u64,
    costs: Costs,
    held: AtomicU64,
    peak: AtomicU64,
    series: AtomicU64,
    label_bytes: AtomicU64,
}

/// What a sample and its time take.
const SAMPLE_BYTES: u64 = 16;

impl Budget {
    /// A budget of `most` samples.
    pub const fn new(most: u64) -> Self {
        Self::with(most, Costs { samples: None, bytes: None, series: None })
    }

    /// A budget of `most` samples, within what the caller may use.
    pub const fn with(most: u64, costs: Costs) -> Self {
        Self {
            canceled: None,
            most,
            costs,
            held: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            series: AtomicU64::new(0),
            label_bytes: AtomicU64::new(0),
        }
    }

    /// The same, until `canceled` says that nobody waits for the answer any more.
    #[must_use]
    pub fn until(self, canceled: Arc<AtomicBool>) -> Self {
        Self { canceled: Some(canceled), ..self }
    }

    /// Fails if nobody waits for the answer any more. To be asked every few milliseconds.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.canceled.as_ref().is_some_and(|canceled| canceled.load(Ordering::Relaxed)) {
            return Err(QueryError::Canceled("expression evaluation"));
        }
        Ok(())
    }

    /// Takes `samples` more into memory.
    pub fn hold(&self, samples: u64) -> Result<(), QueryError> {
        let held = self.held.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        self.peak.fetch_max(held, Ordering::Relaxed);
        self.check_samples(held)?;
        self.check_bytes(held)
    }

    /// Takes series, and what their labels take in bytes, for as long as the query lasts.
    pub fn hold_series(&self, labels: &[Labels]) -> Result<(), QueryError> {
        let count = u64::try_from(labels.len()).unwrap_or(u64::MAX);
        let series = self.series.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        if let Some(most) = self.costs.series.filter(|most| series > *most) {
            return Err(over(Limit::QuerySeries, most, series));
        }
        if self.costs.bytes.is_some() {
            let bytes: u64 = labels.iter().map(label_bytes).sum();
            self.label_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.check_bytes(self.held.load(Ordering::Relaxed))?;
        }
        Ok(())
    }

    /// The series that may yet be selected.
    pub fn series_left(&self) -> Option<u64> {
        Some(self.costs.series?.saturating_sub(self.series.load(Ordering::Relaxed)))
    }

    /// The bytes that may yet be held.
    pub fn bytes_left(&self) -> Option<u64> {
        let held = self.held.load(Ordering::Relaxed).saturating_mul(SAMPLE_BYTES);
        let labels = self.label_bytes.load(Ordering::Relaxed);
        Some(self.costs.bytes?.saturating_sub(held.saturating_add(labels)))
    }

    /// What the caller is told whose selection was stopped by a bound on its series.
    pub fn too_many_series(&self) -> Option<QueryError> {
        let most = self.costs.series?;
        Some(over(Limit::QuerySeries, most, most.saturating_add(1)))
    }

    /// What the caller is told whose selection was stopped by a bound on its labels.
    pub fn too_many_bytes(&self) -> Option<QueryError> {
        let most = self.costs.bytes?;
        Some(over(Limit::QueryBytes, most, most.saturating_add(1)))
    }

    /// Fails if `rows` of `places` would not fit by themselves.
    pub fn within(&self, rows: usize, places: usize) -> Result<(), QueryError> {
        let weight = u64::try_from(rows.saturating_mul(places)).unwrap_or(u64::MAX) / 2;
        self.check_samples(weight)?;
        self.check_bytes(weight)
    }

    fn check_samples(&self, held: u64) -> Result<(), QueryError> {
        match self.costs.samples {
            Some(most) if held > most && most <= self.most => Err(over(Limit::QuerySamples, most, held)),
            _ if held > self.most => Err(QueryError::TooManySamples),
            _ => Ok(()),
        }
    }

    fn check_bytes(&self, held: u64) -> Result<(), QueryError> {
        let Some(most) = self.costs.bytes else { return Ok(()) };
        let labels = self.label_bytes.load(Ordering::Relaxed);
        let bytes = held.saturating_mul(SAMPLE_BYTES).saturating_add(labels);
        if bytes > most { Err(over(Limit::QueryBytes, most, bytes)) } else { Ok(()) }
    }

    /// Lets `samples` go.
    pub fn release(&self, samples: u64) {
        self.held.fetch_sub(samples, Ordering::Relaxed);
    }

    /// The most that was held.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

/// A limit of the caller's that a query does not keep, and never will.
pub fn over(limit: Limit, allowed: u64, asked: u64) -> QueryError {
    QueryError::OverLimit(OverLimit { limit, allowed, asked, retry_after: None, for_good: true })
}

/// What a row counts as: its values, but at least half its places, because an empty place takes half
/// of what a sample with its time does.
pub fn weight(row: &Row) -> u64 {
    let floats = row.floats.iter().filter(|v| !is_absent(**v)).count().max(row.floats.len() / 2);
    let histograms: u64 = row.histograms.iter().map(|(_, h)| h.size_in_samples()).sum();
    u64::try_from(floats).unwrap_or(u64::MAX).saturating_add(histograms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_ends_where_it_says() {
        let budget = Budget::new(10);
        budget.hold(10).unwrap();
        assert!(matches!(budget.hold(1), Err(QueryError::TooManySamples)));
        budget.release(11);
        budget.hold(3).unwrap();
        assert_eq!(budget.peak(), 11);
    }

    #[test]
    fn the_caller_s_bounds_are_named_where_they_are_the_stricter() {
        let told = |most, costs: Costs, samples| match Budget::with(most, costs).hold(samples) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        let samples = |most| Costs { samples: Some(most), ..Costs::default() };
        assert_eq!(told(100, samples(10), 10), "");
        assert_eq!(told(100, samples(10), 11), "over the limit max_query_samples of 10: 11");
        assert!(told(10, samples(100), 11).contains("too many samples"));
        let bytes = Costs { bytes: Some(160), ..Costs::default() };
        assert_eq!(told(100, bytes, 10), "");
        assert_eq!(told(100, bytes, 11), "over the limit max_query_bytes of 160B: 176B");
    }

    #[test]
    fn series_and_their_labels_are_counted_over_all_selections() {
        let labels = vec![Labels::from_pairs([("a", "b")]).unwrap(); 3];
        let budget = Budget::with(100, Costs { series: Some(5), bytes: Some(1_000), ..Costs::default() });
        budget.hold_series(&labels).unwrap();
        assert_eq!(budget.series_left(), Some(2));
        let left = budget.bytes_left().unwrap();
        assert!(left < 1_000);
        budget.hold(1).unwrap();
        assert_eq!(budget.bytes_left(), Some(left - 16));
        let error = budget.hold_series(&labels).unwrap_err().to_string();
        assert_eq!(error, "over the limit max_query_series of 5: 6");
        let budget = Budget::with(100, Costs { bytes: Some(100), ..Costs::default() });
        let error = budget.hold_series(&labels).unwrap_err().to_string();
        assert!(error.starts_with("over the limit max_query_bytes of 100B: "), "{error}");
    }
}
