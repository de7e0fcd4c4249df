//! What reading and deleting count; telemetry reads it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the store was opened.
        #[derive(Debug, Default)]
        pub struct ReadCounters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl ReadCounters {
            /// Every count under its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Relaxed)),)*]
            }
        }
    };
}

counters![
    /// Selections of samples answered.
    selects,
    /// Those that were given up before all was read, because nobody waited any more.
    selects_cancelled,
    /// Statements that look for series or labels.
    series_statements,
    /// Series that came back from them.
    series_read,
    /// Patterns that the servers refused, which were then asked here alone.
    patterns_refused,
    /// Statements that read samples or histograms.
    sample_statements,
    /// Float samples that came back from them, unwanted ones included.
    samples_read,
    /// Histograms that did.
    histograms_read,
    /// Bytes of both, decompressed.
    sample_bytes_read,
    /// Tombstones that look-ups had to heed.
    tombstones_heeded,
    /// Tombstones written.
    tombstones_written,
    /// Tombstones whose rows were removed.
    tombstones_applied,
    /// Tombstones that were cleaned.
    tombstones_cleaned,
    /// Statements that removed rows.
    delete_statements,
];

/// Adds to a count.
pub(in crate::storage::clickhouse) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}
