//! What the way in counts; telemetry reads it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

pub(super) use crate::storage::clickhouse::read::counters::add;
use crate::storage::latency::Latencies;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the store was opened, and gauges of how it stands.
        #[derive(Debug, Default)]
        pub struct WriteCounters {
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// How long inserts took, each of them.
            pub insert_latency: Latencies,
        }

        impl WriteCounters {
            /// Every count under its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Relaxed)),)*]
            }
        }
    };
}

counters![
    /// Bytes of rows that wait or are being written.
    queue_bytes,
    /// Rows that wait.
    queue_rows,
    /// Requests that wait for their rows.
    waiters,
    /// Requests refused because too much is waiting.
    overloads,
    /// Inserts sent, successful or not.
    inserts,
    /// Inserts that failed for good.
    insert_failures,
    /// Inserts sent again in two halves, the server not having the memory for the whole.
    insert_splits,
    /// Rows sent.
    insert_rows,
    /// Bytes sent, before compression.
    insert_bytes,
    /// Microseconds inserts took.
    insert_micros,
    /// Inserts being sent.
    inserts_in_flight,
    /// Samples written.
    samples_written,
    /// Samples, histograms and exemplars refused.
    samples_rejected,
    /// Series made known to ClickHouse, once for each day.
    series_registered,
    /// Series and days that this process knows to be there.
    registry_entries,
    /// Series and days forgotten to make room.
    registry_evictions,
    /// Series that waited for another request to make them known.
    registry_waits,
];

impl WriteCounters {
    /// Counts an insert that has ended.
    pub(super) fn inserted(&self, rows: usize, bytes: usize, took: Duration, failed: bool) {
        self.inserts.fetch_add(1, Relaxed);
        self.insert_failures.fetch_add(u64::from(failed), Relaxed);
        add(&self.insert_rows, rows);
        add(&self.insert_bytes, bytes);
        self.insert_latency.record(took);
        self.insert_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// Takes from a gauge.
pub(super) fn sub(counter: &AtomicU64, n: usize) {
    counter.fetch_sub(n as u64, Relaxed);
}

/// Sets a gauge.
pub(super) fn set(counter: &AtomicU64, n: usize) {
    counter.store(n as u64, Relaxed);
}
