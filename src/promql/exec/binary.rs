//! Operators with a scalar on at least one side, and signs.

use std::sync::Arc;

use super::{
    context::Context,
    element::{Operator, Side},
    names::drop_names,
    rows::{Row, SeriesRow, is_absent},
};
use crate::promql::{QueryError, annotations::Annotations, histogram::FloatHistogram};

/// Two scalars.
pub fn scalars(operator: &Operator, mut left: Vec<f64>, right: &[f64]) -> Vec<f64> {
    // A comparison of scalars always says 0 or 1.
    let operator = Operator { return_bool: true, ..*operator };
    operator.floats(&mut left, Side { is_left: true, is_kept: true }, right);
    left
}

/// A vector and a scalar; a comparison that holds keeps the vector's value on whichever side it is.
pub fn with_scalar(
    context: &Context,
    operator: &Operator,
    rows: Vec<SeriesRow>,
    scalar: Vec<f64>,
    vector_is_left: bool,
    notes: &mut Annotations,
) -> Result<Vec<SeriesRow>, QueryError> {
    let side = Side { is_left: vector_is_left, is_kept: true };
    let scalar = Row { floats: scalar, histograms: Vec::new() };
    let mut rows = rows;
    notes
        .merge(context.for_rows(&mut rows, |row, notes| operator.apply(&mut row.row, side, &scalar, notes))?);
    rows.retain(|row| !row.row.is_empty());
    if operator.changes_meaning() || operator.return_bool {
        drop_names(&context.budget, rows, context.settings.delayed_names)
    } else {
        Ok(rows)
    }
}

/// A minus sign before a vector.
pub fn negate(context: &Context, rows: Vec<SeriesRow>) -> Result<Vec<SeriesRow>, QueryError> {
    let mut rows = rows;
    context.for_rows(&mut rows, |row, _| {
        for value in row.row.floats.iter_mut().filter(|value| !is_absent(**value)) {
            *value = -*value;
        }
        for (_, histogram) in &mut row.row.histograms {
            let mut negated = FloatHistogram::clone(histogram);
            negated.mul(-1.0);
            *histogram = Arc::new(negated);
        }
    })?;
    drop_names(&context.budget, rows, context.settings.delayed_names)
}
