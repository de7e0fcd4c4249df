//! What remains of a histogram below or above a limit: the operators `</` and `>/`.
//!
//! A bucket that the limit cuts is shared out as for quantiles: evenly over the logarithm, in the zero
//! bucket and in custom buckets evenly over the value. A custom bucket without a lower or upper bound
//! cannot be cut, its observations count as `-Inf` or `+Inf`; only the lowest begins at 0 if it ends
//! above. As soon as anything has gone the sum is an estimate, made of the middles of what remains.

use super::{Bucket, FloatHistogram, spans_of};

/// Which observations remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Below,
    Above,
}

impl FloatHistogram {
    /// What remains without the observations above `limit`.
    #[must_use]
    pub fn without_above(&self, limit: f64) -> Self {
        self.trimmed(limit, Keep::Below)
    }

    /// What remains without the observations below `limit`.
    #[must_use]
    pub fn without_below(&self, limit: f64) -> Self {
        self.trimmed(limit, Keep::Above)
    }

    fn trimmed(&self, limit: f64, keep: Keep) -> Self {
        let (mut count, mut sum, mut complete) = (0.0, 0.0, true);
        let mut take = |bucket: Bucket| {
            let rest = self.rest(bucket, limit, keep);
            complete &= rest.count == bucket.count;
            if rest.count != 0.0 {
                count += rest.count;
                sum +=
                    rest.count * if self.is_linear(&bucket) { arithmetic(&rest) } else { geometric(&rest) };
            }
            rest.count
        };
        let negative: Vec<_> =
            self.negative().map(|(index, count)| (index, take(self.negative_bucket(index, count)))).collect();
        let zero_count = if self.zero_count == 0.0 { 0.0 } else { take(self.zero_bucket()) };
        let positive: Vec<_> =
            self.positive().map(|(index, count)| (index, take(self.positive_bucket(index, count)))).collect();
        if complete {
            return self.clone();
        }
        let (positive_spans, positive_buckets) = spans_of(positive);
        let (negative_spans, negative_buckets) = spans_of(negative);
        Self {
            zero_count,
            count,
            sum,
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            ..self.clone()
        }
    }

    /// The part of a bucket that remains.
    fn rest(&self, bucket: Bucket, limit: f64, keep: Keep) -> Bucket {
        let nothing = Bucket { count: 0.0, ..bucket };
        let all = match keep {
            Keep::Below => limit == f64::INFINITY,
            Keep::Above => limit == f64::NEG_INFINITY,
        };
        // Nothing is above or below what is no number.
        if all || limit.is_nan() {
            return bucket;
        }
        let mut bucket = bucket;
        if self.uses_custom_buckets() {
            let at = |value: f64| Bucket { lower: value, upper: value, ..bucket };
            if limit.is_infinite() {
                return nothing;
            }
            if bucket.lower == f64::NEG_INFINITY {
                if bucket.upper == f64::INFINITY {
                    return nothing;
                }
                match keep {
                    Keep::Below if bucket.upper <= 0.0 => return at(bucket.upper.min(limit)),
                    Keep::Above if bucket.upper <= 0.0 || limit < 0.0 => return nothing,
                    Keep::Below | Keep::Above => bucket.lower = 0.0,
                }
            } else if bucket.upper == f64::INFINITY {
                return match keep {
                    Keep::Below => nothing,
                    Keep::Above => at(bucket.lower.max(limit)),
                };
            }
        } else {
            bucket = self.without_impossible_half(bucket);
        }
        match keep {
            Keep::Below if bucket.upper <= limit => bucket,
            Keep::Below if limit <= bucket.lower => nothing,
            Keep::Below => Bucket { upper: limit, count: self.observations_below(&bucket, limit), ..bucket },
            Keep::Above if limit <= bucket.lower => bucket,
            Keep::Above if bucket.upper <= limit => nothing,
            Keep::Above => {
                let below = self.observations_below(&bucket, limit);
                Bucket { lower: limit, count: bucket.count - below, ..bucket }
            }
        }
    }
}

fn arithmetic(part: &Bucket) -> f64 {
    f64::midpoint(part.lower, part.upper)
}

fn geometric(part: &Bucket) -> f64 {
    (part.lower.abs().sqrt() * part.upper.abs().sqrt()).copysign(part.upper)
}
