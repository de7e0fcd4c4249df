//! What writing does when memory gets short.
//!
//! The process has one budget. Pages of parts have their share of it, queries and a merge hold what they hold, and what is
//! left is room for samples that are not flushed yet:
//!
//! ```text
//!  budget ├── pages ──┼── queries, a merge, now ──┼────────── room for heads ───────────┤
//!                                                 0        85 %: flush   90 %   95 %
//!                                                               no new series ┘    └ no samples
//! ```
//!
//! Queries can make the room narrow and never less than a [quarter](LEAST) of all, so that nobody who asks can keep
//! others from writing. Whoever is refused is told to come again: a flush makes room. A merge asks for its share and nobody
//! ever waits inside: where there is no room it takes fewer parts, or is put off.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The part of the budget that is room for heads whatever else takes.
const LEAST: u64 = 4;
/// At this part of the room a flush begins that would else come later.
const FLUSH_PERCENT: u64 = 85;
/// From here on no series begins.
const SERIES_PERCENT: u64 = 90;
/// From here on nothing is taken.
const SAMPLES_PERCENT: u64 = 95;

/// How short memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    /// There is room.
    None,
    /// A flush is worth it.
    Flush,
    /// What has begun goes on.
    Series,
    /// Nothing fits.
    Samples,
}

/// Tells how many bytes others hold at the moment.
pub(crate) type HeldByOthers = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The budget.
pub(crate) struct Budget {
    limit: u64,
    pages: u64,
    /// What is held to write parts from parts.
    rewriting: AtomicU64,
    others: OnceLock<HeldByOthers>,
}

/// A share of the budget, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    of: &'a Budget,
    bytes: u64,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.of.rewriting.fetch_sub(self.bytes, Relaxed);
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Budget {
    /// A budget of `limit` bytes, `pages` of which are for pages of parts.
    pub(crate) fn new(limit: u64, pages: usize) -> Self {
        let pages = u64::try_from(pages).unwrap_or(u64::MAX);
        Self { limit, pages, rewriting: AtomicU64::new(0), others: OnceLock::new() }
    }

    /// Lets others be asked what they hold of it; the first who say so are.
    pub(crate) fn share(&self, others: HeldByOthers) {
        // There is one process, and it says so once.
        let _ = self.others.set(others);
    }

    /// Bytes in all.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// What nobody but heads holds.
    fn left(&self) -> u64 {
        let others = self.others.get().map_or(0, |held| held());
        let taken = self.pages.saturating_add(others).saturating_add(self.rewriting.load(Relaxed));
        self.limit.saturating_sub(taken)
    }

    /// The room there is for heads now.
    pub(crate) fn room(&self) -> u64 {
        self.left().max(self.limit / LEAST)
    }

    /// Whether a rewrite of parts may hold so many bytes beside heads that take `heads`, and they notice nothing of it.
    pub(crate) fn has_room_for(&self, bytes: u64, heads: u64) -> bool {
        let left = self.left().saturating_sub(bytes);
        bytes == 0 || u128::from(heads) < u128::from(left) * u128::from(FLUSH_PERCENT) / 100
    }

    /// Takes so many bytes for a rewrite of parts, whether there is room or not.
    pub(crate) fn hold(&self, bytes: u64) -> Share<'_> {
        let bytes = bytes.min(self.limit);
        self.rewriting.fetch_add(bytes, Relaxed);
        Share { of: self, bytes }
    }

    /// How short memory is when heads take so many bytes.
    pub(crate) fn pressure(&self, heads: u64) -> Pressure {
        let (room, heads) = (u128::from(self.room()), u128::from(heads));
        let percent = |part: u64| room * u128::from(part) / 100;
        if heads < percent(FLUSH_PERCENT) {
            Pressure::None
        } else if heads < percent(SERIES_PERCENT) {
            Pressure::Flush
        } else if heads < percent(SAMPLES_PERCENT) {
            Pressure::Series
        } else {
            Pressure::Samples
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_rises_with_what_is_held() {
        let budget = Budget::new(1100, 100);
        let steps =
            [(0, Pressure::None), (849, Pressure::None), (850, Pressure::Flush), (899, Pressure::Flush)];
        let more = [(900, Pressure::Series), (949, Pressure::Series), (950, Pressure::Samples)];
        for (heads, pressure) in steps.into_iter().chain(more) {
            assert_eq!(budget.pressure(heads), pressure, "{heads}");
        }
    }

    #[test]
    fn queries_narrow_the_room_and_leave_a_quarter() {
        let budget = Budget::new(1000, 100);
        let held = Arc::new(AtomicU64::new(0));
        let asked = Arc::clone(&held);
        budget.share(Arc::new(move || asked.load(Relaxed)));
        assert_eq!((budget.room(), budget.pressure(500)), (900, Pressure::None));
        held.store(400, Relaxed);
        assert_eq!((budget.room(), budget.pressure(500)), (500, Pressure::Samples));
        held.store(u64::MAX, Relaxed);
        assert_eq!((budget.room(), budget.pressure(200)), (250, Pressure::None));
    }

    #[test]
    fn a_rewrite_takes_its_share_while_it_lasts() {
        let budget = Budget::new(1000, 100);
        assert!(budget.has_room_for(300, 500) && !budget.has_room_for(400, 500));
        let held = budget.hold(300);
        assert_eq!((budget.room(), budget.pressure(500)), (600, Pressure::None));
        assert!(!budget.has_room_for(100, 500) && budget.has_room_for(0, 500));
        let all = budget.hold(u64::MAX);
        assert_eq!(budget.room(), 250, "writers keep theirs");
        drop((held, all));
        assert_eq!(budget.room(), 900);
    }

    #[test]
    fn without_a_bound_memory_is_never_short() {
        let budget = Budget::new(u64::MAX, 0);
        assert_eq!(budget.pressure(1 << 60), Pressure::None);
        assert!(budget.has_room_for(1 << 60, 1 << 60));
    }
}
