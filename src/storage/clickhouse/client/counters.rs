//! What the client counts; telemetry reads it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::failure::Class;

/// TOO_MANY_PARTS: more is inserted, or in smaller pieces, than is merged.
const TOO_MANY_PARTS: u32 = 252;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the client was made.
        #[derive(Debug, Default)]
        pub struct ClientCounters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl ClientCounters {
            /// Every count under its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Relaxed)),)*]
            }
        }
    };
}

counters![
    /// Statements sent, each attempt of one.
    requests,
    /// Inserts that the caller asked for.
    inserts,
    /// Bytes of rows that were inserted, before compression.
    inserted_bytes,
    /// Bytes of rows received, decompressed.
    received_bytes,
    /// Attempts after the first.
    retries,
    /// Attempts that were not answered.
    failed_unreachable,
    /// Attempts that the server had no room for.
    failed_overloaded,
    /// Of these, how many because a partition has too many parts.
    failed_too_many_parts,
    /// Attempts to write where nothing may be written.
    failed_read_only,
    /// Statements that took more than they may.
    failed_exhausted,
    /// Statements that do not fit the tables.
    failed_schema,
    /// Attempts that were not let in.
    failed_denied,
    /// Attempts that failed by our mistake, or by what we do not know.
    failed_broken,
    /// Times a server was given up until it answers a probe.
    breaker_opens,
    /// Statements refused because no server was known to answer.
    refused,
    /// Probes sent.
    probes,
    /// Probes that were not answered.
    probe_failures,
    /// Statements ended on the server because nobody waited for them any more.
    kills,
];

impl ClientCounters {
    /// Counts a failed attempt.
    pub(super) fn failed(&self, class: Class, code: Option<u32>) {
        if code == Some(TOO_MANY_PARTS) {
            add(&self.failed_too_many_parts, 1);
        }
        add(
            match class {
                Class::Unreachable => &self.failed_unreachable,
                Class::Overloaded => &self.failed_overloaded,
                Class::ReadOnly => &self.failed_read_only,
                Class::Exhausted => &self.failed_exhausted,
                Class::Schema => &self.failed_schema,
                Class::Denied => &self.failed_denied,
                Class::Broken => &self.failed_broken,
            },
            1,
        );
    }
}

/// Adds to a count.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}
