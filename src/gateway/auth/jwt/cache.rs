//! Tokens that were checked before.
//!
//! Good and bad ones are kept apart, so that a flood of bad ones pushes out no good one. Both are found by the SHA-256 of
//! the token as it came: nobody can make one token be taken for another, and no token is kept. What was found holds only for the
//! keys it was found with, a good token until it expires, a bad one for a moment.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use lru::LruCache;
use parking_lot::Mutex;

use super::refusal::Refusal;
use crate::{gateway::auth::Principal, model::Timestamp};

/// The locks that callers share.
const SHARDS: usize = 16;
/// Good tokens that are kept.
const MAX_GOOD: usize = 16 * 1024;
/// Bad tokens that are kept.
const MAX_BAD: usize = 4 * 1024;
/// How long a bad token is known to be bad.
const BAD_FOR: Duration = Duration::from_secs(10);

/// What a token is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(token: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    fn shard(self) -> usize {
        usize::from(self.0[0]) % SHARDS
    }
}

/// What is known of a token.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// It is good.
    Good(Arc<Principal>),
    /// It is bad.
    Bad(Refusal),
}

#[derive(Debug)]
struct Good {
    principal: Arc<Principal>,
    until: Timestamp,
    generation: u64,
}

#[derive(Debug)]
struct Bad {
    refusal: Refusal,
    /// By the clock that does not go back.
    until: Duration,
    generation: u64,
}

/// Tokens by their fingerprints.
#[derive(Debug)]
pub(super) struct TokenCache {
    good: Vec<Mutex<LruCache<Fingerprint, Good>>>,
    bad: Vec<Mutex<LruCache<Fingerprint, Bad>>>,
}

impl TokenCache {
    pub(super) fn new() -> Self {
        Self { good: shards(MAX_GOOD), bad: shards(MAX_BAD) }
    }

    /// What is known of a token at a moment.
    pub(super) fn get(
        &self,
        token: Fingerprint,
        generation: u64,
        now: Timestamp,
        elapsed: Duration,
    ) -> Option<Known> {
        let mut good = self.good[token.shard()].lock();
        if let Some(entry) = good.get(&token) {
            if entry.generation == generation && now < entry.until {
                return Some(Known::Good(Arc::clone(&entry.principal)));
            }
            good.pop(&token);
            return None;
        }
        drop(good);
        let mut bad = self.bad[token.shard()].lock();
        let entry = bad.get(&token)?;
        if entry.generation == generation && elapsed < entry.until {
            return Some(Known::Bad(entry.refusal.clone()));
        }
        bad.pop(&token);
        None
    }

    pub(super) fn put_good(
        &self,
        token: Fingerprint,
        principal: Arc<Principal>,
        until: Timestamp,
        generation: u64,
    ) {
        self.good[token.shard()].lock().put(token, Good { principal, until, generation });
    }

    pub(super) fn put_bad(&self, token: Fingerprint, refusal: Refusal, elapsed: Duration, generation: u64) {
        let until = elapsed + BAD_FOR;
        self.bad[token.shard()].lock().put(token, Bad { refusal, until, generation });
    }

    /// How many good and bad ones are kept.
    pub(super) fn len(&self) -> (usize, usize) {
        let good = self.good.iter().map(|shard| shard.lock().len()).sum();
        (good, self.bad.iter().map(|shard| shard.lock().len()).sum())
    }
}

fn shards<V>(entries: usize) -> Vec<Mutex<LruCache<Fingerprint, V>>> {
    let most = NonZeroUsize::new(entries / SHARDS).expect("there are more entries than shards");
    (0..SHARDS).map(|_| Mutex::new(LruCache::new(most))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::auth::jwt::refusal::Reason;

    #[test]
    fn a_flood_of_bad_tokens_pushes_out_no_good_one_and_is_bounded() {
        let cache = TokenCache::new();
        let (now, elapsed) = (Timestamp(1000), Duration::from_secs(1));
        let principal = Arc::new(Principal::anyone());
        let good = Fingerprint::of("good");
        cache.put_good(good, Arc::clone(&principal), Timestamp(2000), 7);
        for i in 0..50_000 {
            let refusal = Refusal::new(Reason::Signature, "no");
            cache.put_bad(Fingerprint::of(&format!("bad {i}")), refusal, elapsed, 7);
        }
        assert!(matches!(cache.get(good, 7, now, elapsed), Some(Known::Good(_))));
        assert_eq!(cache.len().0, 1);
        assert!(cache.len().1 <= MAX_BAD);
        for i in 0..50_000 {
            let token = Fingerprint::of(&format!("good {i}"));
            cache.put_good(token, Arc::clone(&principal), Timestamp(2000), 7);
        }
        assert!(cache.len().0 <= MAX_GOOD);
    }

    #[test]
    fn what_is_known_holds_for_its_time_and_its_keys() {
        let cache = TokenCache::new();
        let (good, bad) = (Fingerprint::of("good"), Fingerprint::of("bad"));
        let put = || {
            cache.put_good(good, Arc::new(Principal::anyone()), Timestamp(2000), 7);
            cache.put_bad(bad, Refusal::new(Reason::Signature, "no"), Duration::ZERO, 7);
        };
        let get = |token, generation, now, elapsed| {
            cache.get(token, generation, Timestamp(now), Duration::from_secs(elapsed)).is_some()
        };
        put();
        assert!(get(good, 7, 1999, 100) && get(bad, 7, 5000, 9));
        assert!(!get(good, 7, 2000, 0) && !get(bad, 7, 0, 10));
        put();
        assert!(!get(good, 8, 0, 0) && !get(bad, 8, 0, 0));
        assert_eq!(cache.len(), (0, 0));
    }
}
