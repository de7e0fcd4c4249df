//! From a key to who holds it.
//!
//! What was found out is kept under the SHA-256 of all that was presented, good and bad apart:
//!
//! * [`CacheRules::size`] good ones, which are looked up again after [`CacheRules::ttl`], so that a revoked key is out by
//!   then, or at once where the store hears of changes ([`KeyStore::generation`]);
//! * [`MOST_BAD`] bad ones, for [`BAD_TTL`]. They are kept elsewhere, so that however many bad keys are shown, no good one
//!   is forgotten for them; and nothing that is presented can be taken for something else, because the name it is kept
//!   under has one length and cannot be made to collide.
//!
//! A store that cannot be asked lets nobody in, but for keys that were good at most [`CacheRules::stale_ttl`] ago.
//!
//! An id that nobody has costs the same as a wrong secret: one look into the store, one hash, one comparison in constant
//! time.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lru::LruCache;
use parking_lot::Mutex;

use super::{
    key::{Key, Sha256},
    record::KeyRecord,
    store::{KeyStore, KeyStoreError},
};
use crate::{
    clock::Clock,
    gateway::auth::{AuthError, Principal},
    model::{Secret, Timestamp},
};

/// Bad keys that are remembered.
pub const MOST_BAD: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not 0");

/// How long a bad key is remembered: it may become good, when its record arrives.
pub const BAD_TTL: Duration = Duration::from_secs(10);

/// How long a store that could not be asked is left alone by those who need not ask.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Compared with where there is no record. No secret has this hash.
const NOBODY: Sha256 = Sha256([0; 32]);

/// What is remembered of keys, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheRules {
    /// Good keys that are remembered.
    pub size: NonZeroUsize,
    /// How long before they are looked up again.
    pub ttl: Duration,
    /// How long after they were looked up they are good while the store cannot be asked, if that is longer.
    pub stale_ttl: Duration,
}

/// Tells who holds a key.
#[derive(Debug)]
pub struct ApiKeys {
    store: Arc<dyn KeyStore>,
    clock: Arc<dyn Clock>,
    rules: CacheRules,
    good: Mutex<LruCache<Sha256, Good>>,
    bad: Mutex<LruCache<Sha256, Bad>>,
    counters: KeyCounters,
}

/// What verifying did, since the start.
#[derive(Debug, Default)]
pub struct KeyCounters {
    /// Keys that were known to be good.
    pub hits: AtomicU64,
    /// Keys that were known to be bad.
    pub bad_hits: AtomicU64,
    /// Keys that were looked up.
    pub lookups: AtomicU64,
    /// Secrets that were compared: one for each record that was looked for, found or not.
    pub compared: AtomicU64,
    /// Keys that were good a while ago, while the store could not be asked.
    pub stale: AtomicU64,
    /// Look-ups that the store did not answer.
    pub store_failures: AtomicU64,
}

/// Where an answer comes from in time.
#[derive(Clone, Copy, Debug)]
struct Found {
    at: Duration,
    generation: u64,
}

impl Found {
    fn holds(self, now: Self, ttl: Duration) -> bool {
        self.generation == now.generation && now.at.saturating_sub(self.at) < ttl
    }
}

#[derive(Clone, Debug)]
struct Good {
    principal: Arc<Principal>,
    expires: Option<Timestamp>,
    found: Found,
    /// When the store last could not be asked for it.
    asked: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Bad {
    error: AuthError,
    found: Found,
}

impl ApiKeys {
    /// Keys of a store.
    pub fn new(store: Arc<dyn KeyStore>, rules: CacheRules, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            good: Mutex::new(LruCache::sparse(rules.size)),
            bad: Mutex::new(LruCache::sparse(MOST_BAD)),
            rules,
            counters: KeyCounters::default(),
        }
    }

    /// Who holds a key.
    pub async fn verify(&self, text: &str) -> Result<Arc<Principal>, AuthError> {
        let Some(key) = Key::parse(text) else {
            return Err(refused("malformed_key", "it begins like a key and does not go on like one"));
        };
        let presented = Sha256::of(text);
        // Before the store is asked: what it says may be older than a change that it hears of meanwhile.
        let now = Found { at: self.clock.elapsed(), generation: self.store.generation() };
        let stale = match self.recognise(&presented, now) {
            Recognised::Good(principal) => return Ok(principal),
            Recognised::Bad(error) => return Err(error),
            Recognised::Stale(principal) => Some(principal),
            Recognised::New => None,
        };
        count(&self.counters.lookups);
        let record = match self.store.find(&key.id).await {
            Ok(record) => record,
            Err(error) => return self.without_store(&presented, stale, now, &error),
        };
        match self.judge(&key, record.as_ref()) {
            Ok(principal) => {
                let expires = record.and_then(|record| record.expires);
                let good = Good { principal: Arc::clone(&principal), expires, found: now, asked: None };
                self.good.lock().put(presented, good);
                Ok(principal)
            }
            Err(error) => {
                self.good.lock().pop(&presented);
                self.bad.lock().put(presented, Bad { error: error.clone(), found: now });
                Err(error)
            }
        }
    }

    /// Whether a key was good when it was last looked up, and has not been forgotten since. It has yet to be verified.
    pub fn is_known(&self, text: &str) -> bool {
        self.good.lock().contains(&Sha256::of(text))
    }

    /// What verifying did.
    pub fn counters(&self) -> &KeyCounters {
        &self.counters
    }

    /// How many good keys and how many bad ones are remembered.
    pub fn remembered(&self) -> (usize, usize) {
        (self.good.lock().len(), self.bad.lock().len())
    }

    fn recognise(&self, presented: &Sha256, now: Found) -> Recognised {
        let mut good = self.good.lock();
        if let Some(entry) = good.get(presented).filter(|entry| !self.is_over(entry)) {
            if entry.found.holds(now, self.rules.ttl) {
                count(&self.counters.hits);
                return Recognised::Good(Arc::clone(&entry.principal));
            }
            if !self.may_be_stale(entry, now) {
                return Recognised::New;
            }
            if entry.asked.is_some_and(|asked| now.at.saturating_sub(asked) < ASK_AGAIN) {
                count(&self.counters.stale);
                return Recognised::Good(Arc::clone(&entry.principal));
            }
            return Recognised::Stale(Arc::clone(&entry.principal));
        }
        drop(good);
        match self.bad.lock().get(presented) {
            Some(bad) if bad.found.holds(now, BAD_TTL) => {
                count(&self.counters.bad_hits);
                Recognised::Bad(bad.error.clone())
            }
            Some(_) | None => Recognised::New,
        }
    }

    fn is_over(&self, entry: &Good) -> bool {
        entry.expires.is_some_and(|end| end <= self.clock.now())
    }

    fn may_be_stale(&self, entry: &Good, now: Found) -> bool {
        now.at.saturating_sub(entry.found.at) < self.rules.stale_ttl.max(self.rules.ttl)
    }

    /// What to do about a key while the store does not say.
    fn without_store(
        &self,
        presented: &Sha256,
        stale: Option<Arc<Principal>>,
        now: Found,
        error: &KeyStoreError,
    ) -> Result<Arc<Principal>, AuthError> {
        count(&self.counters.store_failures);
        let Some(principal) = stale else { return Err(AuthError::Unavailable(error.to_string())) };
        if let Some(entry) = self.good.lock().peek_mut(presented) {
            entry.asked = Some(now.at);
        }
        count(&self.counters.stale);
        Ok(principal)
    }

    /// Whether a key is the one of a record, and in use. Does the same work whether there is a record or not.
    fn judge(&self, key: &Key, record: Option<&KeyRecord>) -> Result<Arc<Principal>, AuthError> {
        let is_same = self.is_secret(&key.secret, record.map_or(&NOBODY, |record| &record.sha256));
        let id = &key.id;
        match record {
            None => Err(refused("unknown_key", format!("there is no key {id}"))),
            Some(_) if !is_same => {
                Err(refused("wrong_secret", format!("this is not the secret of key {id}")))
            }
            Some(record) => {
                if let Err(why) = record.is_in_use(self.clock.now()) {
                    return Err(refused(why.reason(), format!("key {id} is {}", why.as_str())));
                }
                let principal = record.principal();
                principal.map(Arc::new).map_err(|e| refused("broken_key", format!("key {id}: {e}")))
            }
        }
    }

    fn is_secret(&self, secret: &Secret, kept: &Sha256) -> bool {
        count(&self.counters.compared);
        Sha256::of(&secret.0).is(kept)
    }
}

/// What is known of a key before the store is asked.
enum Recognised {
    /// It is good.
    Good(Arc<Principal>),
    /// It was good, so that it still is if the store cannot be asked.
    Stale(Arc<Principal>),
    /// It is bad.
    Bad(AuthError),
    /// Nothing.
    New,
}

fn refused(reason: &'static str, detail: impl Into<String>) -> AuthError {
    AuthError::Refused { reason, detail: detail.into() }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
