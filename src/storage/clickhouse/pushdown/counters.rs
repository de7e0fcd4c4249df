//! What is counted of work that the servers do for us.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the store was opened.
#[derive(Debug, Default)]
pub struct PushdownCounters {
    /// Offers of which something was taken.
    pub taken: AtomicU64,
    /// Offers of which nothing was.
    pub declined: AtomicU64,
    /// Statements that failed before their first row, so that samples were read instead.
    pub fallbacks: AtomicU64,
    /// Rows received.
    pub rows: AtomicU64,
    /// Their places.
    pub places: AtomicU64,
}

impl PushdownCounters {
    /// Every count under its name.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("taken", self.taken.load(Relaxed)),
            ("declined", self.declined.load(Relaxed)),
            ("fallbacks", self.fallbacks.load(Relaxed)),
            ("rows", self.rows.load(Relaxed)),
            ("places", self.places.load(Relaxed)),
        ]
    }

    pub(super) fn add(counter: &AtomicU64, more: usize) {
        counter.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Relaxed);
    }
}
