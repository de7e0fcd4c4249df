//! What the engine counts of itself; telemetry reads it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::storage::latency::Latencies;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the store was opened, and gauges of how it stands.
        #[derive(Debug, Default)]
        pub struct EmbeddedCounters {
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// How long making the log durable took, each time.
            pub wal_fsync_latency: Latencies,
        }

        impl EmbeddedCounters {
            /// Every count under its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Relaxed)),)*]
            }
        }
    };
}

counters![
    /// Bytes written to the log.
    wal_bytes,
    /// Buffers of frames handed to the log.
    wal_records,
    /// Writes to the log, each of which carries what was waiting.
    wal_writes,
    /// Times the log was made durable.
    wal_fsyncs,
    /// Microseconds that took.
    wal_fsync_micros,
    /// Writes and syncs of the log that failed.
    wal_failures,
    /// Segments the log has begun.
    wal_segments,
    /// Series in the head.
    head_series,
    /// Samples in the head.
    head_samples,
    /// About the bytes of memory the head takes.
    head_bytes,
    /// Samples appended, duplicates not counted.
    samples_appended,
    /// Samples that were there already.
    samples_duplicate,
    /// Samples out of time order.
    samples_out_of_order,
    /// Samples refused.
    samples_rejected,
    /// Writes refused, or the series that they would have begun, because memory is short.
    memory_refused,
    /// Metadata entries refused, a tenant having too much of it.
    metadata_rejected,
    /// Series created.
    series_created,
    /// Flushes done.
    flushes,
    /// Flushes that failed.
    flush_failures,
    /// Microseconds flushes took.
    flush_micros,
    /// Bytes of parts that flushes wrote.
    flush_bytes,
    /// Bytes of parts that merges and rewrites wrote.
    merge_bytes,
    /// Parts rewritten for what was hidden in them.
    parts_cleaned,
    /// Parts rewritten because samples in them were old enough to be downsampled.
    parts_downsampled,
    /// Samples that downsampling has put together: so many fewer are there.
    samples_downsampled,
    /// Deletes that hide nothing any more, and so ended by themselves.
    tombstones_ended,
    /// Merges of parts done.
    merges,
    /// Merges that failed.
    merge_failures,
    /// Parts that serve.
    parts,
    /// Files set aside because they do not read back.
    quarantined,
    /// Samples of the log that could not be replayed at the start.
    replay_lost,
    /// Samples replayed at the start.
    replay_samples,
    /// Microseconds the start took.
    open_micros,
    /// Whether whoever had the store before did not close it: 1, or 0.
    unclean_start,
];

/// Adds to a count.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

/// Adds a duration in microseconds to a count.
pub(crate) fn add_micros(counter: &AtomicU64, took: Duration) {
    add(counter, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}
