//! Ids and delays that differ from those of other processes. What makes them differ is passed in.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::Clock;

/// A sequence of numbers that looks random (splitmix64).
#[derive(Debug)]
pub(super) struct Dice {
    state: AtomicU64,
}

impl Dice {
    /// Starts at a place that depends on the seed, the time, the process and how many there were before.
    pub(super) fn new(seed: u64, clock: &dyn Clock) -> Self {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let mut start = Vec::with_capacity(20);
        start.extend_from_slice(&clock.now().0.to_le_bytes());
        start.extend_from_slice(&std::process::id().to_le_bytes());
        start.extend_from_slice(&STARTED.fetch_add(1, Relaxed).to_le_bytes());
        Self { state: AtomicU64::new(xxh3_64_with_seed(&start, seed)) }
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A name for a statement that no other has.
    pub(super) fn query_id(&self) -> String {
        format!("luminate-{:016x}{:016x}", self.next(), self.next())
    }

    /// A duration from `low` to `high`, both included.
    pub(super) fn between(&self, low: Duration, high: Duration) -> Duration {
        let width = u64::try_from(high.saturating_sub(low).as_millis()).unwrap_or(u64::MAX);
        low + Duration::from_millis(self.next() % width.saturating_add(1).max(1))
    }

    /// About `delay`: a quarter more or less, so that those who wait for the same do not come together.
    pub(super) fn about(&self, delay: Duration) -> Duration {
        self.between(delay * 3 / 4, delay * 5 / 4)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{clock::HandClock, model::Timestamp};

    #[test]
    fn ids_differ_within_a_process_and_between_instances() {
        let clock = HandClock::at(Timestamp(0));
        let dice = [Dice::new(0, &*clock), Dice::new(0, &*clock), Dice::new(1, &*clock)];
        let ids: HashSet<_> = dice.iter().flat_map(|dice| (0..100).map(|_| dice.query_id())).collect();
        assert_eq!(ids.len(), 300);
    }

    #[test]
    fn delays_stay_in_their_bounds_and_vary() {
        let dice = Dice::new(7, &*HandClock::at(Timestamp(0)));
        let (low, high) = (Duration::from_secs(5), Duration::from_secs(30));
        let drawn: HashSet<_> = (0..1000).map(|_| dice.between(low, high)).collect();
        assert!(drawn.iter().all(|delay| (low..=high).contains(delay)));
        assert!(drawn.len() > 100);
        assert_eq!(dice.between(low, low), low);
        assert!((75..=125).contains(&dice.about(Duration::from_millis(100)).as_millis()));
    }
}
