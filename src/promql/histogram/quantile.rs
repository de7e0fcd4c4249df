//! Quantiles, fractions, means and deviations of native histograms.
//!
//! Within an exponential bucket observations are taken to be spread evenly over the logarithm, in the
//! zero bucket and in custom buckets evenly over the value. NaN observations are in `count` and in no
//! bucket.

use super::{Bucket, FloatHistogram};
use crate::promql::functions::neumaier::Neumaier;

/// A quantile, and what NaN observations did to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// The value.
    pub value: f64,
    /// Whether and how NaN observations matter.
    pub nan: NanEffect,
}

/// What NaN observations do to a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NanEffect {
    /// There are none, or they do not matter.
    None,
    /// They push the quantile up.
    Skewed,
    /// The quantile falls among them.
    Result,
}

/// A fraction, and whether there were NaN observations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fraction {
    /// The value.
    pub value: f64,
    /// Whether there are NaN observations, which are in no fraction.
    pub has_nan: bool,
}

impl FloatHistogram {
    /// The value below which a fraction `q` of the observations lies.
    pub fn quantile(&self, q: f64) -> Quantile {
        let plain = |value| Quantile { value, nan: NanEffect::None };
        if q < 0.0 {
            return plain(f64::NEG_INFINITY);
        }
        if q > 1.0 {
            return plain(f64::INFINITY);
        }
        if self.count == 0.0 || q.is_nan() {
            return plain(f64::NAN);
        }
        // Counting from the nearer end loses less precision. NaN observations, which no bucket holds,
        // count as the highest, so with them only counting from below is right.
        let has_nan = self.sum.is_nan();
        let from_below = has_nan || q < 0.5;
        let mut rank = if from_below { q * self.count } else { (1.0 - q) * self.count };
        let Some((mut bucket, mut count)) = (if from_below {
            bucket_at_rank(self.all_buckets(), rank)
        } else {
            bucket_at_rank(self.all_buckets().rev(), rank)
        }) else {
            // Observations without any bucket are NaN observations.
            let nan = if has_nan { NanEffect::Result } else { NanEffect::None };
            return Quantile { value: f64::NAN, nan };
        };
        if self.uses_custom_buckets() {
            if bucket.lower == f64::NEG_INFINITY {
                if bucket.upper <= 0.0 {
                    return plain(bucket.upper);
                }
                bucket.lower = 0.0;
            } else if bucket.upper == f64::INFINITY {
                return plain(bucket.lower);
            }
        } else {
            bucket = self.without_impossible_half(bucket);
        }
        // Adding up floats may overshoot.
        count = count.min(self.count);
        if count < rank {
            if has_nan {
                return Quantile { value: f64::NAN, nan: NanEffect::Result };
            }
            return plain(bucket.upper);
        }
        rank = if from_below { rank - (count - bucket.count) } else { count - rank };
        let nan = if has_nan { NanEffect::Skewed } else { NanEffect::None };
        Quantile { value: self.interpolate(&bucket, rank / bucket.count), nan }
    }

    /// Which part of the observations lies between `lower` and `upper`.
    pub fn fraction(&self, lower: f64, upper: f64) -> Fraction {
        if self.count == 0.0 || lower.is_nan() || upper.is_nan() {
            return Fraction { value: f64::NAN, has_nan: false };
        }
        if lower >= upper {
            return Fraction { value: 0.0, has_nan: false };
        }
        let (mut rank, mut lower_rank, mut upper_rank) = (0.0, None, None);
        for bucket in self.all_buckets() {
            let bucket = if self.uses_custom_buckets() {
                let first = bucket.lower == f64::NEG_INFINITY && bucket.upper > 0.0;
                Bucket { lower: if first { 0.0 } else { bucket.lower }, ..bucket }
            } else {
                self.without_impossible_half(bucket)
            };
            let rank_of = |value: f64| {
                if bucket.lower >= value {
                    Some(rank)
                } else if bucket.upper > value {
                    Some(rank + self.observations_below(&bucket, value))
                } else {
                    None
                }
            };
            lower_rank = lower_rank.or_else(|| rank_of(lower));
            upper_rank = upper_rank.or_else(|| rank_of(upper));
            if lower_rank.is_some() && upper_rank.is_some() {
                break;
            }
            rank += bucket.count;
        }
        // NaN observations are in the count and in no bucket: they lie in no fraction.
        let has_nan = self.sum.is_nan() && self.observations_in_buckets() < self.count;
        let all = if has_nan { self.observations_in_buckets() } else { self.count };
        let capped = |rank: Option<f64>| rank.map_or(all, |rank| if rank > all { all } else { rank });
        Fraction { value: (capped(upper_rank) - capped(lower_rank)) / self.count, has_nan }
    }

    /// The mean of all observations.
    pub fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// The variance of the observations, each taken to lie in the middle of its bucket.
    pub fn variance(&self) -> f64 {
        let mean = self.mean();
        let mut sum = Neumaier::default();
        for bucket in self.all_buckets().filter(|bucket| bucket.count != 0.0) {
            let middle = if self.uses_custom_buckets() {
                f64::midpoint(bucket.upper, bucket.lower)
            } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
                0.0
            } else {
                (bucket.upper * bucket.lower).sqrt().copysign(bucket.upper)
            };
            let delta = middle - mean;
            sum.add(bucket.count * delta * delta);
        }
        sum.corrected() / self.count
    }

    fn observations_in_buckets(&self) -> f64 {
        self.all_buckets().map(|bucket| bucket.count).sum()
    }

    /// Cuts the zero bucket at zero if all other observations are on one side.
    pub(super) fn without_impossible_half(&self, mut bucket: Bucket) -> Bucket {
        if bucket.lower < 0.0 && bucket.upper > 0.0 {
            match (self.negative_buckets.is_empty(), self.positive_buckets.is_empty()) {
                (true, false) => bucket.lower = 0.0,
                (false, true) => bucket.upper = 0.0,
                (true, true) | (false, false) => {}
            }
        }
        bucket
    }

    /// Whether a bucket's observations are spread evenly over the value, not its logarithm.
    pub(super) fn is_linear(&self, bucket: &Bucket) -> bool {
        self.uses_custom_buckets() || (bucket.lower <= 0.0 && bucket.upper >= 0.0)
    }

    /// How many of a bucket's observations lie below `value`, which lies within it.
    pub(super) fn observations_below(&self, bucket: &Bucket, value: f64) -> f64 {
        if self.is_linear(bucket) {
            // An infinite bucket says nothing about where its observations are: none of them is taken
            // to lie on the finite side's far end.
            if bucket.lower == f64::NEG_INFINITY {
                return bucket.count;
            }
            return bucket.count * (value - bucket.lower) / (bucket.upper - bucket.lower);
        }
        let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
        let value_log = value.abs().log2();
        let fraction = if value > 0.0 {
            (value_log - lower) / (upper - lower)
        } else {
            1.0 - (value_log - upper) / (lower - upper)
        };
        bucket.count * fraction
    }

    /// The value at `fraction` of the way through a bucket.
    fn interpolate(&self, bucket: &Bucket, fraction: f64) -> f64 {
        if self.is_linear(bucket) {
            return bucket.lower + (bucket.upper - bucket.lower) * fraction;
        }
        let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
        if bucket.lower > 0.0 {
            (lower + (upper - lower) * fraction).exp2()
        } else {
            -(upper + (lower - upper) * (1.0 - fraction)).exp2()
        }
    }
}

/// The bucket in which the running count reaches `rank`, or else the last that is not empty, and the count there.
fn bucket_at_rank(buckets: impl Iterator<Item = Bucket>, rank: f64) -> Option<(Bucket, f64)> {
    let mut count = 0.0;
    let mut found = None;
    for bucket in buckets.filter(|bucket| bucket.count != 0.0) {
        count += bucket.count;
        found = Some((bucket, count));
        if count >= rank {
            break;
        }
    }
    found
}
