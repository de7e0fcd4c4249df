//! What the rolling up counts of itself; telemetry reads it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the store was opened, and gauges of how it stands.
        #[derive(Debug, Default)]
        pub struct RollupCounters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl RollupCounters {
            /// Every count under its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Relaxed)),)*]
            }
        }
    };
}

counters![
    /// Windows of tenants rolled up.
    windows,
    /// Windows of tenants rolled up again.
    windows_again,
    /// Passes over what has closed that came to their end.
    passes,
    /// Passes that failed; what they had not done is left for the next.
    passes_failed,
    /// Seconds between now and the end of the last window that is rolled up, the greater of both resolutions'.
    lag_seconds,
    /// Marks made where samples came late or went.
    marks,
    /// Marks worked off.
    marks_done,
    /// Selections answered from windows.
    reads,
    /// Rows of windows read for them.
    rows_read,
];

impl RollupCounters {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }
}
