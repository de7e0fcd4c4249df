//! Aggregations: many series in, one per group out, or the few that are picked.
//!
//! Which group a series belongs to is settled once, before any value is looked at ([`group`]). What
//! adds up is folded row by row ([`fold`]), also in parts that are put together later; what needs all
//! values of a group at a step at once gathers them ([`gather`]); what picks series ([`rank`]) hands
//! their rows on with the places blanked that were not picked.

pub mod fold;
pub mod gather;
pub mod group;
pub mod rank;

use super::{
    context::Context,
    rows::{SeriesRow, Steps, is_absent},
};
use crate::promql::{
    QueryError,
    annotations::{self, Annotations},
    parse::AggregateOp,
    plan::Aggregation,
};
use fold::Fold;
use group::Groups;

/// Evaluates an aggregation over all its series.
///
/// `param` holds the scalar parameter of every step, for those that take one.
pub fn aggregate(
    context: &Context,
    aggregation: &Aggregation,
    rows: Vec<SeriesRow>,
    param: Option<&[f64]>,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<SeriesRow>, QueryError> {
    let param = param.unwrap_or_default();
    match aggregation.op {
        AggregateOp::Sum
        | AggregateOp::Avg
        | AggregateOp::Count
        | AggregateOp::Min
        | AggregateOp::Max
        | AggregateOp::Group => {
            let groups = Groups::of(context, &rows, aggregation)?;
            let mut rows: Vec<Option<SeriesRow>> = rows.into_iter().map(Some).collect();
            let mut done = Vec::with_capacity(groups.all.len());
            for group in &groups.all {
                let mut fold = Fold::new(aggregation.op, steps.count);
                for member in &group.members {
                    context.check()?;
                    if let Some(row) = rows[*member].take() {
                        fold.add(&row.row, aggregation, notes);
                    }
                }
                done.extend(group.row(fold.finish(aggregation, notes)));
            }
            Ok(done)
        }
        AggregateOp::Stddev | AggregateOp::Stdvar => {
            let groups = Groups::of(context, &rows, aggregation)?;
            gather::deviation(context, aggregation, &groups, &rows, steps, notes)
        }
        AggregateOp::Quantile => {
            warn_of_quantiles(param, aggregation, notes);
            let groups = Groups::of(context, &rows, aggregation)?;
            gather::quantile(context, aggregation, &groups, &rows, param, steps, notes)
        }
        AggregateOp::CountValues => gather::count_values(context, aggregation, &rows, steps),
        AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
            let Some(k) = rank::counts(param)? else { return Ok(Vec::new()) };
            let groups = Groups::of(context, &rows, aggregation)?;
            rank::pick(context, aggregation, &groups, rows, &k, steps, notes)
        }
        AggregateOp::LimitRatio => {
            let Some(ratios) = rank::ratios(param, aggregation, notes)? else { return Ok(Vec::new()) };
            let groups = Groups::of(context, &rows, aggregation)?;
            rank::sample(context, &groups, rows, &ratios)
        }
    }
}

fn warn_of_quantiles(param: &[f64], aggregation: &Aggregation, notes: &mut Annotations) {
    let mut warn = |q: f64| notes.warn(annotations::invalid_quantile(q), aggregation.param_span);
    if param.iter().any(|q| q.is_nan()) {
        warn(f64::NAN);
    }
    let greatest = param.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = param.iter().copied().fold(f64::INFINITY, f64::min);
    if greatest > 1.0 {
        warn(greatest);
    }
    if least < 0.0 {
        warn(least);
    }
}

/// Says that histograms take no part in an aggregation.
fn histogram_ignored(aggregation: &Aggregation, notes: &mut Annotations) {
    notes.info(annotations::histogram_ignored_in_aggregation(aggregation.op.as_str()), aggregation.span);
}

/// The members' floats at a step.
fn floats_at<'a>(rows: &'a [SeriesRow], members: &'a [usize], step: usize) -> impl Iterator<Item = f64> + 'a {
    members.iter().map(move |member| rows[*member].row.floats[step]).filter(|value| !is_absent(*value))
}
