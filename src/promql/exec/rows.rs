//! Results in the making: a dense row of floats per series, one place per step.
//!
//! A place without a value holds [`ABSENT`]: the stale marker's bits, which no result can have.
//! Test for it by bits *before* arithmetic, because arithmetic quiets the NaN. Histograms are rare, so
//! they stand aside in a sorted list; a step has a float or a histogram, never both.

use std::sync::Arc;

use crate::{
    model::{Labels, STALE_NAN_BITS},
    promql::histogram::FloatHistogram,
};

/// What stands where a series has no value.
pub use crate::storage::offer::ABSENT;

/// Whether a place is without a value.
#[inline]
pub fn is_absent(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The steps of an evaluation: `start`, `start + step`, … `count` of them, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// The first.
    pub start: i64,
    /// The distance; 0 when there is one step.
    pub step: i64,
    /// How many.
    pub count: usize,
}

impl Steps {
    /// The time of step `i`.
    #[inline]
    pub fn at(&self, i: usize) -> i64 {
        self.start + self.step * i64::try_from(i).unwrap_or(i64::MAX)
    }
}

/// One series' values over the steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// One place per step; [`ABSENT`] where there is none.
    pub floats: Vec<f64>,
    /// Histograms by step number, sorted.
    pub histograms: Vec<(u32, Arc<FloatHistogram>)>,
}

impl Row {
    /// A row without values.
    pub fn absent(steps: usize) -> Self {
        Self { floats: vec![ABSENT; steps], histograms: Vec::new() }
    }

    /// Whether no step has a value.
    pub fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.floats.iter().all(|v| is_absent(*v))
    }

    /// The histogram at step `i`.
    pub fn histogram(&self, i: usize) -> Option<&Arc<FloatHistogram>> {
        let at = u32::try_from(i).ok()?;
        self.histograms.binary_search_by_key(&at, |(step, _)| *step).ok().map(|i| &self.histograms[i].1)
    }

    /// Whether step `i` has a value of either kind.
    pub fn has(&self, i: usize) -> bool {
        !is_absent(self.floats[i]) || self.histogram(i).is_some()
    }
}

/// A row and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesRow {
    /// The series.
    pub labels: Labels,
    /// With delayed name removal: the name (and type and unit) goes when the query is done.
    pub drop_name: bool,
    /// The values.
    pub row: Row,
}
