//! Native histograms as they are written and stored.
//!
//! The numbers are kept as they came, integer deltas as deltas, so that what is read back is bit for
//! bit what was sent. PromQL works on its own form (`promql/histogram`).

use super::is_stale;

/// A native histogram: exponential buckets (`schema` −4..=8) or custom ones (`schema` −53).
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Resolution of exponential buckets, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Width of the zero bucket; 0 with custom buckets.
    pub zero_threshold: f64,
    /// Sum of observations; the stale marker when the series is gone.
    pub sum: f64,
    /// What is known about a reset between this and the previous histogram.
    pub reset_hint: ResetHint,
    /// Where the positive buckets lie.
    pub positive_spans: Vec<Span>,
    /// Where the negative buckets lie.
    pub negative_spans: Vec<Span>,
    /// The numbers, integer or float.
    pub counts: Counts,
    /// Upper bounds of custom buckets, without `+Inf`; empty with exponential ones.
    pub custom_values: Vec<f64>,
}

/// The schema number of histograms with custom buckets.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// A run of consecutive buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Gap to the end of the previous span; for the first span its start index.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// A histogram's numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Counts {
    /// Whole observations; each bucket is the difference to the one before it.
    Integer {
        /// All observations.
        count: u64,
        /// Observations in the zero bucket.
        zero_count: u64,
        /// Positive buckets, as differences.
        positive: Vec<i64>,
        /// Negative buckets, as differences.
        negative: Vec<i64>,
    },
    /// Fractional observations, each bucket absolute.
    Float {
        /// All observations.
        count: f64,
        /// Observations in the zero bucket.
        zero_count: f64,
        /// Positive buckets.
        positive: Vec<f64>,
        /// Negative buckets.
        negative: Vec<f64>,
    },
}

/// What the writer knows of counter resets; the discriminants are remote write's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetHint {
    /// Compare the histograms to find out.
    #[default]
    Unknown = 0,
    /// There was a reset before this histogram.
    Yes = 1,
    /// There was none.
    No = 2,
    /// It is a gauge: resets have no meaning.
    Gauge = 3,
}

impl ResetHint {
    /// The hint with this discriminant.
    pub fn of_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Unknown),
            1 => Some(Self::Yes),
            2 => Some(Self::No),
            3 => Some(Self::Gauge),
            _ => None,
        }
    }
}

impl Histogram {
    /// About the memory it takes.
    pub fn memory_bytes(&self) -> usize {
        let buckets = match &self.counts {
            Counts::Integer { positive, negative, .. } => positive.len() + negative.len(),
            Counts::Float { positive, negative, .. } => positive.len() + negative.len(),
        };
        let spans = self.positive_spans.len() + self.negative_spans.len();
        size_of::<Self>() + 8 * (buckets + spans + self.custom_values.len())
    }

    /// Whether this histogram is the stale marker.
    pub fn is_stale(&self) -> bool {
        is_stale(self.sum)
    }

    /// Whether the two are the same to the bit, NaN included.
    pub fn same_bits(&self, other: &Self) -> bool {
        fn floats(a: &[f64], b: &[f64]) -> bool {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        }
        let counts = match (&self.counts, &other.counts) {
            (
                Counts::Float { count, zero_count, positive, negative },
                Counts::Float { count: c, zero_count: z, positive: p, negative: n },
            ) => floats(&[*count, *zero_count], &[*c, *z]) && floats(positive, p) && floats(negative, n),
            (a, b) => a == b,
        };
        counts
            && self.schema == other.schema
            && floats(&[self.zero_threshold, self.sum], &[other.zero_threshold, other.sum])
            && self.reset_hint == other.reset_hint
            && self.positive_spans == other.positive_spans
            && self.negative_spans == other.negative_spans
            && floats(&self.custom_values, &other.custom_values)
    }
}
