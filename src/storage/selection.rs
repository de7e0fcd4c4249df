//! What is asked of a store, and the form of its answer.
//!
//! An answer is all series' labels first and then their samples, in the order that suits the store:
//! one that can read any series on its own hands out a [`ReadSeries`] and is read by many threads at
//! once; one that streams in time order sends [`Run`]s, which the engine sorts into its own memory; one that took
//! something of the request's [`Offer`] sends rows over its grid.

use std::{borrow::Cow, fmt, ops::ControlFlow, sync::Arc};

use tokio::sync::mpsc;

use super::{GridRow, Offer, Result, StorageError};
use crate::model::{Exemplar, Histogram, Labels, Matcher, Millis, TimeRange, Timestamp};

/// Sets of matchers: within a set all must match, and one set is enough. None at all matches everything.
pub type MatcherSets = Vec<Vec<Matcher>>;

/// Which samples are wanted, and for what.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectRequest {
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// One of these must match, too; none at all lets everything pass. [`View`](super::View) sets it.
    pub filters: MatcherSets,
    /// The samples' times, both ends included.
    pub range: TimeRange,
    /// The steps the samples will be looked at from, if that is known.
    pub grid: Option<Grid>,
    /// How far back from a step a sample counts.
    pub lookback: Millis,
    /// Whether start timestamps are wanted.
    pub start_timestamps: bool,
    /// Whether values are wanted. If not, a store may give any other float for one that is no stale marker.
    pub values: bool,
    /// More series than this is an error; none is without bound.
    pub max_series: Option<usize>,
    /// Series whose labels take more bytes than this are an error; none is without bound.
    pub max_label_bytes: Option<u64>,
    /// What will be done with the samples at the steps of `grid`, and the store may do instead.
    pub offer: Offer,
}

impl SelectRequest {
    /// Everything that matches in a range.
    pub fn new(matchers: Vec<Matcher>, range: TimeRange) -> Self {
        Self {
            matchers,
            filters: MatcherSets::new(),
            range,
            grid: None,
            lookback: Millis(0),
            start_timestamps: true,
            values: true,
            max_series: None,
            max_label_bytes: None,
            offer: Offer::default(),
        }
    }

    /// The sets of which one must match: the matchers with each of the filters.
    pub fn sets(&self) -> Cow<'_, [Vec<Matcher>]> {
        match &self.filters[..] {
            [] => Cow::Borrowed(std::slice::from_ref(&self.matchers)),
            filters => Cow::Owned(each_with_each(std::slice::from_ref(&self.matchers), filters)),
        }
    }
}

/// Matchers that [`both`] makes at most.
const MOST_MATCHERS: usize = 10_000;

/// Sets that match what one of `sets` and one of `filters` match; an error if those would be too many.
pub(super) fn both(sets: &[Vec<Matcher>], filters: &[Vec<Matcher>]) -> Result<MatcherSets> {
    match (sets, filters) {
        (sets, []) => Ok(sets.to_vec()),
        ([], filters) => Ok(filters.to_vec()),
        (sets, filters) => {
            let count =
                |sets: &[Vec<Matcher>]| sets.iter().map(Vec::len).fold(sets.len(), usize::saturating_add);
            let (asked, filtered) = (count(sets), count(filters));
            let all =
                (asked.saturating_mul(filters.len())).saturating_add(filtered.saturating_mul(sets.len()));
            if all > MOST_MATCHERS {
                return Err(StorageError::Unsupported(format!(
                    "{} selectors, each with the {} filters of the caller, are too many matchers: \
                     {all} of at most {MOST_MATCHERS}",
                    sets.len(),
                    filters.len()
                )));
            }
            Ok(each_with_each(sets, filters))
        }
    }
}

fn each_with_each(sets: &[Vec<Matcher>], filters: &[Vec<Matcher>]) -> MatcherSets {
    let with = |set: &Vec<Matcher>, filter: &Vec<Matcher>| set.iter().chain(filter).cloned().collect();
    sets.iter().flat_map(|set| filters.iter().map(move |filter| with(set, filter))).collect()
}

/// About the memory that a series takes beside the text of its labels.
const SERIES_BYTES: u64 = 64;

/// About the memory that a series and its labels take.
pub(crate) fn label_bytes(labels: &Labels) -> u64 {
    labels.as_canonical().len() as u64 + SERIES_BYTES
}

/// Tells whether nobody waits for an answer any more.
pub type IsOver<'a> = &'a (dyn Fn() -> bool + Sync);

/// Series that are counted between two looks whether anybody still waits.
const LOOK: usize = 256;

/// Counts series against the bounds of a [`SelectRequest`].
#[derive(Clone)]
pub(crate) struct Meter<'a> {
    max_series: Option<usize>,
    max_bytes: Option<u64>,
    series: usize,
    bytes: u64,
    is_over: Option<IsOver<'a>>,
}

impl<'a> Meter<'a> {
    /// The bounds of a request.
    pub(crate) fn of(request: &SelectRequest) -> Self {
        let SelectRequest { max_series, max_label_bytes: max_bytes, .. } = request;
        Self { max_series: *max_series, max_bytes: *max_bytes, ..Self::unbounded() }
    }

    /// No bounds.
    pub(crate) fn unbounded() -> Self {
        Self { max_series: None, max_bytes: None, series: 0, bytes: 0, is_over: None }
    }

    /// The same, for as long as somebody waits.
    pub(crate) fn unless(self, is_over: IsOver<'a>) -> Self {
        Self { is_over: Some(is_over), ..self }
    }

    /// Counts one more series; fails if that is beyond a bound.
    pub(crate) fn count(&mut self, labels: &Labels) -> Result<()> {
        self.series += 1;
        if self.series.is_multiple_of(LOOK) && self.is_over.is_some_and(|is_over| is_over()) {
            return Err(StorageError::Stopped);
        }
        if let Some(limit) = self.max_series.filter(|limit| self.series > *limit) {
            return Err(StorageError::TooManySeries { limit });
        }
        if let Some(limit) = self.max_bytes {
            self.bytes = self.bytes.saturating_add(label_bytes(labels));
            if self.bytes > limit {
                return Err(StorageError::TooManyLabelBytes { limit });
            }
        }
        Ok(())
    }

    /// Counts several.
    pub(crate) fn count_all<'l>(&mut self, all: impl IntoIterator<Item = &'l Labels>) -> Result<()> {
        all.into_iter().try_for_each(|labels| self.count(labels))
    }
}

/// Evenly spaced instants, `start` and `end` included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The first.
    pub start: Timestamp,
    /// The last possible; a step may not fall on it.
    pub end: Timestamp,
    /// The distance, above zero.
    pub step: Millis,
}

impl Grid {
    /// How many instants there are; none if the end is before the start.
    pub fn count(&self) -> usize {
        let distance = i128::from(self.end.0) - i128::from(self.start.0);
        usize::try_from(distance.div_euclid(i128::from(self.step.0.max(1))) + 1).unwrap_or(0)
    }
}

/// Which series are wanted, of those with samples in a range.
#[derive(Clone, Debug)]
pub struct LabelsRequest {
    /// One set must match.
    pub matchers: MatcherSets,
    /// When they must have samples. A store may round it out to its own blocks of time.
    pub range: TimeRange,
    /// No more answers than this; 0 is without bound.
    pub limit: usize,
}

/// Looks at texts that are too many to be held, and keeps what it wants of them.
pub trait Sift: fmt::Debug + Send + Sync {
    /// Takes a look; a break says that nothing more is wanted. It is quick, for a store may hold a lock meanwhile.
    fn see(&self, text: &str) -> ControlFlow<()>;
}

/// The answer to a [`SelectRequest`].
#[derive(Debug)]
pub struct Selected {
    /// The series, sorted; groups, if an aggregation was taken.
    pub series: Vec<Labels>,
    /// Their samples, or their rows if something was taken.
    pub runs: Runs,
    /// How many operations of the offer are done, counted from the first; the rows are what the last gives.
    pub taken: usize,
    /// What the user should know (`a damaged block was left out`).
    pub warnings: Vec<String>,
}

/// The samples of a selection, in the order the store can give them.
#[derive(Debug)]
pub enum Runs {
    /// Any series, at any time, from any thread.
    SeriesMajor(Arc<dyn ReadSeries>),
    /// In time order per series, series mixed.
    TimeMajor(mpsc::Receiver<Result<Vec<Run>>>),
    /// Not samples but what was computed of them, each series at most once, in any order.
    Rows(mpsc::Receiver<Result<Vec<GridRow>>>),
}

/// Reads the samples of one selected series.
pub trait ReadSeries: fmt::Debug + Send + Sync {
    /// Adds the samples of series number `ordinal` in the request's range to `into`, in time order.
    ///
    /// May decode and read from disk, so it is called off the I/O threads.
    fn read(&self, ordinal: usize, into: &mut SeriesSamples) -> Result<()>;

    /// What the user should know of what was read so far, beside the selection's own warnings. To be asked after the
    /// last series was read.
    fn warnings(&self) -> Vec<String>;
}

/// Some samples of one series.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which of the selected series.
    pub ordinal: u32,
    /// The samples, later than those of this series' earlier runs.
    pub samples: SeriesSamples,
}

/// Samples of one series in columns, each sorted by time, no time twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesSamples {
    /// Times of the float samples, in milliseconds.
    pub timestamps: Vec<i64>,
    /// Their values, to the bit.
    pub values: Vec<f64>,
    /// Their start timestamps (0 is not known); empty if none of them has one.
    pub starts: Vec<i64>,
    /// The histogram samples.
    pub histograms: Vec<HistogramSample>,
}

impl SeriesSamples {
    /// Forgets the samples and keeps the memory.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.starts.clear();
        self.histograms.clear();
    }

    /// Adds a float sample that is later than all there are.
    pub fn push(&mut self, timestamp: i64, value: f64, start: i64) {
        if start != 0 && self.starts.is_empty() {
            self.starts.resize(self.timestamps.len(), 0);
        }
        self.timestamps.push(timestamp);
        self.values.push(value);
        if start != 0 || !self.starts.is_empty() {
            self.starts.push(start);
        }
    }

    /// Adds samples that are later than all there are.
    pub fn append(&mut self, more: Self) {
        for (i, (timestamp, value)) in more.timestamps.iter().zip(&more.values).enumerate() {
            self.push(*timestamp, *value, more.start(i));
        }
        self.histograms.extend(more.histograms);
    }

    /// The start timestamp of float sample number `i`, 0 if not known.
    pub fn start(&self, i: usize) -> i64 {
        self.starts.get(i).copied().unwrap_or(0)
    }

    /// How many samples there are of both kinds.
    pub fn len(&self) -> usize {
        self.timestamps.len() + self.histograms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A histogram sample.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSample {
    /// When, in milliseconds.
    pub timestamp: i64,
    /// When counting started; 0 is not known.
    pub start: i64,
    /// What.
    pub histogram: Arc<Histogram>,
}

/// The exemplars of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    /// The series.
    pub series: Labels,
    /// Its exemplars, in time order.
    pub exemplars: Vec<Exemplar>,
}
