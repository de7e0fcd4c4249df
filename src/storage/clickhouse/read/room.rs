//! How much of what is looked up may be held here.

use std::{borrow::Borrow, collections::BTreeSet, ops::ControlFlow};

use crate::storage::{Result, StorageError};

/// Bytes that what one look-up keeps may take, and what it takes.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    taken: usize,
    /// Whether the bound is that of the request.
    asked: bool,
}

impl Room {
    pub(super) fn of(most: usize) -> Self {
        Self { most, taken: 0, asked: false }
    }

    /// No more than `limit`, if there is one.
    pub(super) fn within(self, limit: Option<u64>) -> Self {
        match limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)) {
            Some(limit) if limit < self.most => Self { most: limit, asked: true, ..self },
            Some(_) | None => self,
        }
    }

    /// Takes bytes; if there are none left the look-up is over, and [`check`](Self::check) says why.
    pub(super) fn take(&mut self, bytes: usize) -> ControlFlow<()> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > self.most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Fails if more was taken than there was.
    pub(super) fn check(&self) -> Result<()> {
        if self.taken <= self.most {
            return Ok(());
        }
        if self.asked {
            return Err(StorageError::TooManyLabelBytes { limit: self.most as u64 });
        }
        Err(StorageError::Exhausted {
            detail: format!(
                "the labels of what matches take more than {} bytes (storage.clickhouse.lookup_memory)",
                self.most
            ),
        })
    }
}

/// The first so many of what is offered, in order, each once.
#[derive(Debug)]
pub(super) struct First<T> {
    all: BTreeSet<T>,
    limit: usize,
    bytes: fn(&T) -> usize,
    room: Room,
}

impl<T: Ord> First<T> {
    /// As many as `limit`, 0 being all, if there is room; `bytes` says what one takes.
    pub(super) fn of(limit: usize, room: Room, bytes: fn(&T) -> usize) -> Self {
        Self { all: BTreeSet::new(), limit: if limit == 0 { usize::MAX } else { limit }, bytes, room }
    }

    /// Offers something; `make` gives it if it is wanted.
    pub(super) fn offer<Q: Ord + ?Sized>(&mut self, what: &Q, make: impl FnOnce() -> T) -> ControlFlow<()>
    where
        T: Borrow<Q>,
    {
        let full = self.all.len() >= self.limit;
        if self.all.contains(what) || (full && self.all.last().is_some_and(|last| last.borrow() <= what)) {
            return ControlFlow::Continue(());
        }
        if full && let Some(last) = self.all.pop_last() {
            self.room.taken = self.room.taken.saturating_sub((self.bytes)(&last));
        }
        let made = make();
        self.room.take((self.bytes)(&made))?;
        self.all.insert(made);
        ControlFlow::Continue(())
    }

    /// What was wanted, in order.
    pub(super) fn done(self) -> Result<Vec<T>> {
        self.room.check()?;
        Ok(self.all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(limit: usize, room: usize, all: &[&str]) -> Result<Vec<String>> {
        let mut first = First::of(limit, Room::of(room), |text: &String| text.len());
        let _ = all.iter().try_for_each(|text| first.offer(*text, || (*text).to_owned()));
        first.done()
    }

    #[test]
    fn the_first_of_all_are_kept_once() {
        let all = ["d", "b", "c", "b", "a", "d"];
        assert_eq!(first(0, 100, &all).unwrap(), ["a", "b", "c", "d"]);
        assert_eq!(first(2, 100, &all).unwrap(), ["a", "b"]);
        assert_eq!(first(9, 100, &all).unwrap(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn what_has_to_go_makes_room() {
        assert_eq!(first(2, 3, &["dd", "c", "b", "a"]).unwrap(), ["a", "b"]);
        let error = first(0, 3, &["dd", "c", "b", "a"]).unwrap_err();
        assert!(matches!(&error, StorageError::Exhausted { detail } if detail.contains("lookup_memory")));
    }
}
