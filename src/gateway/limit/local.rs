//! Buckets in this process's memory.
//!
//! A bucket is governor's GCRA: all it remembers is the moment at which it will be full again. governor counts time in
//! whole nanoseconds for each thing let through, which at a rate of millions is far off. Here time has no unit of its own:
//! a bucket's clock ticks `rate × n` times a second, so that a thing takes exactly `n` ticks whatever the rate is
//! (`bucket`).
//!
//! Tenants are spread over shards, each with a lock that is held for one decision over all buckets of a request. Who was
//! not seen for longest makes room for who is new: at a bounded number of tenants, that one's buckets are all but
//! certainly full, and a full bucket is as good as none.
//!
//! A tenant's tokens may have limits of their own, so that there may be several buckets for one of its limits. A new one
//! starts no fuller than the one before: changing a limit is no way to get a burst.

mod bucket;
#[cfg(test)]
mod tests;

use std::{fmt, hash::BuildHasher, num::NonZeroUsize, sync::Arc, time::Duration};

use async_trait::async_trait;
use foldhash::fast::RandomState;
use lru::LruCache;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::buckets::{Buckets, Draw, Level, Short};
use crate::{clock::Clock, model::TenantId};

use bucket::Bucket;

/// For how many tenants buckets are remembered in a server.
pub const TENANTS: usize = 1 << 16;

/// Shards: so many requests can be decided at a time.
const SHARDS: usize = 16;

/// How many buckets there may be for one limit of a tenant.
const VARIANTS: usize = 4;

/// The buckets of one tenant, the one used last in the back.
type Held = SmallVec<[Bucket; 2]>;

type Shard = Mutex<LruCache<TenantId, Held, RandomState>>;

/// A bucket for each tenant and rate, in memory.
pub struct LocalBuckets {
    clock: Arc<dyn Clock>,
    shards: [Shard; SHARDS],
    hasher: RandomState,
}

impl LocalBuckets {
    /// Full buckets for everybody; they are remembered for about so many tenants.
    pub fn new(clock: Arc<dyn Clock>, max_tenants: usize) -> Self {
        let hasher = RandomState::default();
        let room = NonZeroUsize::new(max_tenants.div_ceil(SHARDS)).unwrap_or(NonZeroUsize::MIN);
        let shards = std::array::from_fn(|_| Mutex::new(LruCache::with_hasher(room, hasher.clone())));
        Self { clock, shards, hasher }
    }

    /// Tenants whose buckets are remembered.
    pub fn tenants(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, tenant: &TenantId) -> &Shard {
        let hash = self.hasher.hash_one(tenant);
        // The upper bits: the map of the shard goes by the lower ones.
        let at = usize::try_from(hash >> 32).unwrap_or(0) % SHARDS;
        &self.shards[at]
    }

    /// Does something with a tenant's buckets.
    fn with<T>(&self, tenant: &TenantId, act: impl FnOnce(&mut Held, Duration) -> T) -> T {
        let now = self.clock.elapsed();
        let mut shard = self.shard(tenant).lock();
        if let Some(held) = shard.get_mut(tenant) {
            return act(held, now);
        }
        // Whoever was not seen for longest is let go one by one, if there is nothing to remember.
        for _ in 0..2 {
            if shard.peek_lru().is_some_and(|(_, held)| held.iter().all(|bucket| bucket.is_full(now))) {
                shard.pop_lru();
            }
        }
        act(shard.get_or_insert_mut(tenant.clone(), Held::new), now)
    }
}

/// The bucket of a draw, made if it is not there.
fn bucket_of<'a>(held: &'a mut Held, draw: &Draw, clock: &Arc<dyn Clock>, now: Duration) -> &'a mut Bucket {
    if let Some(at) = held.iter().position(|bucket| bucket.serves(draw)) {
        if !held[at].is_worn(now) {
            return &mut held[at];
        }
        let again = Bucket::after(Some(&held[at]), draw, Arc::clone(clock), now);
        held[at] = again;
        return &mut held[at];
    }
    let of_limit = |bucket: &Bucket| bucket.limit() == draw.limit;
    let bucket = Bucket::after(held.iter().rfind(|b| of_limit(b)), draw, Arc::clone(clock), now);
    // Those of limits that hold no more are left behind full.
    held.retain(|bucket| bucket.limit() != draw.limit || !bucket.is_full(now));
    if held.iter().filter(|bucket| of_limit(bucket)).count() >= VARIANTS
        && let Some(oldest) = held.iter().position(of_limit)
    {
        held.remove(oldest);
    }
    held.push(bucket);
    held.last_mut().expect("a bucket was pushed")
}

#[async_trait]
impl Buckets for LocalBuckets {
    async fn take(&self, tenant: &TenantId, draws: &[Draw]) -> Result<(), Short> {
        self.with(tenant, |held, now| {
            let mut short: Option<Short> = None;
            let mut taken: SmallVec<[(Draw, bucket::Mark); 4]> = SmallVec::new();
            for draw in draws {
                let bucket = bucket_of(held, draw, &self.clock, now);
                let mark = bucket.mark();
                match bucket.take(draw.cost) {
                    Ok(()) => taken.push((*draw, mark)),
                    Err(retry_after) => {
                        let longer = short.is_none_or(|short| match (short.retry_after, retry_after) {
                            (None, _) => false,
                            (Some(_), None) => true,
                            (Some(so_far), Some(this)) => so_far < this,
                        });
                        if longer {
                            short = Some(Short { draw: *draw, retry_after });
                        }
                    }
                }
            }
            let Some(short) = short else { return Ok(()) };
            for (draw, mark) in taken.into_iter().rev() {
                if let Some(bucket) = held.iter_mut().find(|bucket| bucket.serves(&draw)) {
                    bucket.put_back(mark);
                }
            }
            Err(short)
        })
    }

    fn level(&self, tenant: &TenantId, draw: &Draw) -> Option<Level> {
        let now = self.clock.elapsed();
        let shard = self.shard(tenant).lock();
        let bucket = shard.peek(tenant).and_then(|held| held.iter().find(|bucket| bucket.serves(draw)));
        Some(match bucket {
            Some(bucket) => bucket.level(draw.cost, now),
            None => Level {
                left: draw.burst,
                enough_in: (draw.cost <= draw.burst && draw.rate > 0).then_some(Duration::ZERO),
                full_in: Duration::ZERO,
            },
        })
    }
}

impl fmt::Debug for LocalBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBuckets").field("tenants", &self.tenants()).finish_non_exhaustive()
    }
}
