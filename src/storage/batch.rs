//! What is written, and what became of it.

use std::{fmt, sync::Arc, time::Duration};

use super::SeriesRoom;
pub use crate::model::OnConflict;
use crate::model::{Exemplar, Histogram, Labels, Limit, Metadata, Millis, OverLimit, SeriesId, Timestamp};

/// When one who has too many active series may come again: some may have ended by then.
pub(crate) const ACTIVE_RETRY: Duration = Duration::from_secs(60);

/// Samples of many series, decoded, validated and ready for a store.
///
/// A series is named by its place in `series`. Labels are not part of the batch: most series are
/// known to the store by their id, and only for the others does it ask [`BatchLabels`].
#[derive(Clone, Debug)]
pub struct WriteBatch {
    /// The series the batch speaks of; the same series may be there twice.
    pub series: Vec<SeriesId>,
    /// Gives the labels of a series of this batch.
    pub labels: Arc<dyn BatchLabels>,
    /// Float samples.
    pub samples: Vec<BatchSample>,
    /// Histogram samples.
    pub histograms: Vec<BatchHistogram>,
    /// Exemplars.
    pub exemplars: Vec<BatchExemplar>,
    /// What the writer says about metrics.
    pub metadata: Vec<Metadata>,
    /// How to settle what does not fit.
    pub policy: AppendPolicy,
    /// Is asked before series begin; none lets all of them.
    pub room: Option<Arc<dyn SeriesRoom>>,
}

impl WriteBatch {
    /// An empty batch over series whose labels are at hand.
    pub fn over(labels: Vec<Labels>) -> Self {
        Self {
            series: labels.iter().map(Labels::id).collect(),
            labels: Arc::new(labels),
            samples: Vec::new(),
            histograms: Vec::new(),
            exemplars: Vec::new(),
            metadata: Vec::new(),
            policy: AppendPolicy::default(),
            room: None,
        }
    }
}

/// Finds the labels of a batch's series, on the rare path where the store does not know them.
pub trait BatchLabels: fmt::Debug + Send + Sync {
    /// The labels of the batch's series number `series`.
    fn labels(&self, series: usize) -> Labels;
}

impl BatchLabels for Vec<Labels> {
    fn labels(&self, series: usize) -> Labels {
        self[series].clone()
    }
}

/// A float sample.
#[derive(Clone, Copy, Debug)]
pub struct BatchSample {
    /// Which of the batch's series.
    pub series: u32,
    /// When.
    pub timestamp: Timestamp,
    /// What, to the bit.
    pub value: f64,
    /// When counting started, in Unix milliseconds; 0 is not known.
    pub start: i64,
}

/// A histogram sample.
#[derive(Clone, Debug)]
pub struct BatchHistogram {
    /// Which of the batch's series.
    pub series: u32,
    /// When.
    pub timestamp: Timestamp,
    /// What.
    pub histogram: Arc<Histogram>,
    /// When counting started, in Unix milliseconds; 0 is not known.
    pub start: i64,
}

/// An exemplar.
#[derive(Clone, Debug)]
pub struct BatchExemplar {
    /// Which of the batch's series.
    pub series: u32,
    /// What.
    pub exemplar: Exemplar,
}

/// How a store settles samples that do not simply follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendPolicy {
    /// Other bits at a time that has a sample already.
    pub on_conflict: OnConflict,
    /// How far behind the series' newest sample one may be; none is without bound.
    pub out_of_order_window: Option<Millis>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Float samples that are stored now, or were already.
    pub samples: u64,
    /// Histograms that are stored now, or were already.
    pub histograms: u64,
    /// Exemplars that are stored now, or were already.
    pub exemplars: u64,
    /// Metadata entries taken.
    pub metadata: u64,
    /// What was refused.
    pub rejected: Vec<Rejected>,
    /// The limits that were in the way of what was refused as [`RejectReason::OverLimit`].
    pub over: Vec<OverLimit>,
}

impl Appended {
    /// Adds what became of another part of the batch.
    pub(crate) fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.exemplars += other.exemplars;
        self.metadata += other.metadata;
        self.rejected.extend(other.rejected);
        self.over.extend(other.over);
    }
}

/// One refused sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Which of the batch's series.
    pub series: u32,
    /// What kind of sample.
    pub kind: SampleKind,
    /// Its time.
    pub timestamp: Timestamp,
    /// Why.
    pub reason: RejectReason,
}

/// The kinds of thing a batch holds of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SampleKind {
    /// A float sample.
    Float,
    /// A native histogram.
    Histogram,
    /// An exemplar.
    Exemplar,
}

/// Why a store refuses a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Older than the retention keeps.
    TooOld,
    /// Further behind the newest sample than the out-of-order window.
    OutOfOrder,
    /// The series has another value at that time, and the policy keeps the first.
    Conflict,
    /// The series would begin, and this limit does not allow another.
    OverLimit(Limit),
}

impl RejectReason {
    /// A short name for counters and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooOld => "too old sample",
            Self::OutOfOrder => "out of order sample",
            Self::Conflict => "duplicate sample for timestamp",
            Self::OverLimit(limit) => limit.name(),
        }
    }
}
