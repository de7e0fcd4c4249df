//! Connections, counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// The connections of a listener.
#[derive(Debug)]
pub struct ConnectionCount {
    most: usize,
    open: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl ConnectionCount {
    pub(super) fn of(most: usize) -> Self {
        Self { most, open: AtomicUsize::new(0), accepted: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    /// As many as there may be.
    pub fn most(&self) -> usize {
        self.most
    }

    /// As many as there are.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// As many as came since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Of these, how many were closed at once because their client had too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }
}

/// A connection that is open until this is dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<ConnectionCount>);

impl Open {
    pub(super) fn one_more(count: &Arc<ConnectionCount>) -> Self {
        count.open.fetch_add(1, Relaxed);
        count.accepted.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_count_while_they_are_open() {
        let count = Arc::new(ConnectionCount::of(5));
        let one = Open::one_more(&count);
        let two = Open::one_more(&count);
        assert_eq!((count.open(), count.accepted()), (2, 2));
        drop(one);
        assert_eq!((count.open(), count.accepted()), (1, 2));
        drop(two);
        count.refuse();
        assert_eq!((count.open(), count.refused(), count.most()), (0, 1, 5));
    }
}
