//! Native histograms as PromQL computes with them: every count a float, every bucket absolute.

/// A native histogram with absolute float counts.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatHistogram {
    /// Resolution, or −53 for custom buckets.
    pub schema: i32,
}
