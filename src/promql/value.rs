//! What a query answers.

use std::sync::Arc;

use crate::{model::Labels, promql::histogram::FloatHistogram};

/// A query's result.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number, at a time in milliseconds.
    Scalar {
        /// When.
        timestamp: i64,
        /// What.
        value: f64,
    },
    /// A text, at a time in milliseconds.
    String {
        /// When.
        timestamp: i64,
        /// What.
        value: String,
    },
    /// One sample per series, all at one time.
    Vector(Vec<VectorElement>),
    /// Samples of many series over time, series sorted by labels.
    Matrix(Vec<MatrixSeries>),
}

/// One series' sample of a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorElement {
    /// The series.
    pub labels: Labels,
    /// When, in milliseconds.
    pub timestamp: i64,
    /// What.
    pub value: Point,
}

/// A value: a float, or a histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum Point {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// One series of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSeries {
    /// The series.
    pub labels: Labels,
    /// Times in milliseconds and float values.
    pub floats: Vec<(i64, f64)>,
    /// Times in milliseconds and histograms.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
}

/// An answer with what the user should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The result.
    pub value: Value,
    /// `PromQL warning: …`, with positions, at most ten and a line saying how many more.
    pub warnings: Vec<String>,
    /// `PromQL info: …`, likewise.
    pub infos: Vec<String>,
    /// What it cost.
    pub stats: QueryStats,
}

/// What a query cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryStats {
    /// Samples that the selectors' windows held over all steps.
    pub total_queryable_samples: u64,
    /// The same per step, filled if the request asked for it.
    pub total_queryable_samples_per_step: Vec<(i64, u64)>,
    /// Samples read from the store.
    pub samples_read: u64,
    /// The same per step, filled if the request asked for it: a sample counts where it is read first.
    pub samples_read_per_step: Vec<(i64, u64)>,
    /// Most samples held at one time.
    pub peak_samples: u64,
    /// Seconds spent parsing and planning.
    pub prepare_seconds: f64,
    /// Seconds spent waiting for the store.
    pub select_seconds: f64,
    /// Seconds spent computing.
    pub evaluate_seconds: f64,
    /// Seconds spent waiting for a free place.
    pub queue_seconds: f64,
}
