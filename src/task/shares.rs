//! Room that several share, so that one who wants all of it leaves some for the others.
//!
//! How much room there is, and who waits for it, is the business of a semaphore or a line elsewhere; [`Shares`] knows who
//! holds how much of it. One alone may have all. Once there are two, nobody gets more when they would hold more than is then
//! free: one who takes all they can ends at half, a second at half of the rest, and there is always some left for who
//! comes next. Who holds nothing may have anything, as long as there is room.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

/// Who holds how much.
pub struct Shares<K>(Arc<Books<K>>);

struct Books<K> {
    held: Mutex<Ledger<K>>,
    /// Whether there was ever more than one.
    several: AtomicBool,
}

struct Ledger<K> {
    held: HashMap<K, usize, RandomState>,
    first: Option<K>,
}

/// What somebody holds; given back when dropped.
pub struct Held<K: Eq + Hash> {
    books: Arc<Books<K>>,
    who: K,
    amount: usize,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// Nobody holds anything.
    pub fn new() -> Self {
        let held = Mutex::new(Ledger { held: HashMap::default(), first: None });
        Self(Arc::new(Books { held, several: AtomicBool::new(false) }))
    }

    /// Counts more for somebody, of which there is `free`; none if it is more than their share.
    pub fn take(&self, who: &K, amount: usize, free: usize) -> Option<Held<K>> {
        self.extend(who, 0, amount, free)
    }

    /// Counts more for something of somebody's that holds `mine` already: if that is all they hold, it may grow as long as
    /// there is room, as it could have been large from the beginning.
    pub fn extend(&self, who: &K, mine: usize, amount: usize, free: usize) -> Option<Held<K>> {
        let mut ledger = self.0.held.lock();
        let own = ledger.held.get(who).copied().unwrap_or(0);
        self.meet(&mut ledger, who);
        let more = own.saturating_add(amount);
        let several = self.0.several.load(Ordering::Relaxed);
        if several && own > mine && more > free.saturating_sub(amount) {
            return None;
        }
        ledger.held.insert(who.clone(), more);
        Some(Held { books: Arc::clone(&self.0), who: who.clone(), amount })
    }

    /// Counts more for somebody, whatever they hold.
    pub fn count(&self, who: &K, amount: usize) -> Held<K> {
        let mut ledger = self.0.held.lock();
        self.meet(&mut ledger, who);
        *ledger.held.entry(who.clone()).or_insert(0) += amount;
        Held { books: Arc::clone(&self.0), who: who.clone(), amount }
    }

    /// How much somebody holds.
    #[cfg(test)]
    fn held(&self, who: &K) -> usize {
        self.0.held.lock().held.get(who).copied().unwrap_or(0)
    }

    /// Whether there was ever more than one.
    #[cfg(test)]
    fn several(&self) -> bool {
        self.0.several.load(Ordering::Relaxed)
    }

    fn meet(&self, ledger: &mut Ledger<K>, who: &K) {
        match &ledger.first {
            Some(first) if first != who => self.0.several.store(true, Ordering::Relaxed),
            Some(_) => {}
            None => ledger.first = Some(who.clone()),
        }
    }
}

impl<K: Clone + Eq + Hash> Default for Shares<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash> Held<K> {
    /// How much it is.
    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Makes one of two of the same holder.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(self.who == other.who, "only what one holds is one");
        self.amount += std::mem::take(&mut other.amount);
    }
}

impl<K: Eq + Hash> Drop for Held<K> {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut ledger = self.books.held.lock();
        match ledger.held.get_mut(&self.who) {
            Some(held) if *held > self.amount => *held -= self.amount,
            Some(_) | None => {
                ledger.held.remove(&self.who);
            }
        }
    }
}

impl<K> fmt::Debug for Shares<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares").field("holders", &self.0.held.lock().held.len()).finish()
    }
}

impl<K: Eq + Hash + fmt::Debug> fmt::Debug for Held<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("who", &self.who).field("amount", &self.amount).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as much as there is for somebody, one by one.
    fn fill(shares: &Shares<char>, who: char, free: &mut usize) -> Vec<Held<char>> {
        let mut held = Vec::new();
        while *free > 0 {
            let Some(one) = shares.take(&who, 1, *free) else { break };
            *free -= 1;
            held.push(one);
        }
        held
    }

    #[test]
    fn one_alone_may_have_all() {
        let shares = Shares::new();
        let mut free = 100;
        assert_eq!(fill(&shares, 'a', &mut free).len(), 100);
        assert_eq!((shares.held(&'a'), shares.several()), (0, false));
    }

    #[test]
    fn of_several_nobody_takes_more_than_they_leave() {
        let shares = Shares::new();
        drop(shares.take(&'z', 1, 100));
        let mut free = 100;
        let a = fill(&shares, 'a', &mut free);
        let b = fill(&shares, 'b', &mut free);
        let c = fill(&shares, 'c', &mut free);
        assert_eq!((a.len(), b.len(), c.len()), (50, 25, 12));
        assert_eq!(shares.held(&'a'), 50);
        assert!(shares.take(&'d', 13, free).is_some());
        drop(a);
        assert_eq!(shares.held(&'a'), 0);
    }

    #[test]
    fn the_one_thing_somebody_holds_may_grow() {
        let shares = Shares::new();
        drop(shares.take(&'z', 1, 10));
        let mut one = shares.take(&'a', 1, 10).unwrap();
        for free in (0..=8).rev() {
            one.merge(shares.extend(&'a', one.amount(), 1, free + 1).unwrap());
        }
        assert_eq!(one.amount(), 10);
        // Beside another it may not.
        let _other = shares.count(&'a', 1);
        assert!(shares.extend(&'a', 10, 1, 5).is_none());
    }

    #[test]
    fn who_holds_nothing_gets_what_there_is_and_who_held_all_gets_no_more() {
        let shares = Shares::new();
        let mut free = 4;
        let mut a = fill(&shares, 'a', &mut free);
        assert_eq!(a.len(), 4);
        a.pop();
        let b = shares.take(&'b', 1, 1).unwrap();
        assert!(shares.take(&'a', 1, 1).is_none());
        drop((a, b));
        assert!(shares.take(&'a', 4, 4).is_some());
        let mut counted = shares.count(&'a', 3);
        counted.merge(shares.count(&'a', 4));
        assert_eq!(shares.held(&'a'), 7);
        drop(counted);
        assert_eq!(shares.held(&'a'), 0);
    }
}
