//! Series that have been seen: from the hash of a series' raw label bytes to its id.
//!
//! Reading, checking and canonicalising labels costs a hundred times what recognising them does, and
//! senders repeat the same bytes every few seconds. The key is a 128-bit hash with a secret that no
//! sender knows, of the bytes, the tenant and the rules the series was checked by; other rules
//! make all keys new, and the old ones fade.
//!
//! ```text
//! key ─▶ shard (1 of 64) ─▶ young ──miss──▶ old ──miss──▶ unknown
//!                             ▲ found in old: moved │
//!                             └─────────────────────┘
//! ```
//!
//! There is an entry for each series that anybody sends, so a half is a table in itself, packed and without pointers:
//! an entry is 28 bytes, and as many lie empty as make up a sixth to a third of the table, since it grows by a quarter.
//! Nothing is ever taken out, so who does not find an entry between its place and the next empty one knows that it is
//! not there; and places rise with keys, so that a table that grows is walked over once, from end to end.
//!
//! A shard whose young half is full throws its old half away and starts a new young one, so what is
//! used at least once a turn stays, and memory is bounded. What is lost is only read again.

use std::fmt;

use parking_lot::Mutex;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_secret, xxh3_128_with_seed};

use crate::model::{SeriesId, TenantId};

/// How many parts the table has, each with its own lock.
const SHARDS: usize = 64;
const SHARD_BITS: u32 = SHARDS.trailing_zeros();

/// Two random numbers from outside that make the keys unguessable.
pub type Seed = (u64, u64);

/// The table of series that have been seen.
pub(crate) struct KnownSeries {
    shards: Vec<Mutex<Shard>>,
    secret: Box<[u8; 192]>,
    salt_seed: u64,
    /// How many entries a half of a shard may have.
    half: usize,
}

#[derive(Default)]
struct Shard {
    young: Half,
    old: Half,
}

/// Entries, each at its key's place or shortly behind it.
#[derive(Default)]
struct Half {
    slots: Vec<Entry>,
    filled: usize,
}

/// The low 96 bits of a key, of which the others say little more than the shard, and the id.
type Entry = [u32; 7];

const KEY: usize = 3;
const EMPTY: Entry = [0; 7];

#[expect(clippy::cast_possible_truncation, reason = "each part is taken")]
const fn entry(key: u128, SeriesId(id): SeriesId) -> Entry {
    [
        key as u32,
        (key >> 32) as u32,
        (key >> 64) as u32,
        id as u32,
        (id >> 32) as u32,
        (id >> 64) as u32,
        (id >> 96) as u32,
    ]
}

fn id_of(entry: &Entry) -> SeriesId {
    SeriesId((KEY..entry.len()).rev().fold(0, |id, part| id << 32 | u128::from(entry[part])))
}

/// Makes the keys of one request.
#[derive(Debug)]
pub(crate) struct Keyer<'k> {
    secret: &'k [u8],
    salt: u128,
}

impl Keyer<'_> {
    /// The key of a series; never 0.
    #[inline]
    pub(crate) fn key(&self, bytes: &[u8]) -> u128 {
        (xxh3_128_with_secret(bytes, self.secret) ^ self.salt).max(1)
    }
}

impl KnownSeries {
    /// A table of at most `capacity` series.
    pub(crate) fn new(capacity: usize, seed: Seed) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            secret: Box::new(secret(seed)),
            salt_seed: seed.1,
            half: (capacity / SHARDS / 2).max(1),
        }
    }

    /// Makes the keys of a tenant's requests.
    ///
    /// Each protocol writes the same labels with other bytes, so each has keys of its own.
    pub(crate) fn keyer(&self, tenant: &TenantId, rules: u64, protocol: u8) -> Keyer<'_> {
        let turn = xxh3_64_with_seed(&rules.to_le_bytes(), self.salt_seed ^ u64::from(protocol));
        Keyer { secret: &*self.secret, salt: xxh3_128_with_seed(tenant.as_str().as_bytes(), turn) }
    }

    /// Appends the id of each key to `ids`, and gives the places of those that are not known.
    pub(crate) fn find_all(&self, keys: &[u128], ids: &mut Vec<SeriesId>) -> Vec<usize> {
        let first = ids.len();
        ids.resize(first + keys.len(), SeriesId(0));
        let ids = &mut ids[first..];
        let mut unknown = Vec::new();
        // Shard by shard, so that each is locked once.
        let (order, ends) = by_shard(keys);
        let mut start = 0;
        for (shard, end) in self.shards.iter().zip(ends) {
            if start == end {
                continue;
            }
            let mut shard = shard.lock();
            for &place in &order[start..end] {
                let place = place as usize;
                match shard.find(keys[place], self.half) {
                    Some(id) => ids[place] = id,
                    None => unknown.push(place),
                }
            }
            start = end;
        }
        unknown.sort_unstable();
        unknown
    }

    /// Whether a key is known.
    pub(crate) fn contains(&self, key: u128) -> bool {
        self.shards[shard_of(key)].lock().find(key, self.half).is_some()
    }

    /// Remembers a series; key 0 is no key.
    pub(crate) fn remember(&self, key: u128, id: SeriesId) {
        if key != 0 {
            self.shards[shard_of(key)].lock().insert(entry(key, id), self.half);
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| {
                let shard = shard.lock();
                shard.young.filled + shard.old.filled
            })
            .sum()
    }
}

impl Shard {
    #[inline]
    fn find(&mut self, key: u128, half: usize) -> Option<SeriesId> {
        let wanted = entry(key, SeriesId(0));
        if let Some(known) = self.young.find(&wanted) {
            return Some(id_of(known));
        }
        let known = *self.old.find(&wanted)?;
        self.insert(known, half);
        Some(id_of(&known))
    }

    fn insert(&mut self, entry: Entry, half: usize) {
        if self.young.filled >= half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(entry);
    }
}

impl Half {
    /// Where an entry with this key is, if nothing is in its way.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "it is less than the length")]
    fn place(&self, entry: &Entry) -> usize {
        let hash = u64::from(entry[1]) << 32 | u64::from(entry[0]);
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    /// Where an entry with this key is, or is to be: there is always a place.
    #[inline]
    fn seek(&self, entry: &Entry) -> usize {
        let mut at = self.place(entry);
        while self.slots[at][..KEY] != entry[..KEY] && self.slots[at] != EMPTY {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        at
    }

    #[inline]
    fn find(&self, entry: &Entry) -> Option<&Entry> {
        if self.slots.is_empty() {
            return None;
        }
        Some(&self.slots[self.seek(entry)]).filter(|found| **found != EMPTY)
    }

    fn insert(&mut self, entry: Entry) {
        // One key in 2⁹⁶ looks like none, and is never known.
        if entry[..KEY] == EMPTY[..KEY] {
            return;
        }
        if (self.filled + 1) * 6 > self.slots.len() * 5 {
            let grown = (self.slots.len() + self.slots.len() / 4).max(8);
            let before = std::mem::replace(&mut self.slots, vec![EMPTY; grown]);
            for entry in before.into_iter().filter(|entry| *entry != EMPTY) {
                let at = self.seek(&entry);
                self.slots[at] = entry;
            }
        }
        let at = self.seek(&entry);
        self.filled += usize::from(self.slots[at] == EMPTY);
        self.slots[at] = entry;
    }
}

/// Stretches the seed to the length the hash wants.
fn secret(seed: Seed) -> [u8; 192] {
    let mut secret = [0; 192];
    for (i, part) in (0_u64..).zip(secret.as_chunks_mut::<8>().0) {
        *part = xxh3_64_with_seed(&(seed.1.wrapping_add(i)).to_le_bytes(), seed.0).to_le_bytes();
    }
    secret
}

/// The places of keys in order of their shards, and where in that order each shard ends.
fn by_shard(keys: &[u128]) -> (Vec<u32>, [usize; SHARDS]) {
    let mut ends = [0; SHARDS];
    for key in keys {
        ends[shard_of(*key)] += 1;
    }
    let mut next = [0; SHARDS];
    let mut total = 0;
    for (end, next) in ends.iter_mut().zip(&mut next) {
        *next = total;
        total += *end;
        *end = total;
    }
    let mut order = vec![0; keys.len()];
    for (place, key) in (0..).zip(keys) {
        let at = &mut next[shard_of(*key)];
        order[*at] = place;
        *at += 1;
    }
    (order, ends)
}

fn shard_of(key: u128) -> usize {
    (key >> (128 - SHARD_BITS)) as usize
}

impl fmt::Debug for KnownSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownSeries").field("entries", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(known: &KnownSeries, keys: &[u128]) -> (Vec<u128>, Vec<usize>) {
        let mut ids = Vec::new();
        let unknown = known.find_all(keys, &mut ids);
        (ids.into_iter().map(|id| id.0).collect(), unknown)
    }

    #[test]
    fn what_is_remembered_is_found_in_the_order_asked() {
        let known = KnownSeries::new(1 << 16, (1, 2));
        let tenant = TenantId::anonymous();
        let keyer = known.keyer(&tenant, 0, 1);
        let keys: Vec<u128> = (0..1000_u32).map(|i| keyer.key(&i.to_le_bytes())).collect();
        for (i, key) in (0..).zip(&keys) {
            if i % 2 == 0 {
                known.remember(*key, SeriesId(i));
            }
        }
        let (found, unknown) = ids(&known, &keys);
        assert_eq!(unknown, (0..1000).filter(|i| i % 2 == 1).collect::<Vec<_>>());
        assert!((0..1000).filter(|i| i % 2 == 0).all(|i| found[i] == i as u128));
        assert_eq!(known.len(), 500);
    }

    #[test]
    fn a_table_takes_little_more_than_its_entries() {
        let known = KnownSeries::new(1 << 20, (1, 2));
        let keyer_of = TenantId::anonymous();
        let keyer = known.keyer(&keyer_of, 0, 1);
        let keys: Vec<u128> = (0..100_000_u32).map(|i| keyer.key(&i.to_le_bytes())).collect();
        for (id, key) in (0..).zip(&keys) {
            known.remember(*key, SeriesId(id << 64 | id));
        }
        let (found, unknown) = ids(&known, &keys);
        assert!(unknown.is_empty() && (0..).zip(found).all(|(i, id)| id == (i << 64 | i)));
        let slots: usize = known.shards.iter().map(|shard| shard.lock().young.slots.len()).sum();
        assert!(slots * size_of::<Entry>() < keys.len() * 44, "{slots}");
    }

    #[test]
    fn tenants_generations_and_protocols_share_nothing() {
        let known = KnownSeries::new(1 << 16, (1, 2));
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let keys = [
            known.keyer(&a, 0, 1).key(b"x"),
            known.keyer(&b, 0, 1).key(b"x"),
            known.keyer(&a, 1, 1).key(b"x"),
            known.keyer(&a, 0, 2).key(b"x"),
            KnownSeries::new(1, (3, 2)).keyer(&a, 0, 1).key(b"x"),
            KnownSeries::new(1, (1, 3)).keyer(&a, 0, 1).key(b"x"),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key));
        }
        assert_eq!(keys[0], known.keyer(&a, 0, 1).key(b"x"));
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let known = KnownSeries::new(64 * 20, (1, 2));
        let tenant = TenantId::anonymous();
        let keyer = known.keyer(&tenant, 0, 1);
        let hot = keyer.key(b"hot");
        known.remember(hot, SeriesId(7));
        for i in 0..100_000_u32 {
            known.remember(keyer.key(&i.to_le_bytes()), SeriesId(u128::from(i)));
            if i % 16 == 0 {
                assert!(known.contains(hot), "after {i}");
            }
        }
        assert!(known.len() <= 64 * 22, "{}", known.len());
        assert!(!known.contains(keyer.key(&0_u32.to_le_bytes())));
    }

    #[test]
    fn no_key_is_never_known() {
        let known = KnownSeries::new(1024, (1, 2));
        known.remember(0, SeriesId(1));
        assert_eq!(ids(&known, &[0, 0]), (vec![0, 0], vec![0, 1]));
        assert_eq!(ids(&known, &[]), (vec![], vec![]));
    }
}
