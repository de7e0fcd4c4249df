//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction`, over classic and native histograms.
//!
//! A classic histogram is a group of series that differ in `le` only, each counting the observations
//! up to that bound. Groups are formed once; what they hold is looked at step by step, because series
//! come and go. A native histogram under the same labels at the same step contradicts a classic one:
//! then neither counts.

use std::collections::HashMap;

use crate::{
    model::{Labels, METRIC_NAME},
    promql::{
        QueryError,
        annotations::{self, Annotations, ForcedMonotonicity},
        exec::{
            context::Budget,
            rows::{Row, SeriesRow, Steps, is_absent},
        },
        functions::vector::{drop_metadata, merge_equal},
        go_float::{format_open_metrics, parse_go_float},
        histogram::{FloatHistogram, quantile::NanEffect},
        parse::Span,
    },
};

/// The label that carries a classic bucket's upper bound.
const BUCKET_LABEL: &str = "le";

/// Relative differences below this are rounding errors.
const ROUNDING: f64 = 1e-12;

/// How the evaluation treats names, and where remarks point.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The evaluation's steps.
    pub steps: Steps,
    /// Whether names are dropped when the query is done rather than here.
    pub delayed_names: bool,
    /// What may be held in memory.
    pub budget: &'a Budget,
    /// Where the first scalar argument stands.
    pub scalar_span: Span,
    /// Where the vector argument stands.
    pub vector_span: Span,
}

/// `histogram_quantile(q, rows)`: the value below which a part `q` of the observations lies.
pub fn histogram_quantile(
    q: &[f64],
    rows: Vec<SeriesRow>,
    context: &Context<'_>,
    notes: &mut Annotations,
) -> Result<Vec<SeriesRow>, QueryError> {
    warn_of_quantiles(q, context.scalar_span, notes);
    let groups = Groups::new(rows, context, notes)?;
    let result = quantile_rows(q, &groups, context, notes, None)?;
    merge_equal(context.budget, result)
}

/// `histogram_quantiles(rows, label, q1, q2, …)`: several quantiles, told apart by a label.
pub fn histogram_quantiles(
    quantiles: &[&[f64]],
    label: &str,
    rows: Vec<SeriesRow>,
    context: &Context<'_>,
    notes: &mut Annotations,
) -> Result<Vec<SeriesRow>, QueryError> {
    super::vector::check_label_name(label, "histogram_quantiles", "destination")?;
    for q in quantiles {
        warn_of_quantiles(q, context.scalar_span, notes);
    }
    let groups = Groups::new(rows, context, notes)?;
    let mut result = Vec::new();
    for q in quantiles {
        result.extend(quantile_rows(q, &groups, context, notes, Some(label))?);
    }
    merge_equal(context.budget, result)
}

/// `histogram_fraction(lower, upper, rows)`: which part of the observations lies between two values.
pub fn histogram_fraction(
    lower: &[f64],
    upper: &[f64],
    rows: Vec<SeriesRow>,
    context: &Context<'_>,
    notes: &mut Annotations,
) -> Result<Vec<SeriesRow>, QueryError> {
    let groups = Groups::new(rows, context, notes)?;
    let mut result = Vec::new();
    for group in &groups.0 {
        context.budget.check()?;
        let name = group.labels.metric_name().unwrap_or_default();
        let mut row = Row::absent(context.steps.count);
        group.each_step(context, |step, observations| {
            row.floats[step] = match observations {
                Observations::Classic(mut buckets) => {
                    classic_fraction(lower[step], upper[step], &mut buckets)
                }
                Observations::Native(histogram) => {
                    let fraction = histogram.fraction(lower[step], upper[step]);
                    if fraction.has_nan {
                        notes.info(annotations::fraction_nan(name), context.vector_span);
                    }
                    fraction.value
                }
            };
        })?;
        push(&mut result, group.labels.clone(), row, context);
    }
    merge_equal(context.budget, result)
}

fn warn_of_quantiles(quantiles: &[f64], span: Span, notes: &mut Annotations) {
    let mut warned = None;
    for q in quantiles {
        if !(0.0..=1.0).contains(q) && warned != Some(q.to_bits()) {
            warned = Some(q.to_bits());
            notes.warn(annotations::invalid_quantile(*q), span);
        }
    }
}

/// One quantile of each group; with a `label`, the quantile becomes its value.
fn quantile_rows(
    q: &[f64],
    groups: &Groups,
    context: &Context<'_>,
    notes: &mut Annotations,
    label: Option<&str>,
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut result = Vec::new();
    for group in &groups.0 {
        context.budget.check()?;
        let name = group.labels.metric_name().unwrap_or_default();
        let mut row = Row::absent(context.steps.count);
        group.each_step(context, |step, observations| {
            row.floats[step] = match observations {
                Observations::Classic(mut buckets) => {
                    let (value, fixed) = classic_quantile(q[step], &mut buckets);
                    if let Some(fixed) = fixed {
                        let at = context.steps.at(step);
                        let fixed = ForcedMonotonicity { first: at, last: at, ..fixed };
                        notes.forced_monotonicity(name, context.vector_span, fixed);
                    }
                    value
                }
                Observations::Native(histogram) => {
                    let quantile = histogram.quantile(q[step]);
                    match quantile.nan {
                        NanEffect::None => {}
                        NanEffect::Skewed => {
                            notes.info(annotations::quantile_nan_skew(name), context.scalar_span);
                        }
                        NanEffect::Result => {
                            notes.info(annotations::quantile_nan_result(name), context.scalar_span);
                        }
                    }
                    quantile.value
                }
            };
        })?;
        let Some(label) = label else {
            push(&mut result, group.labels.clone(), row, context);
            continue;
        };
        // The scalar may change from step to step, and its value is a label: a row for each value.
        let mut parts: Vec<(f64, Row)> = Vec::new();
        let mut places: HashMap<u64, usize> = HashMap::new();
        for (step, (value, result_at)) in q.iter().zip(&row.floats).enumerate() {
            if is_absent(*result_at) {
                continue;
            }
            let place = match places.get(&value.to_bits()) {
                Some(place) => *place,
                None => {
                    context.budget.within(result.len() + parts.len() + 1, context.steps.count)?;
                    places.insert(value.to_bits(), parts.len());
                    parts.push((*value, Row::absent(context.steps.count)));
                    parts.len() - 1
                }
            };
            parts[place].1.floats[step] = *result_at;
        }
        for (value, part) in parts {
            let labels = group.labels.edit().set(label, &format_open_metrics(value)).build();
            push(&mut result, labels, part, context);
        }
    }
    Ok(result)
}

fn push(result: &mut Vec<SeriesRow>, labels: Labels, row: Row, context: &Context<'_>) {
    if !row.is_empty() {
        let labels = if context.delayed_names { labels } else { drop_metadata(&labels) };
        result.push(SeriesRow { labels, drop_name: true, row });
    }
}

/// All series of one histogram.
#[derive(Debug)]
struct Group {
    /// Without `le`.
    labels: Labels,
    /// Bound and counts of the classic buckets.
    buckets: Vec<(f64, Row)>,
    /// Rows with native histograms.
    natives: Vec<Row>,
    /// The steps at which there are both.
    contradictions: Vec<usize>,
}

/// What one histogram holds at one step.
enum Observations<'a> {
    Classic(Vec<Bucket>),
    Native(&'a FloatHistogram),
}

/// The histograms of a vector, in the order in which they come.
#[derive(Debug)]
struct Groups(Vec<Group>);

impl Groups {
    fn new(rows: Vec<SeriesRow>, context: &Context<'_>, notes: &mut Annotations) -> Result<Self, QueryError> {
        let mut groups: Vec<Group> = Vec::new();
        let mut known: HashMap<Labels, usize> = HashMap::new();
        for SeriesRow { labels, drop_name: _, row } in rows {
            context.budget.check()?;
            // A native histogram keeps an `le` it may have; it never meets a classic one then.
            let Row { floats, histograms } = row;
            if !histograms.is_empty() {
                let at = group(&mut groups, &mut known, labels.clone());
                groups[at].natives.push(Row { floats: Vec::new(), histograms });
            }
            if floats.iter().all(|value| is_absent(*value)) {
                continue;
            }
            let text = labels.get(BUCKET_LABEL).unwrap_or_default();
            let Some(bound) = parse_go_float(text) else {
                let name = labels.metric_name().unwrap_or_default();
                notes.warn(annotations::bad_bucket_label(name, text), context.vector_span);
                continue;
            };
            let at = group(&mut groups, &mut known, labels.without(|name| name == BUCKET_LABEL));
            groups[at].buckets.push((bound, Row { floats, histograms: Vec::new() }));
        }
        for group in &mut groups {
            context.budget.check()?;
            group.find_contradictions(context, notes);
        }
        Ok(Self(groups))
    }
}

fn group(groups: &mut Vec<Group>, known: &mut HashMap<Labels, usize>, labels: Labels) -> usize {
    *known.entry(labels).or_insert_with_key(|labels| {
        groups.push(Group {
            labels: labels.clone(),
            buckets: Vec::new(),
            natives: Vec::new(),
            contradictions: Vec::new(),
        });
        groups.len() - 1
    })
}

impl Group {
    fn find_contradictions(&mut self, context: &Context<'_>, notes: &mut Annotations) {
        let mut steps: Vec<usize> = self.natives.iter().flat_map(native_steps).collect();
        steps.retain(|step| self.buckets.iter().any(|(_, row)| !is_absent(row.floats[*step])));
        steps.sort_unstable();
        if !steps.is_empty() {
            let name = self.labels.get(METRIC_NAME).unwrap_or_default();
            notes.warn(annotations::mixed_classic_native(name), context.vector_span);
        }
        self.contradictions = steps;
    }

    /// Hands `each` what there is at every step at which there is something.
    fn each_step<'a>(
        &'a self,
        context: &Context<'_>,
        mut each: impl FnMut(usize, Observations<'a>),
    ) -> Result<(), QueryError> {
        let contradicts = |step: &usize| self.contradictions.binary_search(step).is_ok();
        for row in &self.natives {
            for (at, histogram) in &row.histograms {
                let Ok(step) = usize::try_from(*at) else { continue };
                if step < context.steps.count && !contradicts(&step) {
                    each(step, Observations::Native(histogram));
                }
            }
        }
        if self.buckets.is_empty() {
            return Ok(());
        }
        for step in (0..context.steps.count).filter(|step| !contradicts(step)) {
            // A group may have any number of buckets.
            context.budget.check()?;
            let present = self.buckets.iter().filter(|(_, row)| !is_absent(row.floats[step]));
            let buckets: Vec<Bucket> =
                present.map(|(bound, row)| Bucket { bound: *bound, count: row.floats[step] }).collect();
            if !buckets.is_empty() {
                each(step, Observations::Classic(buckets));
            }
        }
        Ok(())
    }
}

fn native_steps(row: &Row) -> impl Iterator<Item = usize> + '_ {
    row.histograms.iter().filter_map(|(step, _)| usize::try_from(*step).ok())
}

/// A classic bucket: how many observations lie at or below its bound.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    bound: f64,
    count: f64,
}

/// Sorts the buckets and adds up those with one bound; whether they end at `+Inf` as they must.
///
/// Those are added in order of their counts, so that the sum is the same however the series came.
fn prepare(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.bound.total_cmp(&b.bound).then_with(|| a.count.total_cmp(&b.count)));
    if buckets.last().is_none_or(|last| last.bound != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let equal = next.bound == kept.bound;
        if equal {
            kept.count += next.count;
        }
        equal
    });
    true
}

/// The quantile, and what had to be corrected for it (times are not filled in).
fn classic_quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<ForcedMonotonicity>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !prepare(buckets) {
        return (f64::NAN, None);
    }
    let fixed = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let total = buckets[last].count;
    if buckets.len() < 2 || total == 0.0 {
        return (f64::NAN, fixed);
    }
    let mut rank = q * total;
    let at = buckets[..last].iter().position(|bucket| bucket.count >= rank).unwrap_or(last);
    if at == last {
        return (buckets[last - 1].bound, fixed);
    }
    let Bucket { bound: end, mut count } = buckets[at];
    if at == 0 && end <= 0.0 {
        return (end, fixed);
    }
    let mut start = 0.0;
    if at > 0 {
        let Bucket { bound, count: below } = buckets[at - 1];
        start = bound;
        count -= below;
        rank -= below;
    }
    (start + (end - start) * (rank / count), fixed)
}

/// Raises counts that are lower than the one before them; what is more than a rounding error is told.
fn make_monotonic(buckets: &mut [Bucket]) -> Option<ForcedMonotonicity> {
    let mut fixed: Option<ForcedMonotonicity> = None;
    let (first, rest) = buckets.split_first_mut()?;
    let mut before = first.count;
    for Bucket { bound, count } in rest {
        if *count == before {
            continue;
        }
        if nearly_equal(before, *count) {
            *count = before;
        } else if *count < before {
            let one = ForcedMonotonicity {
                min_bucket: *bound,
                max_bucket: *bound,
                max_difference: before - *count,
                samples: 1,
                first: 0,
                last: 0,
            };
            // However many of its buckets are wrong, it is one sample.
            fixed = Some(fixed.map_or(one, |sum| ForcedMonotonicity { samples: 1, ..sum.union(one) }));
            *count = before;
        } else {
            before = *count;
        }
    }
    fixed
}

fn nearly_equal(a: f64, b: f64) -> bool {
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < ROUNDING * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < ROUNDING
}

fn classic_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !prepare(buckets) {
        return f64::NAN;
    }
    let total = buckets.last().map_or(0.0, |last| last.count);
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let (mut rank, mut lower_rank, mut upper_rank) = (0.0, None, None);
    let mut begin = if buckets[0].bound > 0.0 { 0.0 } else { f64::NEG_INFINITY };
    for Bucket { bound, count } in buckets.iter() {
        let rank_of = |value: f64| {
            if begin >= value {
                Some(rank)
            } else if *bound > value {
                // Within an infinite bucket there is nothing to go by.
                Some(if begin == f64::NEG_INFINITY {
                    *count
                } else {
                    rank + (count - rank) * (value - begin) / (bound - begin)
                })
            } else {
                None
            }
        };
        lower_rank = lower_rank.or_else(|| rank_of(lower));
        upper_rank = upper_rank.or_else(|| rank_of(upper));
        (rank, begin) = (*count, *bound);
    }
    let capped = |rank: Option<f64>| rank.map_or(total, |rank| if rank > total { total } else { rank });
    (capped(upper_rank) - capped(lower_rank)) / total
}

#[cfg(test)]
mod tests;
