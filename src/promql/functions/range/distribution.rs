//! `quantile_over_time` and `mad_over_time`, and the quantile that aggregations use too.

use std::cmp::Ordering;

use super::{RangeInput, Remarks, window};
use crate::promql::{
    annotations::{self, Annotations},
    exec::rows::Row,
};

/// The value at part `q` of the sorted values, between two of them in proportion.
///
/// NaN sorts lowest. `values` are left in another order. No values, or a NaN `q`, give NaN; a `q` outside 0..=1 an infinity.
pub fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^53 values")]
    let rank = q * (values.len() - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the rank is between 0 and the number of values"
    )]
    let lower = (rank.floor() as usize).min(values.len() - 1);
    let weight = rank - rank.floor();
    // Only two neighbours of the sorted order are needed: the one at the rank, and the least after it.
    let (_, low, above) = values.select_nth_unstable_by(lower, nan_first);
    let low = *low;
    let high = above.iter().copied().min_by(nan_first).unwrap_or(low);
    low * (1.0 - weight) + high * weight
}

fn nan_first(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

pub(super) fn quantile_over_time(
    input: &RangeInput<'_>,
    out: &mut Row,
    remarks: &mut Remarks,
    notes: &mut Annotations,
) {
    let q_at = |step: usize| input.params.first().and_then(|q| q.get(step)).copied().unwrap_or(f64::NAN);
    let mut warned: Option<u64> = None;
    let mut values = Vec::new();
    window::for_each(input, |step, window| {
        if !remarks.floats_of(&window, 1) {
            return;
        }
        let q = q_at(step);
        if !(0.0..=1.0).contains(&q) && warned != Some(q.to_bits()) {
            warned = Some(q.to_bits());
            notes.warn(annotations::invalid_quantile(q), input.param_span);
        }
        values.clear();
        values.extend_from_slice(window.values);
        out.floats[step] = quantile(q, &mut values);
    });
}

/// The median of the distances from the median; NaN if any value is.
pub(super) fn mad(input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    let mut values = Vec::new();
    window::for_each(input, |step, window| {
        if !remarks.floats_of(&window, 1) {
            return;
        }
        if window.values.iter().any(|value| value.is_nan()) {
            out.floats[step] = f64::NAN;
            return;
        }
        values.clear();
        values.extend_from_slice(window.values);
        let median = quantile(0.5, &mut values);
        values.iter_mut().for_each(|value| *value = (*value - median).abs());
        out.floats[step] = quantile(0.5, &mut values);
    });
}
