//! Native histograms as PromQL computes with them: every count a float, every bucket absolute.
//!
//! ```text
//!   negative buckets        zero bucket        positive buckets
//! … [-4,-2) [-2,-1)   [-threshold, threshold]   (1,2] (2,4] …
//! ```
//!
//! With an exponential schema `s`, positive bucket `i` ends at `2^(i / 2^s)` and begins where bucket
//! `i-1` ends; negative buckets mirror them. With custom buckets (schema −53) bucket `i` ends at
//! `custom_values[i]`, the last one at `+Inf`, and there are no negative and no zero bucket.
//!
//! Which buckets there are is kept as in storage, as spans, because most histograms are only passed on.
//! Whoever computes asks for pairs of index and count ([`FloatHistogram::positive`]), and results are
//! put together from such pairs, without empty buckets.
//!
//! * [`arithmetic`]: sums, differences, factors, and what brings two histograms to one layout
//! * [`reset`]: whether a counter started again
//! * [`quantile`]: quantiles, fractions, means and deviations
//! * [`trim`]: what remains below or above a limit

pub mod arithmetic;
pub mod quantile;
pub mod reset;
pub mod trim;

use std::{fmt, sync::Arc};

use crate::{
    model::{
        Histogram,
        histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, ResetHint, Span},
        is_stale,
    },
    promql::go_float::{format_g, scale_by_power_of_two},
};

pub use arithmetic::{HistogramMean, HistogramSum, Joined, Mismatch};

/// A native histogram with absolute float counts.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatHistogram {
    /// Resolution, or −53 for custom buckets.
    pub schema: i32,
    /// Half the width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations, NaN included.
    pub count: f64,
    /// Sum of all observations.
    pub sum: f64,
    /// Where the positive buckets lie.
    pub positive_spans: Vec<Span>,
    /// Where the negative buckets lie.
    pub negative_spans: Vec<Span>,
    /// The positive buckets.
    pub positive_buckets: Vec<f64>,
    /// The negative buckets, from zero outwards.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of custom buckets, without `+Inf`.
    pub custom_values: Arc<[f64]>,
    /// What is known about a reset before this histogram.
    pub reset_hint: ResetHint,
}

/// An empty histogram of schema 0.
impl Default for FloatHistogram {
    fn default() -> Self {
        Self {
            schema: 0,
            zero_threshold: 0.0,
            zero_count: 0.0,
            count: 0.0,
            sum: 0.0,
            positive_spans: Vec::new(),
            negative_spans: Vec::new(),
            positive_buckets: Vec::new(),
            negative_buckets: Vec::new(),
            custom_values: Arc::from([]),
            reset_hint: ResetHint::Unknown,
        }
    }
}

/// One bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Where it begins.
    pub lower: f64,
    /// Where it ends.
    pub upper: f64,
    /// Whether `lower` belongs to it.
    pub lower_inclusive: bool,
    /// Whether `upper` belongs to it.
    pub upper_inclusive: bool,
    /// How many observations it holds.
    pub count: f64,
}

impl Bucket {
    /// The API's number for which bounds belong to the bucket.
    pub fn boundary_rule(&self) -> u8 {
        match (self.lower_inclusive, self.upper_inclusive) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        }
    }
}

/// `(1,2]:3`
impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.lower_inclusive { '[' } else { '(' };
        let close = if self.upper_inclusive { ']' } else { ')' };
        let (lower, upper, count) = (format_g(self.lower), format_g(self.upper), format_g(self.count));
        write!(f, "{open}{lower},{upper}{close}:{count}")
    }
}

impl FloatHistogram {
    /// Takes a stored histogram over.
    ///
    /// Integer buckets are summed up from their differences in integers and become floats one by one.
    pub fn from_histogram(stored: &Histogram) -> Self {
        let (count, zero_count, positive_buckets, negative_buckets) = match &stored.counts {
            Counts::Integer { count, zero_count, positive, negative } => {
                (whole(*count), whole(*zero_count), absolute(positive), absolute(negative))
            }
            Counts::Float { count, zero_count, positive, negative } => {
                (*count, *zero_count, positive.clone(), negative.clone())
            }
        };
        Self {
            schema: stored.schema,
            zero_threshold: stored.zero_threshold,
            zero_count,
            count,
            sum: stored.sum,
            positive_spans: stored.positive_spans.clone(),
            negative_spans: stored.negative_spans.clone(),
            positive_buckets,
            negative_buckets,
            custom_values: Arc::from(stored.custom_values.as_slice()),
            reset_hint: stored.reset_hint,
        }
    }

    /// Whether this is the stale marker.
    pub fn is_stale(&self) -> bool {
        is_stale(self.sum)
    }

    /// Whether the buckets have custom bounds.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// What the histogram counts as against a limit on samples.
    pub fn size_in_samples(&self) -> u64 {
        const FIXED_BYTES: usize = 160;
        let words = self.positive_spans.len()
            + self.negative_spans.len()
            + self.positive_buckets.len()
            + self.negative_buckets.len()
            + self.custom_values.len();
        u64::try_from((FIXED_BYTES + 8 * words + 8) / 16).unwrap_or(u64::MAX)
    }

    /// Index and count of the positive buckets, in order of their indices.
    pub fn positive(&self) -> impl Iterator<Item = (i32, f64)> + Clone {
        indexed(&self.positive_spans, &self.positive_buckets)
    }

    /// Index and count of the negative buckets, from zero outwards.
    pub fn negative(&self) -> impl Iterator<Item = (i32, f64)> + Clone {
        indexed(&self.negative_spans, &self.negative_buckets)
    }

    /// Where bucket `index` ends, seen from zero; it begins where the one before it ends.
    pub fn bound(&self, index: i32) -> f64 {
        if self.uses_custom_buckets() {
            match usize::try_from(index) {
                Err(_) => f64::NEG_INFINITY,
                Ok(i) => self.custom_values.get(i).copied().unwrap_or(f64::INFINITY),
            }
        } else {
            exponential_bound(index, self.schema)
        }
    }

    /// Positive bucket `index` with its bounds.
    pub fn positive_bucket(&self, index: i32, count: f64) -> Bucket {
        let (lower, upper) = (self.bound(index.saturating_sub(1)), self.bound(index));
        let lower_inclusive = self.uses_custom_buckets() && index == 0;
        Bucket { lower, upper, lower_inclusive, upper_inclusive: true, count }
    }

    /// Negative bucket `index` with its bounds.
    pub fn negative_bucket(&self, index: i32, count: f64) -> Bucket {
        let (lower, upper) = (-self.bound(index), -self.bound(index.saturating_sub(1)));
        Bucket { lower, upper, lower_inclusive: true, upper_inclusive: false, count }
    }

    /// The zero bucket.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        }
    }

    /// All buckets from the lowest to the highest, empty ones included, the zero bucket only if it is not empty.
    pub fn all_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> {
        let mut buckets: Vec<Bucket> =
            Vec::with_capacity(self.negative_buckets.len() + self.positive_buckets.len() + 1);
        if !self.uses_custom_buckets() {
            buckets.extend(self.negative().map(|(index, count)| self.negative_bucket(index, count)));
            buckets.reverse();
            if self.zero_count > 0.0 {
                buckets.push(self.zero_bucket());
            }
        }
        buckets.extend(self.positive().map(|(index, count)| self.positive_bucket(index, count)));
        buckets.into_iter()
    }

    /// Whether `==` between the two holds: the same numbers in the same buckets, however the buckets
    /// are stored, empty ones aside; a NaN equals itself. Hints about resets are not compared.
    pub fn equals(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let same_bounds = || {
            self.custom_values.len() == other.custom_values.len()
                && self.custom_values.iter().zip(other.custom_values.iter()).all(|(a, b)| same(*a, *b))
        };
        let filled = |(_, count): &(i32, f64)| *count != 0.0;
        let same_buckets = |a: &mut dyn Iterator<Item = (i32, f64)>,
                            b: &mut dyn Iterator<Item = (i32, f64)>| {
            let pair = |(index, count): (i32, f64)| (index, count.to_bits());
            a.filter(filled).map(pair).eq(b.filter(filled).map(pair))
        };
        self.schema == other.schema
            && same(self.count, other.count)
            && same(self.sum, other.sum)
            && (!self.uses_custom_buckets() || same_bounds())
            && self.zero_threshold == other.zero_threshold
            && same(self.zero_count, other.zero_count)
            && same_buckets(&mut self.positive(), &mut other.positive())
            && same_buckets(&mut self.negative(), &mut other.negative())
    }
}

/// `{count:6, sum:3, [-2,-1):1, [-0.001,0.001]:2, (1,2]:3}`, empty buckets left out.
impl fmt::Display for FloatHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", format_g(self.count), format_g(self.sum))?;
        for bucket in self.all_buckets().filter(|bucket| bucket.count != 0.0) {
            write!(f, ", {bucket}")?;
        }
        f.write_str("}")
    }
}

/// `2^(index / 2^schema)`; the bucket that holds the largest float ends there.
pub fn exponential_bound(index: i32, schema: i32) -> f64 {
    let index = i64::from(index);
    let bound = if schema < 0 {
        let shift = u32::try_from(-i64::from(schema)).unwrap_or(u32::MAX).min(31);
        scale_by_power_of_two(1.0, index << shift)
    } else {
        let shift = u32::try_from(schema).unwrap_or(u32::MAX).min(31);
        let (octave, step) = (index >> shift, index & ((1 << shift) - 1));
        #[expect(clippy::cast_precision_loss, reason = "both are below 2^32")]
        let fraction = step as f64 / (1_i64 << shift) as f64;
        if octave == 1024 && step == 0 {
            return f64::MAX;
        }
        scale_by_power_of_two(fraction.exp2(), octave)
    };
    let ends_at_two_to_1024 = schema < 0 && bound.is_infinite() && {
        let shift = u32::try_from(-i64::from(schema)).unwrap_or(u32::MAX).min(31);
        index << shift == 1024
    };
    if ends_at_two_to_1024 { f64::MAX } else { bound }
}

/// Index and count of each bucket; what spans and counts do not have in common is left out.
fn indexed<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl Iterator<Item = (i32, f64)> + Clone + 'a {
    let starts = spans.iter().scan(0_i32, |end, span| {
        let start = end.saturating_add(span.offset);
        *end = start.saturating_add(i32::try_from(span.length).unwrap_or(i32::MAX));
        Some(start..*end)
    });
    starts.flatten().zip(counts.iter().copied())
}

/// Spans and counts of pairs sorted by index; pairs with a count of zero are left out.
fn spans_of(pairs: impl IntoIterator<Item = (i32, f64)>) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut counts): (Vec<Span>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut end = 0_i32;
    for (index, count) in pairs.into_iter().filter(|(_, count)| *count != 0.0) {
        match spans.last_mut() {
            Some(span) if index == end => span.length += 1,
            Some(_) | None => spans.push(Span { offset: index.saturating_sub(end), length: 1 }),
        }
        counts.push(count);
        end = index.saturating_add(1);
    }
    (spans, counts)
}

#[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 is rounded, as in Prometheus")]
fn whole(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 is rounded, as in Prometheus")]
fn absolute(differences: &[i64]) -> Vec<f64> {
    let sums = differences.iter().scan(0_i64, |sum, difference| {
        *sum = sum.wrapping_add(*difference);
        Some(*sum as f64)
    });
    sums.collect()
}

#[cfg(test)]
mod tests;
