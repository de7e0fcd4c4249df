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
//! A shard whose young half is full throws its old half away and starts a new young one, so what is
//! used at least once a turn stays, and memory is bounded. What is lost is only read again.

use std::fmt;

use hashbrown::HashTable;
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
    young: HashTable<Entry>,
    old: HashTable<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    key: u128,
    id: SeriesId,
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
            self.shards[shard_of(key)].lock().insert(Entry { key, id }, self.half);
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| {
                let shard = shard.lock();
                shard.young.len() + shard.old.len()
            })
            .sum()
    }
}

impl Shard {
    #[inline]
    fn find(&mut self, key: u128, half: usize) -> Option<SeriesId> {
        if let Some(entry) = self.young.find(hash_of(key), |entry| entry.key == key) {
            return Some(entry.id);
        }
        let entry = *self.old.find(hash_of(key), |entry| entry.key == key)?;
        self.insert(entry, half);
        Some(entry.id)
    }

    fn insert(&mut self, entry: Entry, half: usize) {
        if self.young.len() >= half {
            self.old = std::mem::take(&mut self.young);
        }
        let hash = hash_of(entry.key);
        match self.young.find_mut(hash, |known| known.key == entry.key) {
            Some(known) => known.id = entry.id,
            None => {
                self.young.insert_unique(hash, entry, |entry| hash_of(entry.key));
            }
        }
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

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
fn hash_of(key: u128) -> u64 {
    key as u64
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
