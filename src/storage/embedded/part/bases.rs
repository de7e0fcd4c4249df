//! Reads chunks that stand on others.
//!
//! A bucket of a histogram is written as what it is off another series' numbers, which may be what they are off a third's
//! (`families`). The reader walks down to one that stands by itself and adds up. Mostly all buckets of a family are
//! asked for in order, so a thread keeps the numbers it has added up last.

use std::{cell::RefCell, collections::VecDeque};

use hashbrown::HashMap;

use super::{
    super::chunk::{self, Damaged},
    families::MAX_DEPTH,
    footer::Section,
    reader::{ChunkEntry, Part, piece},
};
use crate::storage::{Result, SeriesSamples};

/// Numbers a thread keeps: a megabyte.
const KEPT_NUMBERS: usize = 1 << 17;

/// Whose numbers: the part's serial number, the series, and the time column.
type Key = (u64, u32, u32);

/// The numbers a thread has added up last.
#[derive(Debug, Default)]
struct Kept {
    numbers: HashMap<Key, Vec<i64>, foldhash::fast::RandomState>,
    queue: VecDeque<Key>,
    total: usize,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

impl Kept {
    fn put(&mut self, key: Key, numbers: &[i64]) {
        if numbers.len() > KEPT_NUMBERS / 4 || self.numbers.contains_key(&key) {
            return;
        }
        let mut room = Vec::new();
        while self.total + numbers.len() > KEPT_NUMBERS {
            let Some(oldest) = self.queue.pop_front() else { break };
            if let Some(old) = self.numbers.remove(&oldest) {
                self.total -= old.len();
                room = old;
            }
        }
        room.clear();
        room.extend_from_slice(numbers);
        self.total += room.len();
        self.numbers.insert(key, room);
        self.queue.push_back(key);
    }
}

impl Part {
    /// Adds the values of a chunk of series number `ordinal` that stands on another, whose times from number `before`
    /// on are there.
    pub(super) fn read_on_base(
        &self,
        ordinal: u32,
        entry: &ChunkEntry,
        body: &[u8],
        before: usize,
        into: &mut SeriesSamples,
    ) -> Result<()> {
        let count = into.timestamps.len() - before;
        let mut numbers = Vec::new();
        self.base_numbers(ordinal, entry, count, &mut numbers)?;
        chunk::decode_difference_body(body, before, &mut numbers, into)
            .map_err(|e| self.page_corrupt(entry.page, entry.offset, e))?;
        KEPT.with_borrow_mut(|kept| kept.put((self.serial, ordinal, entry.times), &numbers));
        Ok(())
    }

    /// The numbers that a chunk stands on.
    fn base_numbers(
        &self,
        ordinal: u32,
        entry: &ChunkEntry,
        count: usize,
        numbers: &mut Vec<i64>,
    ) -> Result<()> {
        let wrong = |why| self.index_corrupt(Section::Series, Damaged(why));
        let times = entry.times;
        let mut chain = Vec::new();
        let (mut at, mut distance) = (ordinal, entry.base);
        while distance > 0 {
            at = at.checked_sub(distance).ok_or_else(|| wrong("chunk stands on one before the first"))?;
            let known = KEPT.with_borrow(|kept| {
                let known = kept.numbers.get(&(self.serial, at, times)).filter(|known| known.len() == count);
                known.map(|known| numbers.extend_from_slice(known)).is_some()
            });
            if known {
                break;
            }
            if chain.len() >= MAX_DEPTH as usize {
                return Err(wrong("chunk stands on too many others"));
            }
            let chunks = self.chunks(at)?;
            let base =
                chunks.into_iter().find(|chunk| !chunk.histograms && !chunk.gaps && chunk.times == times);
            let base = base.ok_or_else(|| wrong("chunk stands on one that is not there"))?;
            distance = base.base;
            chain.push((at, base));
        }
        let mut one = Vec::new();
        for (at, base) in chain.iter().rev() {
            let page = self.page(base.page)?;
            one.clear();
            let decoded = piece(&page, base.offset, base.length)
                .and_then(|body| chunk::decode_numbers(body, count, &mut one))
                .and_then(|difference| {
                    let said = difference == (base.base > 0);
                    if said { Ok(()) } else { Err(Damaged("chunk is not what the index says")) }
                });
            decoded.map_err(|e| self.page_corrupt(base.page, base.offset, e))?;
            if base.base > 0 {
                for (number, off) in numbers.iter_mut().zip(&one) {
                    *number = number.wrapping_add(*off);
                }
            } else {
                numbers.clone_from(&one);
            }
            // Other buckets of the family stand on it, too.
            KEPT.with_borrow_mut(|kept| kept.put((self.serial, *at, times), numbers));
        }
        Ok(())
    }
}
