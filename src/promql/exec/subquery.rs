//! Subqueries: the rows of an inner expression, taken as samples at the inner steps.
//!
//! The inner steps are multiples of the subquery's step, counted from the epoch, so that they do not
//! move with the query. Values come without stale markers and without start timestamps, and what a
//! histogram said about resets does not hold between them.

use std::sync::Arc;

use super::{
    range::Samples,
    rows::{Row, Steps, is_absent},
};
use crate::model::histogram::ResetHint;

/// Turns a row into samples.
pub fn load(row: &Row, steps: &Steps, into: &mut Samples) {
    into.clear();
    for (i, value) in row.floats.iter().enumerate() {
        if !is_absent(*value) {
            into.timestamps.push(steps.at(i));
            into.values.push(*value);
        }
    }
    for (step, histogram) in &row.histograms {
        let Ok(i) = usize::try_from(*step) else { continue };
        let mut histogram = Arc::clone(histogram);
        if matches!(histogram.reset_hint, ResetHint::Yes | ResetHint::No) {
            Arc::make_mut(&mut histogram).reset_hint = ResetHint::Unknown;
        }
        into.histograms.push((steps.at(i), histogram));
    }
}
