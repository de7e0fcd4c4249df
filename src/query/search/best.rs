//! The best so many of names that nobody holds.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use parking_lot::Mutex;

use super::{Hit, score::Terms};
use crate::storage::Sift;

/// In which order names are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By the alphabet.
    Ascending,
    /// By the alphabet, from its end.
    Descending,
    /// The most alike first, then by the alphabet.
    Score,
}

/// Keeps the first so many, in order, of the names that it sees and that are like what is looked for.
#[derive(Debug)]
pub struct Best {
    terms: Terms,
    order: Order,
    most: usize,
    kept: Mutex<BTreeMap<Place, f64>>,
    stopped: AtomicBool,
}

/// Where a name stands.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    order: Order,
    /// A score's bits, which for scores are in their order; 0 where scores do not count.
    score: u64,
    name: String,
}

impl Place {
    fn cmp_to(&self, score: u64, name: &str) -> Ordering {
        match self.order {
            Order::Ascending => self.name.as_str().cmp(name),
            Order::Descending => name.cmp(&self.name),
            Order::Score => score.cmp(&self.score).then_with(|| self.name.as_str().cmp(name)),
        }
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_to(other.score, &other.name)
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Best {
    /// Keeps `most`.
    pub fn new(terms: Terms, order: Order, most: usize) -> Self {
        Self { terms, order, most, kept: Mutex::default(), stopped: AtomicBool::new(false) }
    }

    /// Whether every name is like what is looked for.
    pub fn takes_all(&self) -> bool {
        self.terms.is_empty()
    }

    /// Wants no more names.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Sees some that were held.
    pub fn see_all(&self, names: &[String]) {
        // It is told to stop, or has seen them all.
        let _ = names.iter().try_for_each(|name| self.see(name));
    }

    /// What was kept, in order.
    pub fn take(&self) -> Vec<Hit> {
        let kept = std::mem::take(&mut *self.kept.lock());
        kept.into_iter().map(|(place, score)| Hit { name: place.name, score, metadata: None }).collect()
    }

    /// Whether one that stands there is not among the first, whatever else is seen.
    fn is_beyond(&self, score: u64, name: &str) -> bool {
        let kept = self.kept.lock();
        let last = kept.last_key_value().filter(|_| kept.len() >= self.most);
        last.is_some_and(|(last, _)| last.cmp_to(score, name).is_le())
    }
}

impl Sift for Best {
    fn see(&self, text: &str) -> ControlFlow<()> {
        if self.stopped.load(Relaxed) {
            return ControlFlow::Break(());
        }
        // Where it stands by its name alone it need not be looked at any closer.
        if self.order != Order::Score && self.is_beyond(0, text) {
            return ControlFlow::Continue(());
        }
        let Some(score) = self.terms.score(text) else { return ControlFlow::Continue(()) };
        let rank = if self.order == Order::Score { score.to_bits() } else { 0 };
        if self.is_beyond(rank, text) {
            return ControlFlow::Continue(());
        }
        let mut kept = self.kept.lock();
        kept.insert(Place { order: self.order, score: rank, name: text.to_owned() }, score);
        if kept.len() > self.most {
            kept.pop_last();
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::score::{Algorithm, Terms},
        *,
    };

    fn kept(order: Order, most: usize, search: &[&str], names: &[&str]) -> Vec<String> {
        let search = search.iter().map(|text| (*text).to_owned()).collect();
        let best = Best::new(Terms::new(search, Algorithm::Subsequence, 0, true), order, most);
        for name in names {
            assert!(best.see(name).is_continue());
        }
        best.take().into_iter().map(|hit| hit.name).collect()
    }

    #[test]
    fn the_first_in_each_order_are_kept_once() {
        let names = ["go_gc", "up", "go_threads", "go_gc", "a_go", "g_o"];
        assert_eq!(kept(Order::Ascending, 3, &[], &names), ["a_go", "g_o", "go_gc"]);
        assert_eq!(kept(Order::Descending, 2, &[], &names), ["up", "go_threads"]);
        assert_eq!(kept(Order::Ascending, 9, &["go"], &names), ["a_go", "g_o", "go_gc", "go_threads"]);
        assert_eq!(kept(Order::Score, 9, &["go"], &names), ["go_gc", "go_threads", "a_go", "g_o"]);
        assert_eq!(kept(Order::Score, 1, &["go"], &names), ["go_gc"]);
        assert_eq!(kept(Order::Score, 9, &["nothing"], &names), [""; 0]);
    }

    #[test]
    fn who_is_told_to_stop_sees_no_more() {
        let best = Best::new(Terms::new(vec![], Algorithm::Subsequence, 0, true), Order::Ascending, 9);
        assert!(best.see("a").is_continue());
        best.stop();
        assert!(best.see("b").is_break());
        assert_eq!(best.take().len(), 1);
    }
}
