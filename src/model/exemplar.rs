//! A trace that stands for a measurement.

use super::{Labels, Timestamp};

/// One exemplar of a series: usually a trace id, with the value and time it was seen at.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// The exemplar's own labels (`trace_id`), not those of its series.
    pub labels: Labels,
    /// The measured value.
    pub value: f64,
    /// When it was measured.
    pub timestamp: Timestamp,
}
