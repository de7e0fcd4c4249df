//! Which series ClickHouse knows to have samples on which day.
//!
//! A series has a row for every day on which it has samples, and all pods write it: nobody hands out ids.
//! So that not every sample brings that row along, a pod remembers the rows it has written of yesterday,
//! today and tomorrow, exactly: taking one for written that is not would hide its samples. Forgetting one
//! only costs writing it again. Days before that are written with every batch, because
//! [`clean_tombstones`](crate::storage::Storage::clean_tombstones) may have removed them since.
//!
//! A row that somebody is just writing is waited for. In the last hour of a day the rows of the next are
//! written ahead, each series at its own moment, so that midnight is no storm.

use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use foldhash::fast::RandomState;
use futures_util::{FutureExt, future::Shared};
use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use super::{
    counters::{WriteCounters, add, sub},
    slip::{Outcome, lost},
};
use crate::model::{Millis, SeriesId, TenantId, Timestamp};

/// Locks over which the series are spread.
const SHARDS: usize = 64;

/// Entries kept at most, of all days and tenants.
const CAPACITY: usize = 4_000_000;

/// Tenants kept at most; beyond that all is forgotten, which takes a deployment nobody has.
const TENANTS: usize = 1_000_000;

const DAY: i64 = Millis::DAY.0;
const HOUR: i64 = Millis::HOUR.0;

/// What a pod knows of the series in ClickHouse.
#[derive(Debug)]
pub(super) struct Registry {
    shards: Vec<Mutex<Shard>>,
    /// A short name for each tenant; part of every entry, so that no two tenants share one.
    tenants: RwLock<HashMap<TenantId, u32>>,
    numbers: AtomicU32,
    hasher: RandomState,
    /// Entries of one shard and day in one generation.
    generation: usize,
    flights: AtomicU64,
    counters: Arc<WriteCounters>,
}

#[derive(Debug, Default)]
struct Shard {
    known: Vec<Known>,
    pending: HashMap<(u16, Key), Flight, RandomState>,
}

/// The series known of a day: when the younger generation is full the older is forgotten, and whatever of
/// it is in use has moved to the younger.
#[derive(Debug)]
struct Known {
    day: u16,
    young: HashTable<Key>,
    old: HashTable<Key>,
}

/// Tenant and series, packed: there are millions of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key([u32; 5]);

impl Key {
    #[expect(clippy::cast_possible_truncation, reason = "the id is cut into four")]
    fn new(tenant: u32, id: SeriesId) -> Self {
        Self([tenant, id.0 as u32, (id.0 >> 32) as u32, (id.0 >> 64) as u32, (id.0 >> 96) as u32])
    }

    fn shard(self) -> usize {
        usize::try_from(self.0[1]).unwrap_or(0) % SHARDS
    }
}

/// The writing of some series' rows, which others can wait for.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    number: u64,
    outcome: Shared<oneshot::Receiver<Outcome>>,
}

impl Flight {
    /// Waits until the rows are written, or are not.
    pub(super) async fn outcome(self) -> Outcome {
        self.outcome.await.unwrap_or_else(|_| Err(lost()))
    }
}

/// What a batch needs ClickHouse to know. Dropped, others may write what it was to write.
#[derive(Debug)]
pub(super) struct Claim {
    registry: Arc<Registry>,
    tenant: u32,
    today: i64,
    /// How far into the last hour of its day the pod is.
    into_last_hour: Option<i64>,
    /// Rows to write: the day, the series and its place in the batch.
    pub(super) new: Vec<(u16, SeriesId, u32)>,
    /// Settles them.
    pub(super) registration: Registration,
    /// Rows of tomorrow to write, for which nobody waits.
    pub(super) ahead: Vec<(u16, SeriesId, u32)>,
    /// Settles those.
    pub(super) ahead_registration: Registration,
    /// What others are writing.
    pub(super) flights: Vec<Flight>,
}

/// Rows being written. Dropped unfinished, they are not known.
#[derive(Debug)]
pub(super) struct Registration {
    registry: Arc<Registry>,
    keys: Vec<(u16, Key)>,
    flight: Flight,
    send: Option<oneshot::Sender<Outcome>>,
    today: i64,
}

impl Registry {
    pub(super) fn new(counters: Arc<WriteCounters>) -> Arc<Self> {
        Self::with_capacity(CAPACITY, counters)
    }

    /// Two days at most are full at a time: yesterday is while today fills, or today while tomorrow does.
    fn with_capacity(capacity: usize, counters: Arc<WriteCounters>) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            tenants: RwLock::default(),
            numbers: AtomicU32::new(0),
            hasher: RandomState::default(),
            generation: (capacity / SHARDS / 4).max(1),
            flights: AtomicU64::new(0),
            counters,
        })
    }

    /// Begins to ask what is to be written for a batch of a tenant.
    pub(super) fn claim(self: &Arc<Self>, tenant: &TenantId, now: Timestamp) -> Claim {
        let into_last_hour = now.0.rem_euclid(DAY) - (DAY - HOUR);
        Claim {
            registry: Arc::clone(self),
            tenant: self.tenant(tenant),
            today: now.day(),
            into_last_hour: (into_last_hour >= 0).then_some(into_last_hour),
            new: Vec::new(),
            registration: self.registration(now),
            ahead: Vec::new(),
            ahead_registration: self.registration(now),
            flights: Vec::new(),
        }
    }

    /// What is known, or being written, of a tenant's series yesterday, today or tomorrow.
    pub(super) fn known_to(&self, tenant: &TenantId, today: u16) -> KnownTo<'_> {
        KnownTo { registry: self, tenant: self.tenant(tenant), today }
    }

    fn registration(self: &Arc<Self>, now: Timestamp) -> Registration {
        let (send, receive) = oneshot::channel();
        let flight = Flight { number: self.flights.fetch_add(1, Relaxed), outcome: receive.shared() };
        let registry = Arc::clone(self);
        Registration { registry, keys: Vec::new(), flight, send: Some(send), today: now.day() }
    }

    fn tenant(&self, tenant: &TenantId) -> u32 {
        if let Some(number) = self.tenants.read().get(tenant) {
            return *number;
        }
        let mut tenants = self.tenants.write();
        if tenants.len() >= TENANTS {
            // Numbers are not given twice: what was known is not found any more, and makes room in its time.
            tenants.clear();
        }
        *tenants.entry(tenant.clone()).or_insert_with(|| self.numbers.fetch_add(1, Relaxed))
    }
}

/// A tenant's series that are known these days.
#[derive(Debug)]
pub(super) struct KnownTo<'a> {
    registry: &'a Registry,
    tenant: u32,
    today: u16,
}

impl KnownTo<'_> {
    /// Whether a series is.
    pub(super) fn has(&self, id: SeriesId) -> bool {
        let key = Key::new(self.tenant, id);
        let hash = self.registry.hasher.hash_one(key);
        let mut shard = self.registry.shards[key.shard()].lock();
        let today = self.today;
        [Some(today), today.checked_sub(1), today.checked_add(1)].into_iter().flatten().any(|day| {
            shard.known(day).is_some_and(|known| known.has(hash, key, self.registry))
                || shard.pending.contains_key(&(day, key))
        })
    }
}

/// Whether a day's rows are remembered once they are written.
fn is_remembered(day: u16, today: i64) -> bool {
    (today - 1..=today + 1).contains(&i64::from(day))
}

impl Shard {
    /// What is known of a day.
    fn known(&mut self, day: u16) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.day == day)
    }

    /// What is known of a day, from now on.
    fn learn_of(&mut self, day: u16, registration: &Registration) -> &mut Known {
        let at = self.known.iter().position(|known| known.day == day).unwrap_or_else(|| {
            let gone = self.known.extract_if(.., |known| !is_remembered(known.day, registration.today));
            let gone: usize = gone.map(|known| known.young.len() + known.old.len()).sum();
            sub(&registration.registry.counters.registry_entries, gone);
            self.known.push(Known { day, young: HashTable::new(), old: HashTable::new() });
            self.known.len() - 1
        });
        &mut self.known[at]
    }
}

impl Known {
    /// Whether a series is known, which keeps it from being forgotten.
    fn has(&mut self, hash: u64, key: Key, registry: &Registry) -> bool {
        if self.young.find(hash, |k| *k == key).is_some() {
            return true;
        }
        let Ok(entry) = self.old.find_entry(hash, |k| *k == key) else { return false };
        entry.remove();
        self.make_young(hash, key, registry);
        true
    }

    fn insert(&mut self, hash: u64, key: Key, registry: &Registry) {
        if !self.has(hash, key, registry) {
            add(&registry.counters.registry_entries, 1);
            self.make_young(hash, key, registry);
        }
    }

    fn make_young(&mut self, hash: u64, key: Key, registry: &Registry) {
        if self.young.len() >= registry.generation {
            let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young)).len();
            add(&registry.counters.registry_evictions, forgotten);
            sub(&registry.counters.registry_entries, forgotten);
        }
        self.young.insert_unique(hash, key, |key| registry.hasher.hash_one(key));
    }
}

impl Claim {
    /// Says that a series has something on a day.
    pub(super) fn need(&mut self, day: u16, id: SeriesId, ordinal: u32) {
        let key = Key::new(self.tenant, id);
        let registry = &*self.registry;
        let hash = registry.hasher.hash_one(key);
        let mut shard = registry.shards[key.shard()].lock();
        // A day that is over stays in the shard until another begins there, but is not to be trusted any more.
        let today = self.today;
        let is_known = |shard: &mut Shard, day| {
            is_remembered(day, today) && shard.known(day).is_some_and(|known| known.has(hash, key, registry))
        };
        if !is_known(&mut shard, day) {
            let flight = &self.registration.flight;
            let pending = shard.pending.entry((day, key)).or_insert_with(|| {
                self.registration.keys.push((day, key));
                self.new.push((day, id, ordinal));
                flight.clone()
            });
            if pending.number != flight.number {
                add(&registry.counters.registry_waits, 1);
                if !self.flights.iter().rev().any(|f| f.number == pending.number) {
                    self.flights.push(pending.clone());
                }
            }
        }
        // A moment of its own within the hour for every series.
        let moment = i64::try_from(id.hash64() % 3_600).unwrap_or(0) * 1_000;
        if self.into_last_hour.is_some_and(|into| moment <= into)
            && i64::from(day) == self.today
            && let Some(tomorrow) = day.checked_add(1)
            && !is_known(&mut shard, tomorrow)
        {
            shard.pending.entry((tomorrow, key)).or_insert_with(|| {
                self.ahead_registration.keys.push((tomorrow, key));
                self.ahead.push((tomorrow, id, ordinal));
                self.ahead_registration.flight.clone()
            });
        }
    }
}

impl Registration {
    /// Remembers the rows if they were written, and tells those who wait.
    pub(super) fn settle(mut self, outcome: &Outcome) {
        if outcome.is_ok() {
            self.registry.counters.series_registered.fetch_add(self.keys.len() as u64, Relaxed);
        }
        self.end(outcome.is_ok());
        if let Some(send) = self.send.take() {
            // Nobody may be waiting.
            let _ = send.send(outcome.clone());
        }
    }

    fn end(&mut self, written: bool) {
        for (day, key) in std::mem::take(&mut self.keys) {
            let mut shard = self.registry.shards[key.shard()].lock();
            shard.pending.remove(&(day, key));
            if written && is_remembered(day, self.today) {
                let hash = self.registry.hasher.hash_one(key);
                shard.learn_of(day, self).insert(hash, key, &self.registry);
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.end(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::clickhouse::client::{Class, Failure};

    /// Noon of day 20,000.
    const NOON: Timestamp = Timestamp(20_000 * DAY + DAY / 2);

    fn registry(capacity: usize) -> Arc<Registry> {
        Registry::with_capacity(capacity, Arc::default())
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    /// Claims series of a tenant on a day.
    fn claim(registry: &Arc<Registry>, name: &str, now: Timestamp, day: u16, ids: &[u128]) -> Claim {
        let mut claim = registry.claim(&tenant(name), now);
        for (ordinal, id) in (0..).zip(ids) {
            claim.need(day, SeriesId(*id), ordinal);
        }
        claim
    }

    fn failed() -> Outcome {
        Err(Failure::new(Class::Overloaded, "no"))
    }

    fn known(registry: &Registry) -> u64 {
        registry.counters.registry_entries.load(Relaxed)
    }

    #[test]
    fn a_series_is_new_once_a_day_and_tenant() {
        let registry = registry(1_000);
        let first = claim(&registry, "a", NOON, 20_000, &[1, 2, 1]);
        assert_eq!(first.new, [(20_000, SeriesId(1), 0), (20_000, SeriesId(2), 1)]);
        first.registration.settle(&Ok(()));
        assert_eq!(known(&registry), 2);
        assert_eq!(claim(&registry, "a", NOON, 20_000, &[1, 2]).new, []);
        assert_eq!(claim(&registry, "a", NOON, 20_001, &[1]).new.len(), 1);
        assert_eq!(claim(&registry, "b", NOON, 20_000, &[1]).new.len(), 1);
        // The halves of an id both count.
        assert_eq!(claim(&registry, "a", NOON, 20_000, &[1 | 1 << 64]).new.len(), 1);
    }

    #[test]
    fn what_was_not_written_is_new_again() {
        let registry = registry(1_000);
        claim(&registry, "a", NOON, 20_000, &[1]).registration.settle(&failed());
        assert_eq!(claim(&registry, "a", NOON, 20_000, &[1]).new.len(), 1, "and dropped");
        assert_eq!(claim(&registry, "a", NOON, 20_000, &[1]).new.len(), 1);
        assert_eq!(known(&registry), 0);
    }

    #[test]
    fn what_another_writes_is_waited_for() {
        let registry = registry(1_000);
        let first = claim(&registry, "a", NOON, 20_000, &[1, 2]);
        let second = claim(&registry, "a", NOON, 20_000, &[2, 1, 3]);
        assert_eq!(second.new, [(20_000, SeriesId(3), 2)]);
        assert_eq!(second.flights.len(), 1);
        let wait = second.flights[0].clone();
        assert!(wait.clone().outcome().now_or_never().is_none());
        first.registration.settle(&Ok(()));
        assert!(wait.outcome().now_or_never().unwrap().is_ok());
        let third = claim(&registry, "a", NOON, 20_000, &[1, 2, 3]);
        assert_eq!((third.new.len(), third.flights.len()), (0, 1));
        drop(second);
        assert!(third.flights[0].clone().outcome().now_or_never().unwrap().is_err());
    }

    #[test]
    fn old_days_are_written_with_every_batch() {
        let registry = registry(1_000);
        for day in [19_998, 20_002, 0, u16::MAX] {
            claim(&registry, "a", NOON, day, &[1]).registration.settle(&Ok(()));
            assert_eq!(claim(&registry, "a", NOON, day, &[1]).new.len(), 1, "day {day}");
        }
        for day in [19_999, 20_000, 20_001] {
            claim(&registry, "a", NOON, day, &[1]).registration.settle(&Ok(()));
            assert_eq!(claim(&registry, "a", NOON, day, &[1]).new.len(), 0, "day {day}");
        }
    }

    #[test]
    fn a_day_is_not_taken_for_known_once_its_rows_may_be_gone() {
        let registry = registry(1_000);
        claim(&registry, "a", NOON, 20_000, &[1]).registration.settle(&Ok(()));
        let later = |days: i64| Timestamp(NOON.0 + days * DAY);
        assert_eq!(claim(&registry, "a", later(1), 20_000, &[1]).new.len(), 0);
        // Nothing else was written in between, so nothing made the registry forget.
        assert_eq!(claim(&registry, "a", later(2), 20_000, &[1]).new.len(), 1);
        assert_eq!(claim(&registry, "a", later(30), 20_000, &[1]).new.len(), 1);
    }

    #[test]
    fn a_day_that_is_over_makes_room() {
        let registry = registry(1_000);
        for day in 0..10_u16 {
            let now = Timestamp(NOON.0 + i64::from(day) * DAY);
            claim(&registry, "a", now, 20_000 + day, &[1, 2, 3]).registration.settle(&Ok(()));
            assert!(known(&registry) <= 6);
        }
        assert_eq!(claim(&registry, "a", NOON, 20_000, &[1]).new.len(), 1);
    }

    #[test]
    fn what_is_in_use_is_not_forgotten() {
        let registry = registry(SHARDS * 8);
        for id in (0..100_u128).map(|i| i * SHARDS as u128) {
            claim(&registry, "a", NOON, 20_000, &[7 * SHARDS as u128 + (1 << 80), id])
                .registration
                .settle(&Ok(()));
            assert!(known(&registry) <= 4);
        }
        assert_eq!(claim(&registry, "a", NOON, 20_000, &[7 * SHARDS as u128 + (1 << 80)]).new, []);
        assert!(registry.counters.registry_evictions.load(Relaxed) > 90);
    }

    #[test]
    fn tomorrow_is_written_ahead_in_the_last_hour() {
        let registry = registry(1_000_000);
        let ids: Vec<u128> = (0..3_600).collect();
        let last_hour = Timestamp(20_001 * DAY - HOUR);
        let before = claim(&registry, "a", Timestamp(last_hour.0 - 1), 20_000, &ids);
        assert_eq!((before.new.len(), before.ahead.len()), (3_600, 0));
        before.registration.settle(&Ok(()));
        let mut ahead = 0;
        for minute in 0..60 {
            let claim = claim(&registry, "a", Timestamp(last_hour.0 + minute * 60_000), 20_000, &ids);
            assert_eq!(claim.new.len(), 0);
            assert!(claim.ahead.len() <= 60, "a sixtieth at a time");
            ahead += claim.ahead.len();
            claim.ahead_registration.settle(&Ok(()));
        }
        assert!(ahead > 3_500, "{ahead}");
        let midnight = claim(&registry, "a", Timestamp(20_001 * DAY), 20_001, &ids);
        assert_eq!(midnight.new.len() + ahead, 3_600);
    }
}
