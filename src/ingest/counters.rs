//! What the ingest path counts, for whoever exposes it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start; they only go up.
#[derive(Debug, Default)]
pub struct IngestCounters {
    /// Requests that came.
    pub requests: AtomicU64,
    /// Requests that ended in an error, nothing or not all being written.
    pub failed_requests: AtomicU64,
    /// Bytes of requests, as they came.
    pub compressed_bytes: AtomicU64,
    /// Bytes of requests, decompressed.
    pub decompressed_bytes: AtomicU64,
    /// Float samples written.
    pub samples: AtomicU64,
    /// Histograms written.
    pub histograms: AtomicU64,
    /// Exemplars written.
    pub exemplars: AtomicU64,
    /// Metadata entries written.
    pub metadata: AtomicU64,
    /// Samples, histograms and exemplars refused.
    pub rejected: AtomicU64,
    /// Metadata entries that were no use and were dropped.
    pub dropped_metadata: AtomicU64,
    /// Lines of imports that cannot be read.
    pub bad_lines: AtomicU64,
    /// Series that were recognised.
    pub known_series: AtomicU64,
    /// Series whose labels had to be read.
    pub new_series: AtomicU64,
    /// Requests that came while too many bytes were being worked on.
    pub overloaded: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
