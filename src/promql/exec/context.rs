//! What every operator of one evaluation shares: switches, budget, cancellation, and turns.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::rows::{Row, SeriesRow, Steps, is_absent};
use crate::{
    model::{Labels, Limit, OverLimit},
    promql::{
        QueryError, annotations::Annotations, memory::Share, plan::Reference, ticket::Ticket, turns::Turn,
    },
    storage::{SeriesSamples, selection::label_bytes},
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
    /// The query's own steps, if samples are to be counted by the step that reads them first.
    pub count_reads: Option<Steps>,
}

/// What the operators of one evaluation share.
#[derive(Debug)]
pub struct Context {
    /// The switches.
    pub settings: Settings,
    /// What may be held in memory, and whether anybody waits for the answer.
    pub budget: Budget,
    /// The query's ticket, by which somebody may stop it.
    pub ticket: Arc<Ticket>,
    /// Its turns.
    pub turn: Turn,
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
    /// The same by the query's step that reads them first, if that is asked for.
    pub read: Vec<u64>,
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
        if self.read.len() < other.read.len() {
            self.read.resize(other.read.len(), 0);
        }
        for (sum, more) in self.read.iter_mut().zip(other.read) {
            *sum += more;
        }
        self.samples_read += other.samples_read;
        self.held += other.held;
    }
}

impl Findings {
    /// Counts what was read of a series.
    ///
    /// The first step that is not before a sample, seen from where the selector looks, has read it; the last step has
    /// read what no step comes after, and the first all that is the same for every step.
    pub fn count(&mut self, samples: &SeriesSamples, reference: Reference, settings: &Settings) {
        self.samples_read += u64::try_from(samples.len()).unwrap_or(u64::MAX);
        let Some(steps) = settings.count_reads else { return };
        self.read.resize(steps.count, 0);
        let floats = samples.timestamps.iter().copied();
        count_by_step(&mut self.read, floats, reference, &steps);
        let histograms = samples.histograms.iter().map(|sample| sample.timestamp);
        count_by_step(&mut self.read, histograms, reference, &steps);
    }
}

fn count_by_step(read: &mut [u64], times: impl Iterator<Item = i64>, reference: Reference, steps: &Steps) {
    let mut step = 0;
    for time in times {
        while reference.at.is_none() && step + 1 < steps.count && reference.of(steps, step) < time {
            step += 1;
        }
        if let Some(read) = read.get_mut(step) {
            *read += 1;
        }
    }
}

impl Context {
    /// Fails if nobody waits for the answer any more, and lets others compute whose turn it is.
    #[inline]
    pub fn check(&self) -> Result<(), QueryError> {
        self.turn.check(|| self.is_over());
        if self.is_over() { Err(QueryError::Canceled("expression evaluation")) } else { Ok(()) }
    }

    /// Whether nobody waits for the answer any more.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.budget.is_over()
    }

    /// Does jobs, with as many helpers as there are turns for; the results are in the order of the jobs.
    pub fn together<J: Send, T: Send>(
        &self,
        jobs: impl ExactSizeIterator<Item = J> + Send,
        work: impl Fn(J) -> T + Sync,
    ) -> Vec<T> {
        if jobs.len() < 2 {
            return jobs.map(work).collect();
        }
        let most = jobs.len() - 1;
        let (jobs, done) = (Mutex::new(jobs.enumerate()), Mutex::new(Vec::with_capacity(most + 1)));
        let run = |is_wanted: &dyn Fn() -> bool| {
            let mut mine = Vec::new();
            loop {
                // The lock is not held while the work is done.
                let job = jobs.lock().next();
                let Some((number, job)) = job else { break };
                mine.push((number, work(job)));
                if is_wanted() {
                    break;
                }
            }
            done.lock().extend(mine);
        };
        let helpers: Vec<_> = std::iter::from_fn(|| self.turn.helper()).take(most).collect();
        if let Some(first) = helpers.first() {
            let run = &run;
            self.turn.helpers(first).in_place_scope(|scope| {
                for mut helper in helpers {
                    scope.spawn(move |_| {
                        helper.begin();
                        run(&|| helper.is_wanted());
                    });
                }
                run(&|| false);
            });
        } else {
            run(&|| false);
        }
        let mut done = done.into_inner();
        done.sort_unstable_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, result)| result).collect()
    }

    /// Evaluates chunks of `series` in parallel and hands the results to `take` in order.
    pub fn over_chunks<T: Send>(
        &self,
        series: usize,
        work: impl Fn(Range<usize>, &mut Findings) -> Result<T, QueryError> + Sync,
        mut take: impl FnMut(T) -> Result<(), QueryError>,
    ) -> Result<Findings, QueryError> {
        let mut all = Findings::default();
        let chunk = |at: usize| -> Result<(T, Findings), QueryError> {
            let mut findings = Findings::default();
            let done = work(at * CHUNK..series.min((at + 1) * CHUNK), &mut findings)?;
            Ok((done, findings))
        };
        let chunks = series.div_ceil(CHUNK);
        // Only so many at a time: what has been taken is smaller than what has not.
        let batch = 4 * self.turn.places();
        let mut at = 0;
        while at < chunks {
            let end = chunks.min(at + batch);
            for result in self.together(at..end, chunk) {
                let (result, findings) = result?;
                self.check()?;
                self.ticket.read(findings.samples_read);
                all.merge(findings);
                take(result)?;
            }
            at = end;
        }
        Ok(all)
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
        let mut all = Annotations::default();
        for notes in self.together(rows.chunks_mut(CHUNK), chunk) {
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
    /// Who tells that nobody waits for the answer any more.
    until: Option<(Arc<AtomicBool>, Arc<Ticket>)>,
    most: u64,
    costs: Costs,
    held: AtomicU64,
    peak: AtomicU64,
    series: AtomicU64,
    label_bytes: AtomicU64,
    /// What it holds of the memory of all queries; none is without bound.
    share: Option<Share>,
}

/// What a sample and its time take.
const SAMPLE_BYTES: u64 = 16;

impl Budget {
    /// A budget of `most` samples.
    pub const fn new(most: u64) -> Self {
        Self::with(most, Costs { samples: None, bytes: None, series: None }, None)
    }

    /// A budget of `most` samples, within what the caller may use.
    pub const fn with(most: u64, costs: Costs, share: Option<Share>) -> Self {
        Self {
            until: None,
            most,
            costs,
            held: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            series: AtomicU64::new(0),
            label_bytes: AtomicU64::new(0),
            share,
        }
    }

    /// The same, until `canceled` or the ticket says that nobody waits for the answer any more.
    #[must_use]
    pub fn until(self, canceled: &Arc<AtomicBool>, ticket: &Arc<Ticket>) -> Self {
        Self { until: Some((Arc::clone(canceled), Arc::clone(ticket))), ..self }
    }

    /// Whether nobody waits for the answer any more.
    #[inline]
    pub fn is_over(&self) -> bool {
        let until = self.until.as_ref();
        until.is_some_and(|(canceled, ticket)| canceled.load(Ordering::Relaxed) || ticket.is_canceled())
    }

    /// Fails if nobody waits for the answer any more. To be asked every few milliseconds.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.is_over() { Err(QueryError::Canceled("expression evaluation")) } else { Ok(()) }
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
            return Err(one_too_many(Limit::QuerySeries, most));
        }
        if self.costs.bytes.is_some() || self.share.is_some() {
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
        Some(one_too_many(Limit::QuerySeries, most))
    }

    /// What the caller is told whose selection was stopped by a bound on its labels.
    pub fn too_many_bytes(&self) -> Option<QueryError> {
        let most = self.costs.bytes?;
        Some(one_too_many(Limit::QueryBytes, most))
    }

    /// Fails if `rows` of `places` would not fit by themselves.
    pub fn within(&self, rows: usize, places: usize) -> Result<(), QueryError> {
        let weight = u64::try_from(rows.saturating_mul(places)).unwrap_or(u64::MAX) / 2;
        self.check_samples(weight)?;
        if let Some(share) = &self.share {
            // They are not held yet, but there they are.
            share.fit(self.bytes_of(self.held.load(Ordering::Relaxed).saturating_add(weight)))?;
        }
        self.check_costs(weight)
    }

    fn check_samples(&self, held: u64) -> Result<(), QueryError> {
        match self.costs.samples {
            Some(most) if held > most && most <= self.most => Err(over(Limit::QuerySamples, most, held)),
            _ if held > self.most => Err(QueryError::TooManySamples),
            _ => Ok(()),
        }
    }

    fn check_bytes(&self, held: u64) -> Result<(), QueryError> {
        self.check_costs(held)?;
        let Some(share) = &self.share else { return Ok(()) };
        // What takes memory looks whether it is still wanted, so that loops which hold need not.
        share.check()?;
        share.fit(self.bytes_of(held))
    }

    fn check_costs(&self, held: u64) -> Result<(), QueryError> {
        let Some(most) = self.costs.bytes else { return Ok(()) };
        let bytes = self.bytes_of(held);
        if bytes > most { Err(over(Limit::QueryBytes, most, bytes)) } else { Ok(()) }
    }

    /// What so many samples take, with the labels.
    fn bytes_of(&self, held: u64) -> u64 {
        let labels = self.label_bytes.load(Ordering::Relaxed);
        held.saturating_mul(SAMPLE_BYTES).saturating_add(labels)
    }

    /// Lets `samples` go.
    pub fn release(&self, samples: u64) {
        let held = self.held.fetch_sub(samples, Ordering::Relaxed).saturating_sub(samples);
        if let Some(share) = &self.share {
            share.shrink(self.bytes_of(held));
        }
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

/// The same where counting stopped at the limit: what it is in all, depends on who came to it first.
fn one_too_many(limit: Limit, allowed: u64) -> QueryError {
    over(limit, allowed, allowed.saturating_add(1))
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
        let told = |most, costs: Costs, samples| match Budget::with(most, costs, None).hold(samples) {
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
        let budget =
            Budget::with(100, Costs { series: Some(5), bytes: Some(1_000), ..Costs::default() }, None);
        budget.hold_series(&labels).unwrap();
        assert_eq!(budget.series_left(), Some(2));
        let left = budget.bytes_left().unwrap();
        assert!(left < 1_000);
        budget.hold(1).unwrap();
        assert_eq!(budget.bytes_left(), Some(left - 16));
        let error = budget.hold_series(&labels).unwrap_err().to_string();
        assert_eq!(error, "over the limit max_query_series of 5: 6");
        let budget = Budget::with(100, Costs { bytes: Some(100), ..Costs::default() }, None);
        let error = budget.hold_series(&labels).unwrap_err().to_string();
        assert!(error.starts_with("over the limit max_query_bytes of 100B: "), "{error}");
    }
}
