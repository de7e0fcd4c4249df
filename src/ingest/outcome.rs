//! What became of a request: what was written, and what was refused and why.

use std::{fmt, time::Duration};

use super::validate::BadHistogram;
use crate::{
    model::{OverLimit, Timestamp},
    storage::RejectReason,
};

/// A request that was taken, all of it or in part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Float samples that are stored now, or were already.
    pub samples: u64,
    /// Histograms that are stored now, or were already.
    pub histograms: u64,
    /// Exemplars that are stored now, or were already.
    pub exemplars: u64,
    /// Metadata entries taken.
    pub metadata: u64,
    /// What was refused.
    pub rejected: Rejections,
}

/// Why a series or a sample is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No `__name__`.
    NoMetricName,
    /// Two labels of the same name.
    DuplicateLabel,
    /// Labels that are not in order of their names, where the protocol says they must be.
    UnsortedLabels,
    /// A label without a name.
    EmptyLabelName,
    /// A label that is not UTF-8.
    NotUtf8,
    /// More labels than a series may have.
    TooManyLabels,
    /// A label's name is too long.
    LongLabelName,
    /// A label's value is too long.
    LongLabelValue,
    /// Numbers that are no symbols, or a name without a value.
    BadRefs,
    /// Labels that do not decode.
    BadLabels,
    /// A series with both floats and histograms.
    MixedSamples,
    /// A series with neither.
    NoSamples,
    /// Further in the future than is allowed.
    InFuture,
    /// A histogram that contradicts itself.
    BadHistogram(BadHistogram),
    /// The store refused it.
    Store(RejectReason),
}

impl Reason {
    /// A short name for counters and for programs that read the answer.
    pub fn id(self) -> &'static str {
        match self {
            Self::NoMetricName => "missing_metric_name",
            Self::DuplicateLabel => "duplicate_label_name",
            Self::UnsortedLabels => "labels_not_sorted",
            Self::EmptyLabelName => "empty_label_name",
            Self::NotUtf8 => "label_invalid_utf8",
            Self::TooManyLabels => "max_label_names_per_series",
            Self::LongLabelName => "label_name_too_long",
            Self::LongLabelValue => "label_value_too_long",
            Self::BadRefs => "label_refs_invalid",
            Self::BadLabels => "label_invalid",
            Self::MixedSamples => "samples_and_histograms_mixed",
            Self::NoSamples => "no_samples",
            Self::InFuture => "too_far_in_future",
            Self::BadHistogram(_) => "invalid_native_histogram",
            Self::Store(RejectReason::TooOld) => "sample_too_old",
            Self::Store(RejectReason::OutOfOrder) => "sample_out_of_order",
            Self::Store(RejectReason::Conflict) => "sample_duplicate_timestamp",
            Self::Store(RejectReason::OverLimit(limit)) => limit.name(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMetricName => "the series has no metric name",
            Self::DuplicateLabel => "two labels have the same name",
            Self::UnsortedLabels => "the labels are not sorted by name",
            Self::EmptyLabelName => "a label has no name",
            Self::NotUtf8 => "a label is not UTF-8",
            Self::TooManyLabels => "the series has too many labels",
            Self::LongLabelName => "a label name is too long",
            Self::LongLabelValue => "a label value is too long",
            Self::BadRefs => "the label references are odd in number or out of range",
            Self::BadLabels => "the labels do not decode",
            Self::MixedSamples => "the series has both samples and histograms",
            Self::NoSamples => "the series has neither samples nor histograms",
            Self::InFuture => "the timestamp is too far in the future",
            Self::BadHistogram(bad) => return write!(f, "the histogram is invalid: {bad}"),
            Self::Store(RejectReason::TooOld) => "the sample is older than the retention",
            Self::Store(RejectReason::OutOfOrder) => "the sample is out of order",
            Self::Store(RejectReason::Conflict) => "another value is stored at that time",
            Self::Store(RejectReason::OverLimit(limit)) => {
                return write!(f, "the series would be new, and {} allows no more", limit.name());
            }
        })
    }
}

/// What was refused of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    /// How many samples, histograms and exemplars; a series without any counts once.
    pub total: u64,
    /// How many for each reason, by its [`Reason::id`], in the order met.
    pub by_reason: Vec<(&'static str, u64)>,
    /// The first of them.
    pub examples: Vec<Example>,
    /// The limits that stood in the way of some of it, each once.
    pub over: Vec<OverLimit>,
}

/// One thing that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its series' labels.
    pub series: String,
    /// Its time; none if the whole series was refused.
    pub timestamp: Option<Timestamp>,
    /// Why.
    pub reason: Reason,
}

impl Rejections {
    /// Whether all was taken.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// What the sender may do: when to come again, if only limits were in the way, and none of them for good.
    ///
    /// Everything else is written by then, and takes being sent again; what is wrong would be refused again, so
    /// that one bad sample is reason enough not to.
    pub fn retry_after(&self) -> Option<Duration> {
        let limits: u64 = self
            .by_reason
            .iter()
            .filter(|(id, _)| self.over.iter().any(|over| over.limit.name() == *id))
            .map(|(_, count)| count)
            .sum();
        if self.is_empty() || limits < self.total || self.over.iter().any(|over| over.for_good) {
            return None;
        }
        let waits: Option<Vec<Duration>> = self.over.iter().map(|over| over.retry_after).collect();
        waits?.into_iter().max()
    }

    /// Notes a limit that was in the way.
    pub(crate) fn over_limit(&mut self, over: OverLimit) {
        match self.over.iter_mut().find(|known| known.limit == over.limit) {
            Some(known) => {
                known.asked = known.asked.max(over.asked);
                known.retry_after = known.retry_after.max(over.retry_after);
            }
            None => self.over.push(over),
        }
    }

    /// Counts `count` refusals, and keeps one as an example while there are fewer than `max_examples`.
    pub(crate) fn add(
        &mut self,
        reason: Reason,
        count: u64,
        timestamp: Option<Timestamp>,
        max_examples: usize,
        describe: impl FnOnce() -> String,
    ) {
        self.total += count;
        match self.by_reason.iter_mut().find(|(id, _)| *id == reason.id()) {
            Some((_, counted)) => *counted += count,
            None => self.by_reason.push((reason.id(), count)),
        }
        if self.examples.len() < max_examples {
            self.examples.push(Example { series: describe(), timestamp, reason });
        }
    }
}

impl Outcome {
    /// Adds what became of another part of the request.
    pub(crate) fn add(&mut self, other: Self, max_examples: usize) {
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.exemplars += other.exemplars;
        self.metadata += other.metadata;
        let Rejections { total, by_reason, examples, over } = other.rejected;
        over.into_iter().for_each(|over| self.rejected.over_limit(over));
        self.rejected.total += total;
        for (id, count) in by_reason {
            match self.rejected.by_reason.iter_mut().find(|(known, _)| *known == id) {
                Some((_, counted)) => *counted += count,
                None => self.rejected.by_reason.push((id, count)),
            }
        }
        let room = max_examples.saturating_sub(self.rejected.examples.len());
        self.rejected.examples.extend(examples.into_iter().take(room));
    }
}

/// A text for the sender's log: counts by reason, then the examples, one a line.
impl fmt::Display for Rejections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rejected:", self.total)?;
        for (i, (id, count)) in self.by_reason.iter().enumerate() {
            write!(f, "{} {count} {id}", if i == 0 { "" } else { "," })?;
        }
        for over in &self.over {
            write!(f, "\n{over}")?;
        }
        for Example { series, timestamp, reason } in &self.examples {
            write!(f, "\n{series}")?;
            if let Some(timestamp) = timestamp {
                write!(f, " at {timestamp}")?;
            }
            write!(f, ": {reason}")?;
        }
        Ok(())
    }
}
