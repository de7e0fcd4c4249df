use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    conformance::{hold_to_contract, key},
    *,
};
use crate::{
    clock::{Clock, HandClock},
    gateway::auth::{AuthError, Known, keys::verify::MOST_BAD},
    model::Timestamp,
};

/// Records in memory, in a store that can be out of reach and counts how often it is asked.
#[derive(Debug, Default)]
struct Shelf {
    records: Mutex<HashMap<KeyId, KeyRecord>>,
    is_away: AtomicBool,
    asked: AtomicU64,
    generation: AtomicU64,
}

#[async_trait]
impl KeyStore for Shelf {
    async fn find(&self, id: &KeyId) -> Result<Option<KeyRecord>, KeyStoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_away.load(Ordering::Relaxed) {
            return Err(KeyStoreError::Unavailable("away".to_owned()));
        }
        Ok(self.records.lock().get(id).cloned())
    }

    async fn list(&self) -> Result<Vec<KeyRecord>, KeyStoreError> {
        let mut records: Vec<KeyRecord> = self.records.lock().values().cloned().collect();
        records.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(records)
    }

    async fn put(&self, record: KeyRecord) -> Result<(), KeyStoreError> {
        record.principal().map_err(|e| KeyStoreError::Broken(e.to_string()))?;
        let mut records = self.records.lock();
        if records.contains_key(&record.id) {
            return Err(KeyStoreError::Exists(record.id));
        }
        records.insert(record.id.clone(), record);
        Ok(())
    }

    async fn revoke(&self, id: &KeyId, now: Timestamp) -> Result<bool, KeyStoreError> {
        let mut records = self.records.lock();
        Ok(records.get_mut(id).map(|record| record.revoked = record.revoked.or(Some(now))).is_some())
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
}

const MINUTE: Duration = Duration::from_secs(60);

struct Bench {
    shelf: Arc<Shelf>,
    clock: Arc<HandClock>,
    keys: ApiKeys,
}

/// Keys that are remembered for 5 minutes, and are good for 15 while the store is away.
fn bench() -> Bench {
    let (shelf, clock) = (Arc::new(Shelf::default()), HandClock::at(Timestamp(1_000_000)));
    let size = NonZeroUsize::new(100).unwrap();
    let rules = CacheRules { size, ttl: 5 * MINUTE, stale_ttl: 15 * MINUTE };
    let store = Arc::clone(&shelf) as Arc<dyn KeyStore>;
    let keys = ApiKeys::new(store, rules, Arc::clone(&clock) as Arc<dyn Clock>);
    Bench { shelf, clock, keys }
}

impl Bench {
    /// A key with this record, as its holder has it.
    fn give(&self, change: impl FnOnce(&mut KeyRecord)) -> String {
        let (key, mut record) = key();
        change(&mut record);
        self.shelf.records.lock().insert(record.id.clone(), record);
        key.reveal().0
    }

    /// The name of who holds a key, or why they are not let in.
    async fn verify(&self, key: &str) -> Result<String, &'static str> {
        match self.keys.verify(key).await {
            Ok(principal) => Ok(principal.name.clone()),
            Err(AuthError::Refused { reason, .. }) => Err(reason),
            Err(AuthError::Unavailable(_)) => Err("unavailable"),
            Err(AuthError::Missing | AuthError::TooManyFailures { .. }) => Err("?"),
        }
    }

    fn asked(&self) -> u64 {
        self.shelf.asked.load(Ordering::Relaxed)
    }

    fn away(&self, is_away: bool) {
        self.shelf.is_away.store(is_away, Ordering::Relaxed);
    }
}

fn id_of(key: &str) -> KeyId {
    Key::parse(key).unwrap().id
}

/// The same id with another secret.
fn wrong(key: &str) -> String {
    let last = if key.ends_with('x') { 'y' } else { 'x' };
    format!("{}{last}", &key[..key.len() - 1])
}

#[tokio::test]
async fn the_shelf_of_these_tests_is_a_store() {
    hold_to_contract(&Shelf::default()).await;
}

#[tokio::test]
async fn a_key_lets_its_holder_in_and_nobody_else() {
    let bench = bench();
    let good = bench.give(|record| record.name = "good".to_owned());
    let principal = bench.keys.verify(&good).await.unwrap();
    assert_eq!(principal.known, Known::Key(id_of(&good).to_string()));
    assert_eq!(bench.verify(&wrong(&good)).await, Err("wrong_secret"));
    assert_eq!(bench.verify(&Key::draw().unwrap().reveal().0).await, Err("unknown_key"));
    for text in ["", "lum_", "lum_x", &good[..good.len() - 1], &format!("{good}x"), &"lum_a".repeat(2000)] {
        assert_eq!(bench.verify(text).await, Err("malformed_key"), "{text}");
    }
    for (change, reason) in [
        ((|r| r.disabled = true) as fn(&mut KeyRecord), "disabled_key"),
        (|r| r.revoked = Some(Timestamp(1)), "revoked_key"),
        (|r| r.expires = Some(Timestamp(1_000_000)), "expired_key"),
        (|r| r.expires = Some(Timestamp(i64::MIN)), "expired_key"),
        (|r| r.scopes = vec!["all".to_owned()], "broken_key"),
        (|r| r.filters = vec!["{".to_owned()], "broken_key"),
    ] {
        let key = bench.give(change);
        assert_eq!(bench.verify(&key).await, Err(reason));
        // Only who knows the secret learns what became of a key, and only from the log.
        assert_eq!(bench.verify(&wrong(&key)).await, Err("wrong_secret"));
    }
}

#[tokio::test]
async fn every_key_that_is_looked_up_costs_one_look_and_one_comparison() {
    let bench = bench();
    let good = bench.give(|_| {});
    let revoked = bench.give(|record| record.revoked = Some(Timestamp(1)));
    let unknown = Key::draw().unwrap().reveal().0;
    for (n, key) in (1..).zip([&good, &wrong(&good), &unknown, &revoked, &wrong(&revoked)]) {
        let _ = bench.keys.verify(key).await;
        let counters = bench.keys.counters();
        assert_eq!((bench.asked(), counters.compared.load(Ordering::Relaxed)), (n, n));
    }
}

#[tokio::test]
async fn what_was_found_out_is_remembered_for_its_time() {
    let bench = bench();
    let (good, unknown) = (bench.give(|_| {}), Key::draw().unwrap().reveal().0);
    for _ in 0..3 {
        assert!(bench.verify(&good).await.is_ok());
        assert!(bench.verify(&unknown).await.is_err());
    }
    assert_eq!(bench.asked(), 2);
    assert_eq!(bench.keys.remembered(), (1, 1));
    bench.clock.advance(5 * MINUTE - Duration::from_millis(1));
    assert!(bench.verify(&good).await.is_ok());
    assert_eq!(bench.asked(), 2);
    bench.clock.advance(Duration::from_millis(1));
    assert!(bench.verify(&good).await.is_ok());
    assert!(bench.verify(&unknown).await.is_err());
    assert_eq!(bench.asked(), 4);
}

#[tokio::test]
async fn a_revoked_key_is_out_within_the_time_keys_are_remembered() {
    let bench = bench();
    let key = bench.give(|_| {});
    assert!(bench.verify(&key).await.is_ok());
    assert!(bench.shelf.revoke(&id_of(&key), Timestamp(5)).await.unwrap());
    bench.clock.advance(5 * MINUTE - Duration::from_millis(1));
    assert!(bench.verify(&key).await.is_ok());
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.verify(&key).await, Err("revoked_key"));
    assert!(!bench.keys.is_known(&key));
    // Not even while the store is away.
    bench.away(true);
    bench.clock.advance(MINUTE);
    assert_eq!(bench.verify(&key).await, Err("unavailable"));
}

#[tokio::test]
async fn a_store_that_hears_of_changes_has_them_hold_at_once() {
    let bench = bench();
    let key = bench.give(|_| {});
    let late = Key::draw().unwrap();
    assert!(bench.verify(&key).await.is_ok());
    assert_eq!(bench.verify(&late.reveal().0).await, Err("unknown_key"));
    let record =
        KeyRecord { id: late.id.clone(), sha256: Sha256::of(&late.secret.0), ..super::conformance::key().1 };
    bench.shelf.put(record).await.unwrap();
    bench.shelf.revoke(&id_of(&key), Timestamp(5)).await.unwrap();
    bench.shelf.generation.fetch_add(1, Ordering::SeqCst);
    assert_eq!(bench.verify(&key).await, Err("revoked_key"));
    assert!(bench.verify(&late.reveal().0).await.is_ok());
}

#[tokio::test]
async fn a_key_ends_when_it_says_even_while_it_is_remembered() {
    let bench = bench();
    let key = bench.give(|record| record.expires = Some(Timestamp(1_000_000 + 2_000)));
    bench.clock.advance(Duration::from_millis(1_999));
    assert!(bench.verify(&key).await.is_ok());
    bench.away(true);
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.verify(&key).await, Err("unavailable"));
    bench.away(false);
    assert_eq!(bench.verify(&key).await, Err("expired_key"));
}

#[tokio::test]
async fn a_flood_of_bad_keys_costs_no_good_one_its_place() {
    let bench = bench();
    let good: Vec<String> = (0..100).map(|_| bench.give(|_| {})).collect();
    for key in &good {
        assert!(bench.verify(key).await.is_ok());
    }
    for _ in 0..2 * MOST_BAD.get() {
        assert!(bench.verify(&Key::draw().unwrap().reveal().0).await.is_err());
    }
    assert_eq!(bench.keys.remembered(), (100, MOST_BAD.get()));
    let asked = bench.asked();
    for key in &good {
        assert!(bench.verify(key).await.is_ok());
    }
    assert_eq!(bench.asked(), asked);
}

#[tokio::test]
async fn while_the_store_is_away_good_keys_go_on_for_a_while_and_no_other_gets_in() {
    let bench = bench();
    let (good, fresh, bad) = (bench.give(|_| {}), bench.give(|_| {}), Key::draw().unwrap().reveal().0);
    assert!(bench.verify(&good).await.is_ok());
    assert!(bench.verify(&bad).await.is_err());
    bench.away(true);
    bench.clock.advance(5 * MINUTE);
    assert_eq!(bench.verify(&fresh).await, Err("unavailable"));
    assert_eq!(bench.verify(&bad).await, Err("unavailable"));
    let asked = bench.asked();
    for _ in 0..100 {
        assert!(bench.verify(&good).await.is_ok());
    }
    assert_eq!(bench.asked(), asked + 1, "a store that is away is not asked for each request");
    assert!(bench.keys.is_known(&good) && !bench.keys.is_known(&fresh));
    bench.clock.advance(10 * MINUTE - Duration::from_millis(1));
    assert!(bench.verify(&good).await.is_ok());
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.verify(&good).await, Err("unavailable"));
    bench.away(false);
    assert!(bench.verify(&good).await.is_ok());
    assert!(bench.verify(&fresh).await.is_ok());
}

#[tokio::test]
async fn a_store_that_comes_back_is_asked_again() {
    let bench = bench();
    let key = bench.give(|_| {});
    assert!(bench.verify(&key).await.is_ok());
    bench.away(true);
    bench.clock.advance(6 * MINUTE);
    assert!(bench.verify(&key).await.is_ok());
    bench.shelf.revoke(&id_of(&key), Timestamp(5)).await.unwrap();
    bench.away(false);
    assert!(bench.verify(&key).await.is_ok());
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.verify(&key).await, Err("revoked_key"));
}

#[tokio::test]
async fn no_secret_is_in_what_is_shown_of_anything() {
    let bench = bench();
    let good = bench.give(|_| {});
    let mut shown = format!("{:?}", bench.keys.verify(&good).await.unwrap());
    for text in [wrong(&good), format!("{good}x"), good.replace("lum_", "lum__")] {
        let error = bench.keys.verify(&text).await.unwrap_err();
        shown += &format!("{error} {error:?}");
    }
    bench.away(true);
    bench.clock.advance(60 * MINUTE);
    let error = bench.keys.verify(&good).await.unwrap_err();
    shown += &format!("{error} {error:?} {:?} {:?}", bench.keys, bench.shelf);
    let secret = Key::parse(&good).unwrap().secret.0;
    assert!(!shown.contains(&secret[..8]), "{shown}");
    let hash = serde_json::to_string(&Sha256::of(&secret)).unwrap();
    assert!(!shown.contains(&hash[1..17]), "{shown}");
}
