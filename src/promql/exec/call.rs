//! Functions of vectors and scalars that are not functions of a range.

use super::{
    Output,
    context::Context,
    names::drop_names,
    rows::{Row, SeriesRow, Steps, is_absent},
    select::seconds,
};
use crate::promql::{
    QueryError,
    annotations::Annotations,
    functions::{
        classic,
        instant::{self, InstantFunction, go_max, go_min},
        vector,
    },
    parse::Span,
    plan::VectorFunction,
};

/// Applies a function to every value.
pub fn map(
    context: &Context,
    function: InstantFunction,
    rows: Vec<SeriesRow>,
    params: &[&[f64]],
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut rows = rows;
    context.for_rows(&mut rows, |row, _| instant::map(function, &mut row.row, params))?;
    rows.retain(|row| !row.row.is_empty());
    drop_names(&context.budget, rows, context.settings.delayed_names)
}

/// Calls a function that sees all of its arguments.
pub fn call(
    context: &Context,
    function: &VectorFunction,
    args: Vec<Output>,
    spans: &[Span],
    steps: Steps,
    notes: &mut Annotations,
) -> Result<Output, QueryError> {
    let delayed = context.settings.delayed_names;
    let mut args = args.into_iter();
    let mut next = || args.next().unwrap_or(Output::Vector(Vec::new()));
    let span = |at: usize| spans.get(at).copied().unwrap_or_default();
    let of_histograms = |scalar: usize, vector: usize| classic::Context {
        steps,
        delayed_names: delayed,
        budget: &context.budget,
        scalar_span: span(scalar),
        vector_span: span(vector),
    };
    Ok(Output::Vector(match function {
        VectorFunction::Timestamp => {
            drop_names(&context.budget, times(context, next().vector()?, &steps)?, delayed)?
        }
        VectorFunction::StartTimestamp => Vec::new(),
        VectorFunction::Scalar => {
            return vector::scalar(&context.budget, &next().vector()?, steps).map(Output::Scalar);
        }
        VectorFunction::Vector => vec![vector::vector(next().scalar()?)],
        VectorFunction::MaxOf => return pairs(next().scalar()?, &next().scalar()?, go_max),
        VectorFunction::MinOf => return pairs(next().scalar()?, &next().scalar()?, go_min),
        VectorFunction::Absent(labels) => {
            let row = vector::absent(&context.budget, &next().vector()?, steps)?;
            let row = SeriesRow { labels: labels.clone(), drop_name: false, row };
            if row.row.is_empty() { Vec::new() } else { vec![row] }
        }
        VectorFunction::LabelReplace { dst, replacement, src, regex } => {
            vector::label_replace(&context.budget, next().vector()?, dst, replacement, src, regex)?
        }
        VectorFunction::LabelJoin { dst, separator, src } => {
            let src: Vec<&str> = src.iter().map(String::as_str).collect();
            vector::label_join(&context.budget, next().vector()?, dst, separator, &src)?
        }
        VectorFunction::Sort { descending } => {
            vector::sort(&context.budget, next().vector()?, *descending, steps, notes, span(0))?
        }
        VectorFunction::SortByLabel { descending, labels } => {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            let rows = next().vector()?;
            vector::sort_by_label(&context.budget, rows, &labels, *descending, steps, notes, span(0))?
        }
        VectorFunction::HistogramQuantile => {
            let (q, rows) = (next().scalar()?, next().vector()?);
            classic::histogram_quantile(&q, rows, &of_histograms(0, 1), notes)?
        }
        VectorFunction::HistogramFraction => {
            let (lower, upper, rows) = (next().scalar()?, next().scalar()?, next().vector()?);
            classic::histogram_fraction(&lower, &upper, rows, &of_histograms(0, 2), notes)?
        }
        VectorFunction::HistogramQuantiles(label) => {
            let rows = next().vector()?;
            let quantiles: Vec<Vec<f64>> = args.map(Output::scalar).collect::<Result<_, _>>()?;
            let quantiles: Vec<&[f64]> = quantiles.iter().map(Vec::as_slice).collect();
            classic::histogram_quantiles(&quantiles, label, rows, &of_histograms(1, 0), notes)?
        }
        VectorFunction::HistogramStat(stat) => {
            let mut rows = next().vector()?;
            context.for_rows(&mut rows, |row, _| instant::histogram_stat(*stat, &mut row.row))?;
            rows.retain(|row| !row.row.is_empty());
            drop_names(&context.budget, rows, delayed)?
        }
    }))
}

fn pairs(left: Vec<f64>, right: &[f64], function: fn(f64, f64) -> f64) -> Result<Output, QueryError> {
    Ok(Output::Scalar(left.into_iter().zip(right).map(|(l, r)| function(l, *r)).collect()))
}

/// The time of each step where there is a value.
fn times(context: &Context, mut rows: Vec<SeriesRow>, steps: &Steps) -> Result<Vec<SeriesRow>, QueryError> {
    context.for_rows(&mut rows, |row, _| {
        let Row { floats, histograms } = &mut row.row;
        for (step, value) in floats.iter_mut().enumerate().filter(|(_, value)| !is_absent(**value)) {
            *value = seconds(steps.at(step));
        }
        for (step, _) in histograms.drain(..) {
            let Ok(step) = usize::try_from(step) else { continue };
            if let Some(place) = floats.get_mut(step) {
                *place = seconds(steps.at(step));
            }
        }
    })?;
    Ok(rows)
}
