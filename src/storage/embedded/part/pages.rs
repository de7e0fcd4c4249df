//! The pages that samples lie in: written full, read whole, checked, and kept for a while.
//!
//! Neighbouring series share pages and all series of a scrape share time columns, so a query reads a
//! page many times; the [`PageCache`] keeps those read last, of all parts together, within a bound.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{super::disk::WriteFile, matched::Matched};

/// Length and checksum before each payload.
pub(super) const PAGE_HEADER: usize = 8;

/// The greatest payload, unless a single body is longer.
const MAX_PAYLOAD: usize = 64 * 1024 - PAGE_HEADER;

/// The checksum of a page: over its length's bytes, its payload and its number.
pub(super) fn page_crc(length: [u8; 4], payload: &[u8], number: u32) -> u32 {
    numbered(crc32c::crc32c_append(crc32c::crc32c(&length), payload), number)
}

/// The checksum of a page, of that of all but its number.
pub(super) fn numbered(crc: u32, number: u32) -> u32 {
    crc32c::crc32c_append(crc, &number.to_le_bytes())
}

/// A file that grows at its end, with the checksum of all of it.
#[derive(Debug)]
pub(super) struct Tail {
    file: Box<dyn WriteFile>,
    /// How long it is.
    pub(super) length: u64,
    /// The checksum of all that was written.
    pub(super) crc: u32,
    /// Up to where it was made durable.
    synced: u64,
}

/// What is written is made durable in steps of so much, so that others who sync meanwhile wait for no more than that.
const SYNC_STEP: u64 = 16 << 20;

impl Tail {
    /// Starts with an empty file.
    pub(super) fn new(file: Box<dyn WriteFile>) -> Self {
        Self { file, length: 0, crc: 0, synced: 0 }
    }

    /// Writes bytes at the end.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        if self.length - self.synced >= SYNC_STEP {
            self.file.sync_data()?;
            self.synced = self.length;
        }
        Ok(())
    }

    /// Makes it all durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// Where a page lies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PageAt {
    /// Of its header in the file.
    pub(super) offset: u64,
    /// Of its payload.
    pub(super) length: u32,
}

/// Where all pages lie, by number.
pub(super) type PageTable = Vec<PageAt>;

/// Fills one page after the other.
#[derive(Debug, Default)]
pub(super) struct PageWriter {
    page: Vec<u8>,
    number: u32,
}

impl PageWriter {
    /// Puts bytes on a page: its number, and where on it they start.
    pub(super) fn append(
        &mut self,
        bytes: &[u8],
        table: &mut PageTable,
        tail: &mut Tail,
    ) -> io::Result<(u32, u32)> {
        if self.page.len() > PAGE_HEADER && self.page.len() - PAGE_HEADER + bytes.len() > MAX_PAYLOAD {
            self.flush(table, tail)?;
        }
        if self.page.is_empty() {
            self.page.resize(PAGE_HEADER, 0);
            self.number = u32::try_from(table.len()).map_err(|_| too_large("pages"))?;
            table.push(PageAt::default());
        }
        let offset = u32::try_from(self.page.len() - PAGE_HEADER).map_err(|_| too_large("a page"))?;
        self.page.extend_from_slice(bytes);
        Ok((self.number, offset))
    }

    /// Writes the page that is not full yet.
    pub(super) fn flush(&mut self, table: &mut PageTable, tail: &mut Tail) -> io::Result<()> {
        if self.page.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(self.page.len() - PAGE_HEADER).map_err(|_| too_large("a page"))?;
        let crc = page_crc(length.to_le_bytes(), &self.page[PAGE_HEADER..], self.number);
        self.page[..4].copy_from_slice(&length.to_le_bytes());
        self.page[4..8].copy_from_slice(&crc.to_le_bytes());
        table[self.number as usize] = PageAt { offset: tail.length, length };
        tail.append(&self.page)?;
        self.page.clear();
        Ok(())
    }
}

/// Says that a part cannot hold that much.
pub(super) fn too_large(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} outgrew the part format"))
}

/// Pages read last, header included, of all parts that share it, within a bound of bytes; and, within an eighth of it
/// more, what patterns found in those parts.
#[derive(Debug)]
pub struct PageCache {
    pub(super) matched: Matched,
    shards: [Mutex<Shard>; SHARDS],
    capacity_per_shard: usize,
    next_owner: AtomicU64,
}

const SHARDS: usize = 8;

type PageKey = (u64, u32);

#[derive(Debug, Default)]
struct Shard {
    pages: HashMap<PageKey, Slot, foldhash::fast::RandomState>,
    /// In the order they came, those used since going round once more.
    queue: VecDeque<PageKey>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    page: Arc<[u8]>,
    used: bool,
}

impl PageCache {
    /// Makes a cache of about `capacity` bytes.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            matched: Matched::new(capacity / 8),
            shards: std::array::from_fn(|_| Mutex::default()),
            capacity_per_shard: capacity / SHARDS,
            next_owner: AtomicU64::new(0),
        })
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }

    /// A number for one part's pages.
    pub(super) fn register(&self) -> u64 {
        self.next_owner.fetch_add(1, Ordering::Relaxed)
    }

    fn shard(&self, (owner, page): PageKey) -> &Mutex<Shard> {
        let mixed = (owner ^ u64::from(page)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        &self.shards[usize::try_from(mixed).unwrap_or(0) % SHARDS]
    }

    /// The page, if it is there.
    pub(super) fn get(&self, key: PageKey) -> Option<Arc<[u8]>> {
        let mut shard = self.shard(key).lock();
        let slot = shard.pages.get_mut(&key)?;
        slot.used = true;
        Some(Arc::clone(&slot.page))
    }

    /// Keeps a page that was read and checked.
    pub(super) fn put(&self, key: PageKey, page: &Arc<[u8]>) {
        if page.len() > self.capacity_per_shard {
            return;
        }
        let mut guard = self.shard(key).lock();
        let shard = &mut *guard;
        if shard.pages.insert(key, Slot { page: Arc::clone(page), used: false }).is_some() {
            return;
        }
        shard.queue.push_back(key);
        shard.bytes += page.len();
        while shard.bytes > self.capacity_per_shard {
            let Some(oldest) = shard.queue.pop_front() else { break };
            match shard.pages.get_mut(&oldest) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    shard.queue.push_back(oldest);
                }
                Some(_) => shard.forget(&oldest),
                // Forgotten with its part.
                None => {}
            }
        }
    }

    /// Drops what it has of a part that is no longer read.
    pub(super) fn forget(&self, owner: u64) {
        self.matched.forget(owner);
        for shard in &self.shards {
            let mut shard = shard.lock();
            let keys: Vec<PageKey> = shard.pages.keys().filter(|key| key.0 == owner).copied().collect();
            for key in keys {
                shard.forget(&key);
            }
            shard.queue.retain(|key| key.0 != owner);
        }
    }
}

impl Shard {
    fn forget(&mut self, key: &PageKey) {
        if let Some(slot) = self.pages.remove(key) {
            self.bytes -= slot.page.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_within_its_bound_and_keeps_what_is_used() {
        let cache = PageCache::new(SHARDS * 1000);
        let page: Arc<[u8]> = Arc::from(vec![0; 100]);
        let owner = cache.register();
        for number in 0..1000 {
            cache.put((owner, number), &page);
            assert!(cache.get((owner, 0)).is_some(), "page 0 is used all the time");
        }
        assert!(cache.bytes() <= SHARDS * 1000);
        cache.put((owner, 5000), &Arc::from(vec![0; 2000]));
        assert!(cache.get((owner, 5000)).is_none(), "what is larger than a shard is not kept");
        cache.forget(owner);
        assert_eq!(cache.bytes(), 0);
    }
}
