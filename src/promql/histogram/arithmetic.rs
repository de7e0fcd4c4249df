//! Sums, differences and multiples of histograms.
//!
//! Two histograms can be joined if both are exponential or both have custom buckets. Exponential ones
//! are brought to the coarser schema and the wider zero bucket of the two, which then swallows the
//! buckets inside it; custom ones to the bounds that both have. A [`HistogramSum`] does all of it, with
//! a compensated sum per bucket; a plain addition is a sum of two.

use std::{cmp::Ordering, sync::Arc};

use super::{FloatHistogram, exponential_bound, spans_of};
use crate::{
    model::histogram::{CUSTOM_BUCKETS_SCHEMA, ResetHint},
    promql::functions::neumaier::Neumaier,
};

/// Why two histograms cannot be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// One is exponential, the other has custom buckets.
    #[error("cannot join histograms with exponential and custom buckets")]
    Schemas,
}

/// What was noticed while joining two histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// One said that there was a reset, the other that there was none.
    pub reset_collision: bool,
    /// Custom buckets had different bounds.
    pub bounds_reconciled: bool,
}

/// A sum of histograms in the making.
#[derive(Clone, Debug)]
pub struct HistogramSum {
    schema: i32,
    zero_threshold: f64,
    custom_values: Arc<[f64]>,
    reset_hint: ResetHint,
    zero_count: Neumaier,
    count: Neumaier,
    sum: Neumaier,
    /// Sorted by index.
    positive: Vec<(i32, Neumaier)>,
    negative: Vec<(i32, Neumaier)>,
}

/// A mean of histograms in the making.
///
/// It divides the sum as long as the sum is finite, and goes on with the mean so far when it would not be.
#[derive(Clone, Debug)]
pub struct HistogramMean {
    /// The sum, or the mean once `incremental`.
    sum: HistogramSum,
    count: f64,
    incremental: bool,
}

impl FloatHistogram {
    /// Adds another histogram; on a mismatch nothing has changed.
    pub fn add(&mut self, other: &Self) -> Result<Joined, Mismatch> {
        let mut sum = HistogramSum::new(self);
        let joined = sum.add(other)?;
        *self = sum.uncorrected();
        Ok(joined)
    }

    /// Takes another histogram away; on a mismatch nothing has changed.
    pub fn sub(&mut self, other: &Self) -> Result<Joined, Mismatch> {
        let mut sum = HistogramSum::new(self);
        let joined = sum.subtract(other)?;
        *self = sum.uncorrected();
        Ok(joined)
    }

    /// Multiplies all counts and the sum; a negative factor makes it a gauge.
    pub fn mul(&mut self, factor: f64) {
        self.each_number(|number| *number *= factor);
        if factor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    /// Divides all counts and the sum; a negative divisor makes it a gauge, and zero leaves no buckets.
    pub fn div(&mut self, divisor: f64) {
        self.each_number(|number| *number /= divisor);
        if divisor == 0.0 {
            for buckets in [&mut self.positive_buckets, &mut self.negative_buckets] {
                buckets.clear();
            }
            self.positive_spans.clear();
            self.negative_spans.clear();
        }
        if divisor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    fn each_number(&mut self, change: impl Fn(&mut f64)) {
        change(&mut self.zero_count);
        change(&mut self.count);
        change(&mut self.sum);
        self.positive_buckets.iter_mut().chain(&mut self.negative_buckets).for_each(change);
    }

    /// Takes out empty buckets.
    pub fn compact(&mut self) {
        let (spans, buckets) = spans_of(self.positive());
        (self.positive_spans, self.positive_buckets) = (spans, buckets);
        let (spans, buckets) = spans_of(self.negative());
        (self.negative_spans, self.negative_buckets) = (spans, buckets);
    }

    /// The same histogram at a coarser schema; as it is if it is not finer than that.
    #[must_use]
    pub fn at_schema(&self, schema: i32) -> Self {
        let mut coarse = self.clone();
        if !self.uses_custom_buckets() && self.schema > schema {
            let levels = self.schema.abs_diff(schema);
            let add = |sum: &mut f64, more: f64| *sum += more;
            let (spans, buckets) = spans_of(coarser(self.positive(), levels, add));
            (coarse.positive_spans, coarse.positive_buckets) = (spans, buckets);
            let (spans, buckets) = spans_of(coarser(self.negative(), levels, add));
            (coarse.negative_spans, coarse.negative_buckets) = (spans, buckets);
            coarse.schema = schema;
        }
        coarse
    }

    /// What a zero bucket as wide as `wanted` would hold, and how wide it really has to be so that no
    /// filled bucket lies across its edge.
    pub(super) fn zero_count_within(&self, wanted: f64) -> (f64, f64) {
        if wanted == self.zero_threshold {
            return (self.zero_count, wanted);
        }
        let threshold = covering_threshold(self.schema, wanted, self.positive(), self.negative());
        let inside = |(index, _): &(i32, f64)| exponential_bound(*index, self.schema) <= threshold;
        let swallowed = self.positive().filter(inside).chain(self.negative().filter(inside));
        (swallowed.fold(self.zero_count, |sum, (_, count)| sum + count), threshold)
    }

    /// The custom bounds that both histograms have.
    pub(super) fn common_bounds(&self, other: &Self) -> Arc<[f64]> {
        common_bounds(&self.custom_values, &other.custom_values)
    }

    /// The custom buckets within coarser bounds.
    pub(super) fn rebucketed(&self, bounds: &[f64]) -> Vec<(i32, f64)> {
        rebucketed(self.positive(), &self.custom_values, bounds, |sum, more| *sum += more)
    }
}

impl HistogramSum {
    /// Starts from one histogram.
    pub fn new(first: &FloatHistogram) -> Self {
        let tally = |(index, count): (i32, f64)| (index, Neumaier::from(count));
        Self {
            schema: first.schema,
            zero_threshold: first.zero_threshold,
            custom_values: Arc::clone(&first.custom_values),
            reset_hint: first.reset_hint,
            zero_count: Neumaier::from(first.zero_count),
            count: Neumaier::from(first.count),
            sum: Neumaier::from(first.sum),
            positive: first.positive().map(tally).collect(),
            negative: first.negative().map(tally).collect(),
        }
    }

    /// Adds a histogram; on a mismatch nothing has changed.
    pub fn add(&mut self, other: &FloatHistogram) -> Result<Joined, Mismatch> {
        self.join(other, 1.0)
    }

    /// Takes a histogram away; on a mismatch nothing has changed.
    pub fn subtract(&mut self, other: &FloatHistogram) -> Result<Joined, Mismatch> {
        self.join(other, -1.0)
    }

    /// The sum, rounding errors put right.
    pub fn corrected(&self) -> FloatHistogram {
        self.build(|number| number.corrected())
    }

    /// The sum as plain additions give it.
    pub fn uncorrected(&self) -> FloatHistogram {
        self.build(|number| number.sum)
    }

    fn build(&self, value: impl Fn(&Neumaier) -> f64) -> FloatHistogram {
        let pairs =
            |tallies: &[(i32, Neumaier)]| spans_of(tallies.iter().map(|(i, tally)| (*i, value(tally))));
        let (positive_spans, positive_buckets) = pairs(&self.positive);
        let (negative_spans, negative_buckets) = pairs(&self.negative);
        FloatHistogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: value(&self.zero_count),
            count: value(&self.count),
            sum: value(&self.sum),
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: Arc::clone(&self.custom_values),
            reset_hint: self.reset_hint,
        }
    }

    fn join(&mut self, other: &FloatHistogram, sign: f64) -> Result<Joined, Mismatch> {
        let custom = self.schema == CUSTOM_BUCKETS_SCHEMA;
        if custom != other.uses_custom_buckets() {
            return Err(Mismatch::Schemas);
        }
        let mut joined = Joined::default();
        (self.reset_hint, joined.reset_collision) = joint_hint(self.reset_hint, other.reset_hint);
        let signed = |(index, count): (i32, f64)| (index, sign * count);
        if custom {
            if self.custom_values == other.custom_values {
                merge(&mut self.positive, other.positive().map(signed));
            } else {
                joined.bounds_reconciled = true;
                let bounds = common_bounds(&self.custom_values, &other.custom_values);
                let own = std::mem::take(&mut self.positive);
                self.positive = rebucketed(own.into_iter(), &self.custom_values, &bounds, Neumaier::merge);
                merge(&mut self.positive, other.rebucketed(&bounds).into_iter().map(signed));
                self.custom_values = bounds;
            }
        } else {
            let zero_count = self.widen_zero_bucket(other);
            self.zero_count.add(sign * zero_count);
            let schema = self.schema.min(other.schema);
            self.coarsen(schema);
            let levels = other.schema.abs_diff(schema);
            let outside = |(index, _): &(i32, f64)| other.bound(*index) > self.zero_threshold;
            let add = |sum: &mut f64, more: f64| *sum += more;
            let positive = coarser(other.positive().filter(outside), levels, add);
            let negative = coarser(other.negative().filter(outside), levels, add);
            merge(&mut self.positive, positive.into_iter().map(signed));
            merge(&mut self.negative, negative.into_iter().map(signed));
        }
        self.count.add(sign * other.count);
        self.sum.add(sign * other.sum);
        Ok(joined)
    }

    /// Widens the zero bucket until it suits `other` too; what `other` has within it is returned.
    fn widen_zero_bucket(&mut self, other: &FloatHistogram) -> f64 {
        let mut threshold = self.zero_threshold.max(other.zero_threshold);
        let (zero_count, threshold) = loop {
            let own = if threshold == self.zero_threshold {
                threshold
            } else {
                let plain = |(index, tally): &(i32, Neumaier)| (*index, tally.corrected());
                let (positive, negative) = (self.positive.iter().map(plain), self.negative.iter().map(plain));
                covering_threshold(self.schema, threshold, positive, negative)
            };
            let (zero_count, both) = other.zero_count_within(own);
            // Also the end if the threshold is no number.
            if both.partial_cmp(&own) != Some(Ordering::Greater) {
                break (zero_count, own);
            }
            threshold = both;
        };
        if threshold != self.zero_threshold {
            let schema = self.schema;
            for buckets in [&mut self.positive, &mut self.negative] {
                buckets.retain(|(index, tally)| {
                    let inside = exponential_bound(*index, schema) <= threshold;
                    if inside {
                        self.zero_count.merge(*tally);
                    }
                    !inside
                });
            }
            self.zero_threshold = threshold;
        }
        zero_count
    }

    fn coarsen(&mut self, schema: i32) {
        if self.schema > schema {
            let levels = self.schema.abs_diff(schema);
            for buckets in [&mut self.positive, &mut self.negative] {
                let fine = std::mem::take(buckets);
                *buckets = coarser(fine.into_iter(), levels, Neumaier::merge);
            }
            self.schema = schema;
        }
    }

    fn scale(&mut self, factor: f64) {
        for number in [&mut self.zero_count, &mut self.count, &mut self.sum] {
            number.scale(factor);
        }
        for (_, number) in self.positive.iter_mut().chain(&mut self.negative) {
            number.scale(factor);
        }
    }

    fn has_overflow(&self) -> bool {
        let buckets = self.positive.iter().chain(&self.negative).map(|(_, number)| number);
        [&self.zero_count, &self.count, &self.sum].into_iter().chain(buckets).any(|n| n.sum.is_infinite())
    }
}

impl HistogramMean {
    /// Starts from one histogram.
    pub fn new(first: &FloatHistogram) -> Self {
        Self { sum: HistogramSum::new(first), count: 1.0, incremental: false }
    }

    /// Takes one more histogram into the mean; on a mismatch nothing has changed.
    pub fn add(&mut self, other: &FloatHistogram) -> Result<Joined, Mismatch> {
        if !self.incremental {
            let mut sum = self.sum.clone();
            let joined = sum.add(other)?;
            if !sum.has_overflow() {
                (self.sum, self.count) = (sum, self.count + 1.0);
                return Ok(joined);
            }
            self.sum.scale(1.0 / self.count);
            self.incremental = true;
        }
        let count = self.count + 1.0;
        let mut mean = self.sum.clone();
        mean.scale((count - 1.0) / count);
        let mut part = other.clone();
        part.div(count);
        let joined = mean.add(&part)?;
        (self.sum, self.count) = (mean, count);
        Ok(joined)
    }

    /// The mean.
    pub fn corrected(&self) -> FloatHistogram {
        if self.incremental {
            return self.sum.corrected();
        }
        self.sum.build(|number| number.sum / self.count + number.compensation / self.count)
    }
}

/// The hint of two histograms together, and whether they contradict each other.
fn joint_hint(a: ResetHint, b: ResetHint) -> (ResetHint, bool) {
    match (a, b) {
        _ if a == b => (a, false),
        (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => (ResetHint::Gauge, false),
        (ResetHint::Unknown, _) | (_, ResetHint::Unknown) => (ResetHint::Unknown, false),
        (ResetHint::Yes | ResetHint::No, _) => (ResetHint::Unknown, true),
    }
}

/// The smallest threshold from `wanted` on that no filled bucket lies across.
fn covering_threshold(
    schema: i32,
    wanted: f64,
    positive: impl Iterator<Item = (i32, f64)> + Clone,
    negative: impl Iterator<Item = (i32, f64)> + Clone,
) -> f64 {
    let mut threshold = wanted;
    loop {
        let across = positive.clone().chain(negative.clone()).find_map(|(index, count)| {
            let lower = exponential_bound(index.saturating_sub(1), schema);
            let upper = exponential_bound(index, schema);
            (count != 0.0 && lower < threshold && threshold < upper).then_some(upper)
        });
        match across {
            Some(upper) => threshold = upper,
            None => return threshold,
        }
    }
}

/// Buckets at a schema that is `levels` coarser.
fn coarser<T>(fine: impl Iterator<Item = (i32, T)>, levels: u32, join: impl Fn(&mut T, T)) -> Vec<(i32, T)> {
    let mut coarse: Vec<(i32, T)> = Vec::new();
    for (index, count) in fine {
        let index = ((i64::from(index) - 1) >> levels.min(62)) + 1;
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        push(&mut coarse, index, count, &join);
    }
    coarse
}

/// Custom buckets within other bounds, all of which are among the old ones.
fn rebucketed<T>(
    buckets: impl Iterator<Item = (i32, T)>,
    old: &[f64],
    new: &[f64],
    join: impl Fn(&mut T, T),
) -> Vec<(i32, T)> {
    let mut result: Vec<(i32, T)> = Vec::new();
    for (index, count) in buckets {
        let bound = usize::try_from(index).ok().and_then(|i| old.get(i));
        let place = bound.map_or(new.len(), |bound| new.partition_point(|b| b < bound));
        push(&mut result, i32::try_from(place).unwrap_or(i32::MAX), count, &join);
    }
    result
}

fn push<T>(buckets: &mut Vec<(i32, T)>, index: i32, count: T, join: &impl Fn(&mut T, T)) {
    match buckets.last_mut() {
        Some((last, sum)) if *last == index => join(sum, count),
        Some(_) | None => buckets.push((index, count)),
    }
}

fn common_bounds(a: &[f64], b: &[f64]) -> Arc<[f64]> {
    a.iter().copied().filter(|bound| b.contains(bound)).collect()
}

/// Adds sorted buckets to sorted tallies.
fn merge(into: &mut Vec<(i32, Neumaier)>, buckets: impl Iterator<Item = (i32, f64)>) {
    let mut at = 0;
    let mut missing = Vec::new();
    for (index, count) in buckets {
        while into.get(at).is_some_and(|(i, _)| *i < index) {
            at += 1;
        }
        match into.get_mut(at) {
            Some((i, tally)) if *i == index => tally.add(count),
            Some(_) | None => missing.push((index, Neumaier::from(count))),
        }
    }
    if !missing.is_empty() {
        into.extend(missing);
        into.sort_by_key(|(index, _)| *index);
    }
}
