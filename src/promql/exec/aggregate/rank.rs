//! `topk`, `bottomk`, `limitk`, `limit_ratio`: series picked by value, by order, or by the hash of their labels.

use xxhash_rust::xxh64::xxh64;

use super::{group::Groups, histogram_ignored};
use crate::{
    model::Labels,
    promql::{
        QueryError,
        annotations::{self, Annotations},
        exec::{
            context::Context,
            rows::{ABSENT, Row, SeriesRow, Steps, is_absent},
        },
        go_float::format_g,
        parse::AggregateOp,
        plan::Aggregation,
    },
};

/// The `k` of every step; none if no step picks anything.
pub fn counts(param: &[f64]) -> Result<Option<Vec<usize>>, QueryError> {
    if param.iter().any(|k| k.is_nan()) {
        return Err(QueryError::Execution("Parameter value is NaN".to_owned()));
    }
    if !param.iter().any(|k| *k >= 1.0) {
        return Ok(None);
    }
    // 2^63, the first that an int64 does not hold.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    for k in param {
        let what = if *k >= BEYOND { "overflows" } else { "underflows" };
        if *k >= BEYOND || *k < -BEYOND {
            return Err(QueryError::Execution(format!("Scalar value {} {what} int64", format_g(*k))));
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "cut off on purpose, above zero"
    )]
    Ok(Some(param.iter().map(|k| k.max(0.0) as usize).collect()))
}

/// The ratio of every step, brought to −1..=1; none if all are 0.
pub fn ratios(
    param: &[f64],
    aggregation: &Aggregation,
    notes: &mut Annotations,
) -> Result<Option<Vec<f64>>, QueryError> {
    if param.iter().any(|r| r.is_nan()) {
        return Err(QueryError::Execution("Ratio value is NaN".to_owned()));
    }
    if param.iter().all(|r| *r == 0.0) {
        return Ok(None);
    }
    let greatest = param.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = param.iter().copied().fold(f64::INFINITY, f64::min);
    if greatest > 1.0 {
        notes.warn(annotations::invalid_ratio(greatest, 1.0), aggregation.param_span);
    }
    if least < -1.0 {
        notes.warn(annotations::invalid_ratio(least, -1.0), aggregation.param_span);
    }
    Ok(Some(param.iter().map(|r| r.clamp(-1.0, 1.0)).collect()))
}

/// Keeps the `k` first of each group by the aggregation's order.
pub fn pick(
    context: &Context,
    aggregation: &Aggregation,
    groups: &Groups,
    rows: Vec<SeriesRow>,
    k: &[usize],
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut picked: Vec<Row> = rows.iter().map(|_| Row::default()).collect();
    // Best first, for the order of an instant query's result.
    let mut order = Vec::new();
    let by_value = aggregation.op != AggregateOp::Limitk;
    let better = |a: f64, b: f64| if aggregation.op == AggregateOp::Bottomk { a < b } else { a > b };
    let mut candidates: Vec<(f64, usize)> = Vec::new();
    for group in &groups.all {
        if by_value && group.members.iter().any(|member| !rows[*member].row.histograms.is_empty()) {
            histogram_ignored(aggregation, notes);
        }
        for step in 0..steps.count {
            context.check()?;
            let k = k.get(step).copied().unwrap_or(0);
            if k == 0 {
                continue;
            }
            candidates.clear();
            for member in &group.members {
                let row = &rows[*member].row;
                let present = !is_absent(row.floats[step]) || !by_value && row.histogram(step).is_some();
                if present {
                    candidates.push((row.floats[step], *member));
                    if !by_value && candidates.len() == k {
                        break;
                    }
                }
            }
            if by_value {
                // NaN is worst; of equals the one seen first is better.
                let compare = |a: &(f64, usize), b: &(f64, usize)| {
                    let by_nan = a.0.is_nan().cmp(&b.0.is_nan());
                    by_nan.then(better(b.0, a.0).cmp(&better(a.0, b.0))).then(a.1.cmp(&b.1))
                };
                if k < candidates.len() {
                    candidates.select_nth_unstable_by(k - 1, compare);
                    candidates.truncate(k);
                }
                candidates.sort_unstable_by(compare);
            }
            for (value, member) in &candidates {
                let into = &mut picked[*member];
                if into.floats.is_empty() {
                    into.floats = vec![ABSENT; steps.count];
                    order.push(*member);
                }
                into.floats[step] = *value;
                if let Some(histogram) = rows[*member].row.histogram(step) {
                    into.histograms
                        .push((u32::try_from(step).unwrap_or(u32::MAX), std::sync::Arc::clone(histogram)));
                }
            }
        }
    }
    let mut rows: Vec<Option<SeriesRow>> = rows.into_iter().map(Some).collect();
    let picked = order.into_iter().filter_map(|member| {
        let row = rows[member].take()?;
        Some(SeriesRow { row: std::mem::take(&mut picked[member]), ..row })
    });
    Ok(picked.collect())
}

/// Keeps those series whose hash is below the ratio, or, with a negative ratio, the others.
pub fn sample(
    context: &Context,
    groups: &Groups,
    rows: Vec<SeriesRow>,
    ratios: &[f64],
) -> Result<Vec<SeriesRow>, QueryError> {
    let mut rows: Vec<Option<SeriesRow>> = rows.into_iter().map(Some).collect();
    let mut sampled = Vec::new();
    for member in groups.all.iter().flat_map(|group| &group.members) {
        context.check()?;
        let Some(mut row) = rows[*member].take() else { continue };
        let offset = place_in_sample(&row.labels);
        let taken = |step: usize| {
            let ratio = ratios.get(step).copied().unwrap_or(0.0);
            if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
        };
        for (step, value) in row.row.floats.iter_mut().enumerate() {
            if !taken(step) {
                *value = ABSENT;
            }
        }
        row.row.histograms.retain(|(step, _)| usize::try_from(*step).is_ok_and(taken));
        if !row.row.is_empty() {
            sampled.push(row);
        }
    }
    Ok(sampled)
}

/// Where between 0 and 1 a series lies: the hash over its labels as Prometheus lays them out.
#[expect(clippy::cast_precision_loss, reason = "a share of 2^64 needs no more than a float's 53 bits")]
fn place_in_sample(labels: &Labels) -> f64 {
    let mut bytes = Vec::with_capacity(labels.as_canonical().len());
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        match u8::try_from(text.len()) {
            Ok(length) if length < u8::MAX => bytes.push(length),
            _ => {
                bytes.push(u8::MAX);
                bytes.extend(text.len().to_le_bytes().into_iter().take(3));
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    xxh64(&bytes, 0) as f64 / u64::MAX as f64
}
