//! How long something took, counted by bounds.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets, in seconds: from a fast disk to a server that is given up. Above the last is one more.
pub const BOUNDS: [f64; 15] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 25.0];

/// Counts how long each of many took.
#[derive(Debug, Default)]
pub struct Latencies {
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Latencies {
    /// Counts one more.
    pub fn record(&self, took: Duration) {
        let bucket = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How many there were in each bucket, not summed up.
    pub fn counts(&self) -> [u64; BOUNDS.len() + 1] {
        std::array::from_fn(|bucket| self.counts[bucket].load(Relaxed))
    }

    /// How long all of them took.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.micros.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_first_bucket_that_holds_it() {
        let latencies = Latencies::default();
        for millis in [0, 1, 1, 3, 25_000, 25_001, 3_600_000] {
            latencies.record(Duration::from_millis(millis));
        }
        let counts = latencies.counts();
        assert_eq!((counts[0], counts[2], counts[4], counts[14], counts[15]), (1, 2, 1, 1, 2));
        assert_eq!(counts.iter().sum::<u64>(), 7);
        assert_eq!(latencies.sum(), Duration::from_millis(3_650_006));
    }
}
