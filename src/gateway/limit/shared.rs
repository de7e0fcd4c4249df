//! Buckets that several gateways share, in Redis.
//!
//! ```text
//! draws ─▶ more than a bucket ever holds? ─▶ short since then? ─▶ script in Redis ─▶ taken, or short until
//!            refused for good                  refused here         │ away, late
//!                                                                   └▶ our share (share.rs)
//! ```
//!
//! A tenant's buckets are keys `luminate:{<tenant>}:<limit>:<rate>:<burst>`; the braces put all of a tenant on one node
//! of a cluster, and no tenant's name has any. Rate and burst are in the name because a tenant's tokens may have
//! limits of their own, and so buckets. One script call, which is atomic, takes from all of them or from none, by Redis' own
//! time, so that the gateways' clocks do not matter. Every draw asks Redis, none is taken ahead: the limit is
//! exact however many gateways there are, and each call costs a round trip. Only what was short is not asked again
//! before there can be enough, for a moment at most.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use async_trait::async_trait;
use lru::LruCache;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use smallvec::SmallVec;

use super::{
    buckets::{Buckets, Draw, Level, Short},
    share::{Share, longer},
};
use crate::{
    clock::Clock,
    gateway::redis::{LinkState, RedisFailure, RedisLink},
    model::{Limit, TenantId},
};

/// The script that takes.
const SCRIPT: &str = include_str!("shared.lua");

/// The largest number of units that Redis counts exactly, with room for a sum of two.
const MAX_UNITS: u64 = 1 << 51;

/// Tenants whose buckets are remembered as they were seen last.
const MAX_SEEN: NonZeroUsize = NonZeroUsize::new(20_000).expect("it is not zero");

/// Buckets of one tenant that are remembered.
const MAX_SEEN_BUCKETS: usize = 8;

/// How long a bucket is believed to be empty without asking: someone may have emptied Redis.
const BELIEF: Duration = Duration::from_secs(1);

/// How long it is told how full a bucket was.
const MEMORY: Duration = Duration::from_secs(10);

/// Buckets that several gateways share.
#[derive(Debug)]
pub struct SharedBuckets {
    link: Arc<RedisLink>,
    clock: Arc<dyn Clock>,
    /// How long a draw may wait for Redis.
    patience: Duration,
    /// The script's name in Redis.
    sha1: String,
    share: Share,
    seen: Mutex<LruCache<TenantId, SmallVec<[Seen; 4]>>>,
    /// Tenants whose node of a cluster did not answer, and when it is asked again.
    paused: Mutex<LruCache<TenantId, Duration>>,
}

/// A bucket as Redis saw it: since then others may have taken from it, so that there is as much in it at most.
#[derive(Clone, Copy, Debug)]
struct Seen {
    limit: Limit,
    rate: u64,
    burst: u64,
    /// What was gone, in billionths of a token.
    used: u128,
    at: Duration,
}

impl Seen {
    fn serves(&self, draw: &Draw) -> bool {
        (self.limit, self.rate, self.burst) == (draw.limit, draw.rate, draw.burst)
    }

    fn level(&self, cost: u64, now: Duration) -> Level {
        let back = u128::from(self.rate).saturating_mul(now.saturating_sub(self.at).as_nanos());
        let used = self.used.saturating_sub(back);
        let burst = u128::from(self.burst) * NANOS;
        let until = |missing: u128| match (missing, self.rate) {
            (0, _) => Some(Duration::ZERO),
            (_, 0) => None,
            (missing, rate) => {
                let nanos = missing.div_ceil(u128::from(rate));
                Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
            }
        };
        let missing = (used + u128::from(cost) * NANOS).saturating_sub(burst);
        Level {
            left: u64::try_from(burst.saturating_sub(used) / NANOS).unwrap_or(u64::MAX),
            enough_in: (cost <= self.burst).then(|| until(missing)).flatten(),
            full_in: until(used).unwrap_or(Duration::MAX),
        }
    }
}

/// Billionths of a token.
const NANOS: u128 = 1_000_000_000;

/// How long a node of a cluster that did not answer is left alone by the tenants it has. The others' answers keep the
/// breaker closed.
const PAUSE: Duration = Duration::from_secs(1);

impl SharedBuckets {
    /// Buckets behind `link`; without it, the share of one of `replicas` gateways.
    pub fn new(link: Arc<RedisLink>, clock: Arc<dyn Clock>, patience: Duration, replicas: u32) -> Self {
        Self {
            link,
            patience,
            sha1: redis::Script::new(SCRIPT).get_hash().to_owned(),
            share: Share::of(replicas, Arc::clone(&clock)),
            seen: Mutex::new(LruCache::new(MAX_SEEN)),
            paused: Mutex::new(LruCache::new(MAX_SEEN)),
            clock,
        }
    }

    /// Whether each gateway takes its share now, Redis being away.
    pub fn is_on_its_own(&self) -> bool {
        self.link.state() != LinkState::Closed
    }

    /// Whether a draw is known to be short still.
    fn known_short(&self, tenant: &TenantId, draws: &[Draw]) -> Option<Short> {
        let now = self.clock.elapsed();
        let mut seen = self.seen.lock();
        let seen = seen.get(tenant)?;
        let shorts = draws.iter().filter_map(|draw| {
            let fresh = |seen: &&Seen| seen.serves(draw) && now.saturating_sub(seen.at) < BELIEF;
            let wait = seen.iter().find(fresh)?.level(draw.cost, now).enough_in;
            (wait != Some(Duration::ZERO)).then_some(Short { draw: *draw, retry_after: wait })
        });
        shorts.reduce(longer)
    }

    fn remember(&self, tenant: &TenantId, draws: &[Draw], used: &[Value], at: Duration) -> Option<()> {
        let mut seen = self.seen.lock();
        let seen = seen.get_or_insert_mut(tenant.clone(), SmallVec::new);
        for (draw, used) in draws.iter().zip(used) {
            let Value::Int(used) = used else { return None };
            let nanos = NANOS / u128::from(Units::of(draw).ticks);
            let used = u128::from(u64::try_from(*used).ok()?) * nanos;
            let Draw { limit, rate, burst, cost: _ } = *draw;
            let new = Seen { limit, rate, burst, used, at };
            let old = seen.iter().position(|old| old.serves(draw));
            if let Some(old) = old.or((seen.len() >= MAX_SEEN_BUCKETS).then_some(0)) {
                seen.remove(old);
            }
            seen.push(new);
        }
        Some(())
    }

    /// Takes in Redis.
    async fn ask(&self, tenant: &TenantId, draws: &[Draw]) -> Result<Result<(), Short>, RedisFailure> {
        // A bucket was as it is told a moment later than this, so that it may be thought fuller than it is, never emptier.
        let began = self.clock.elapsed();
        if self.is_paused(tenant, began) {
            return Err(RedisFailure::Away);
        }
        let by_name = self.command(tenant, draws, "EVALSHA", &self.sha1);
        let asked = match self.link.call(&by_name, self.patience).await {
            // It was flushed, or this is another server; the whole text leaves it there again.
            Err(RedisFailure::NoScript) => {
                self.link.call(&self.command(tenant, draws, "EVAL", SCRIPT), self.patience).await
            }
            asked => asked,
        };
        if asked.is_err() && self.link.is_cluster() {
            self.paused.lock().put(tenant.clone(), began + PAUSE);
        }
        let Value::Array(answer) = asked? else { return Err(RedisFailure::Garbled) };
        let [Value::Int(which), Value::Int(wait), used @ ..] = &answer[..] else {
            return Err(RedisFailure::Garbled);
        };
        self.remember(tenant, draws, used, began).ok_or(RedisFailure::Garbled)?;
        let Some(which) = usize::try_from(*which).ok().and_then(|which| which.checked_sub(1)) else {
            return Ok(Ok(()));
        };
        let draw = *draws.get(which).ok_or(RedisFailure::Garbled)?;
        Ok(Err(Short { draw, retry_after: u64::try_from(*wait).ok().map(Duration::from_micros) }))
    }

    fn is_paused(&self, tenant: &TenantId, now: Duration) -> bool {
        self.link.is_cluster() && self.paused.lock().peek(tenant).is_some_and(|until| now < *until)
    }

    /// Nothing of a tenant's becomes part of the script: names are keys, and numbers are arguments.
    fn command(&self, tenant: &TenantId, draws: &[Draw], verb: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(draws.len());
        for draw in draws {
            let (prefix, limit) = (self.link.prefix(), draw.limit.name());
            let Draw { rate, burst, .. } = draw;
            command.arg(format!("{prefix}:{{{}}}:{limit}:{rate}:{burst}", tenant.as_str()));
        }
        for draw in draws {
            let Units { ticks, rate, burst, cost } = Units::of(draw);
            command.arg(ticks).arg(rate).arg(burst).arg(cost);
        }
        command
    }
}

/// A draw in numbers that Redis can count with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Units {
    ticks: u64,
    rate: u64,
    burst: u64,
    cost: u64,
}

impl Units {
    /// Microseconds are the ticks, unless numbers would be too large: then milliseconds, then seconds, and more than
    /// two quadrillions a second are as good as two.
    fn of(draw: &Draw) -> Self {
        let largest = draw.rate.max(draw.burst);
        let fits = |ticks: &u64| largest.checked_mul(*ticks).is_some_and(|units| units <= MAX_UNITS);
        let ticks = [1_000_000, 1_000, 1].into_iter().find(fits).unwrap_or(1);
        let [rate, burst, cost] = [draw.rate, draw.burst, draw.cost].map(|tokens| tokens.min(MAX_UNITS));
        Self { ticks, rate, burst, cost }
    }
}

/// What is really drawn: nothing twice, and no nothing.
fn merged(draws: &[Draw]) -> SmallVec<[Draw; 4]> {
    let mut merged: SmallVec<[Draw; 4]> = SmallVec::new();
    for draw in draws.iter().filter(|draw| draw.cost > 0) {
        let same =
            |other: &&mut Draw| (other.limit, other.rate, other.burst) == (draw.limit, draw.rate, draw.burst);
        match merged.iter_mut().find(same) {
            Some(other) => other.cost = other.cost.saturating_add(draw.cost),
            None => merged.push(*draw),
        }
    }
    merged
}

#[async_trait]
impl Buckets for SharedBuckets {
    async fn take(&self, tenant: &TenantId, draws: &[Draw]) -> Result<(), Short> {
        let draws = merged(draws);
        if let Some(draw) = draws.iter().find(|draw| draw.cost > draw.burst) {
            return Err(Short { draw: *draw, retry_after: None });
        }
        if draws.is_empty() {
            return Ok(());
        }
        if let Some(short) = self.known_short(tenant, &draws) {
            return Err(short);
        }
        match self.ask(tenant, &draws).await {
            Ok(taken) => taken,
            // Said once by the link, and counted by it.
            Err(_) => self.share.take(tenant, &draws).await,
        }
    }

    fn level(&self, tenant: &TenantId, draw: &Draw) -> Option<Level> {
        if self.is_on_its_own() {
            return self.share.level(tenant, draw);
        }
        let now = self.clock.elapsed();
        let mut seen = self.seen.lock();
        let seen = seen.get(tenant)?.iter().find(|seen| seen.serves(draw))?;
        (now.saturating_sub(seen.at) < MEMORY).then(|| seen.level(draw.cost, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(cost: u64) -> Draw {
        Draw { limit: Limit::Samples, rate: 100, burst: 1000, cost }
    }

    #[test]
    fn a_bucket_is_known_by_how_it_was_seen() {
        let (rate, burst) = (100, 1000);
        let seen = Seen { limit: Limit::Samples, rate, burst, used: 950 * NANOS, at: Duration::from_secs(9) };
        let level = |cost, millis| {
            let Level { left, enough_in, full_in } = seen.level(cost, Duration::from_millis(millis));
            (left, enough_in.map(|wait| wait.as_millis()), full_in.as_millis())
        };
        assert_eq!(level(50, 9000), (50, Some(0), 9500));
        assert_eq!(level(51, 9000), (50, Some(10), 9500));
        assert_eq!(level(100, 9400), (90, Some(100), 9100));
        assert_eq!(level(1000, 9500), (100, Some(9000), 9000));
        assert_eq!(level(1001, 9500), (100, None, 9000));
        assert_eq!(level(1000, 60_000), (1000, Some(0), 0));
        assert!(seen.serves(&draw(1)) && !seen.serves(&Draw { rate: 101, ..draw(1) }));
        let stopped = Seen { used: 1000 * NANOS, rate: 0, ..seen };
        assert_eq!(stopped.level(1, Duration::from_secs(9)).enough_in, None);
    }

    #[test]
    fn numbers_are_counted_in_the_smallest_units_that_fit() {
        let units = |rate, burst| {
            let Units { ticks, rate, burst, .. } = Units::of(&Draw { rate, burst, ..draw(1) });
            (ticks, rate, burst)
        };
        assert_eq!(units(1, 1), (1_000_000, 1, 1));
        assert_eq!(units(2_000_000_000, 1), (1_000_000, 2_000_000_000, 1));
        assert_eq!(units(1, 5_000_000_000), (1_000, 1, 5_000_000_000));
        assert_eq!(units(5_000_000_000_000, 1), (1, 5_000_000_000_000, 1));
        assert_eq!(units(u64::MAX, 7), (1, MAX_UNITS, 7));
    }

    #[test]
    fn a_limit_that_is_named_twice_is_drawn_from_once() {
        let bytes = Draw { limit: Limit::Bytes, ..draw(7) };
        assert_eq!(merged(&[draw(1), bytes, draw(0), draw(2)])[..], [draw(3), bytes]);
        assert!(merged(&[draw(0)]).is_empty());
        assert_eq!(merged(&[draw(u64::MAX), draw(1)])[0].cost, u64::MAX);
    }
}
