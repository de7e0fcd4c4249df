//! The functions of PromQL, by what they need to see.
//!
//! * [`range`]: a range of one series' samples per step (`rate`, `*_over_time`, …)
//! * [`instant`]: one value at a time (`abs`, `clamp`, `hour`, …)
//! * [`vector`]: all series (`absent`, `label_replace`, `sort`, …)
//! * [`classic`]: the buckets of histograms, classic and native (`histogram_quantile`, …)
//!
//! `time()`, `timestamp()` and what else depends on the evaluation alone is in `exec`.

pub mod calendar;
pub mod classic;
pub mod instant;
pub mod neumaier;
pub mod range;
pub mod signature;
pub mod vector;

pub use signature::{Signature, lookup};
