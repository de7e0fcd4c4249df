//! `quantile_over_time` and `mad_over_time`, and the quantile that aggregations use too.

use std::cmp::Ordering;

use super::{RangeInput, Remarks, ordered::Ordered, window};
use crate::promql::{
    annotations::{self, Annotations},
    exec::rows::Row,
};

/// The value at part `q` of the sorted values, between two of them in proportion.
///
/// NaN sorts lowest. `values` are left in another order. No values, or a NaN `q`, give NaN; a `q` outside 0..=1 an infinity.
pub fn quantile(q: f64, values: &mut [f64]) -> f64 {
    let (lower, weight) = match rank(q, values.len()) {
        Ok(rank) => rank,
        Err(beyond) => return beyond,
    };
    // Only two neighbours of the sorted order are needed: the one at the rank, and the least after it.
    let (_, low, above) = values.select_nth_unstable_by(lower, nan_first);
    let low = *low;
    let high = above.iter().copied().min_by(nan_first).unwrap_or(low);
    low * (1.0 - weight) + high * weight
}

/// The place at part `q` of so many sorted values, and how far it is from there to the next; or what the quantile
/// is without looking.
fn rank(q: f64, count: usize) -> Result<(usize, f64), f64> {
    if count == 0 || q.is_nan() {
        return Err(f64::NAN);
    }
    if q < 0.0 {
        return Err(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return Err(f64::INFINITY);
    }
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^53 values")]
    let rank = q * (count - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the rank is between 0 and the number of values"
    )]
    let lower = (rank.floor() as usize).min(count - 1);
    Ok((lower, rank - rank.floor()))
}

/// The order of values; those that are equal but not the same are told apart, so that there is one order only.
pub(super) fn nan_first(a: &f64, b: &f64) -> Ordering {
    let by_value = a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()));
    by_value.then_with(|| a.total_cmp(b))
}

/// How often a sample has to be in windows for it to be quicker to keep the samples in order than to put those of
/// each window in order.
const OFTEN: u64 = 24;

/// The samples in order, if that is worth it.
fn in_order<'a>(input: &RangeInput<'a>) -> Option<Ordered<'a>> {
    let samples = u64::try_from(input.values.len()).unwrap_or(u64::MAX);
    let often = input.frame.samples() > samples.saturating_mul(OFTEN);
    often.then(|| Ordered::new(input.values))
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
    let mut ordered = in_order(input);
    window::for_each(input, |step, window| {
        if !remarks.floats_of(&window, 1) {
            return;
        }
        let q = q_at(step);
        if !(0.0..=1.0).contains(&q) && warned != Some(q.to_bits()) {
            warned = Some(q.to_bits());
            notes.warn(annotations::invalid_quantile(q), input.param_span);
        }
        if let Some(ordered) = &mut ordered {
            ordered.move_to(window.first, window.first + window.values.len());
            out.floats[step] = match rank(q, window.values.len()) {
                Ok((lower, weight)) => {
                    let (low, high) = ordered.at_and_after(lower);
                    low * (1.0 - weight) + high * weight
                }
                Err(beyond) => beyond,
            };
            return;
        }
        values.clear();
        values.extend_from_slice(window.values);
        out.floats[step] = quantile(q, &mut values);
    });
}

/// The median of the distances from the median; NaN if any value is.
pub(super) fn mad(input: &RangeInput<'_>, out: &mut Row, remarks: &mut Remarks) {
    let mut values = Vec::new();
    let mut ordered = in_order(input);
    window::for_each(input, |step, window| {
        if !remarks.floats_of(&window, 1) {
            return;
        }
        if let Some(ordered) = &mut ordered {
            let count = window.values.len();
            ordered.move_to(window.first, window.first + count);
            if let Some(deviation) = median_deviation(ordered, count) {
                out.floats[step] = deviation;
                return;
            }
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

/// The median of the distances of so many values from their median; none where distances cannot be told.
///
/// The values below the median are the further away the earlier they come in order, those above it the later: the
/// distances are two lists in order, and a search tells how many of each are among the lesser half.
fn median_deviation(values: &Ordered<'_>, count: usize) -> Option<f64> {
    let (middle, weight) = rank(0.5, count).ok()?;
    let between = |low: f64, high: f64| low * (1.0 - weight) + high * weight;
    let (low, high) = values.at_and_after(middle);
    let median = between(low, high);
    let value = |place: usize| values.at_and_after(place).0;
    // If there is a NaN, it is the first.
    if !median.is_finite() || value(0).is_nan() {
        return None;
    }
    let below = first(0, count, |place| value(place) >= median);
    let above = count - below;
    let left = |i: usize| (value(below - 1 - i) - median).abs();
    let right = |i: usize| (value(below + i) - median).abs();

    let half = middle + 1;
    let from_left = first(half.saturating_sub(above), half.min(below), |i| right(half - i - 1) <= left(i));
    let from_right = half - from_left;
    let last = |taken: usize, of: &dyn Fn(usize) -> f64| taken.checked_sub(1).map(of);
    let next = |taken: usize, all: usize, of: &dyn Fn(usize) -> f64| (taken < all).then(|| of(taken));
    let low = last(from_left, &left).into_iter().chain(last(from_right, &right)).reduce(f64::max)?;
    let high = next(from_left, below, &left).into_iter().chain(next(from_right, above, &right));
    Some(between(low, high.reduce(f64::min).unwrap_or(low)))
}

/// The first number from `low` on for which something holds that holds for all after it; `high` if there is none
/// before it.
fn first(mut low: usize, mut high: usize, holds: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
