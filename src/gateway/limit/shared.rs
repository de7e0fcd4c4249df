//! Buckets that several gateways share, in Redis.
//!
//! ```text
//! draws ─▶ more than a bucket ever holds? ─▶ short since then? ─▶ script in Redis ─▶ taken, or short until
//!            refused for good                  refused here         │ away, late
//!                                                                   └▶ our share (share.rs)
//! ```
//!
//! A tenant's buckets are keys `luminate:{<tenant>}:<limit>`; the braces put all of a tenant on one node of a cluster,
//! and no tenant's name has any. One script call, which is atomic, takes from all of them or from none, by Redis' own
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
    buckets::{Buckets, Draw, Short},
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
const MAX_UNITS: u64 = 1 << 52;

/// Tenants of whom it is remembered that they were short.
const MAX_HINTS: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

/// How long a hint is believed: someone may have emptied Redis, or raised a limit and lowered it again.
const HINT_LIFE: Duration = Duration::from_secs(1);

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
    hints: Mutex<LruCache<TenantId, SmallVec<[Hint; 2]>>>,
}

/// A bucket that was short: what was asked for is there at `at`, and not before.
#[derive(Clone, Copy, Debug)]
struct Hint {
    draw: Draw,
    at: Duration,
    /// Until when this is believed.
    until: Duration,
}

impl Hint {
    /// When there may be enough for a draw; none if there may be now.
    fn wait(&self, draw: &Draw, now: Duration) -> Option<Duration> {
        let same = (draw.limit, draw.rate, draw.burst) == (self.draw.limit, self.draw.rate, self.draw.burst);
        if !same || now >= self.until {
            return None;
        }
        // What comes in in the time between the two draws' moments is the difference of their costs.
        let nanos = |tokens: u64| {
            let nanos = u128::from(tokens) * 1_000_000_000 / u128::from(draw.rate.max(1));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        let at = if draw.cost >= self.draw.cost {
            self.at.saturating_add(nanos(draw.cost - self.draw.cost))
        } else {
            self.at.saturating_sub(nanos(self.draw.cost - draw.cost))
        };
        Some(at.saturating_sub(now)).filter(|wait| !wait.is_zero())
    }
}

impl SharedBuckets {
    /// Buckets behind `link`; without it, the share of one of `replicas` gateways.
    pub fn new(link: Arc<RedisLink>, clock: Arc<dyn Clock>, patience: Duration, replicas: u32) -> Self {
        Self {
            link,
            patience,
            sha1: redis::Script::new(SCRIPT).get_hash().to_owned(),
            share: Share::of(replicas, Arc::clone(&clock)),
            hints: Mutex::new(LruCache::new(MAX_HINTS)),
            clock,
        }
    }

    /// Whether each gateway takes its share now, Redis being away.
    pub fn is_on_its_own(&self) -> bool {
        self.link.state() != LinkState::Closed
    }

    /// Whether a draw is known to be short still.
    fn hinted(&self, tenant: &TenantId, draws: &[Draw]) -> Option<Short> {
        let now = self.clock.elapsed();
        let mut hints = self.hints.lock();
        let of_tenant = hints.get_mut(tenant)?;
        of_tenant.retain(|hint| now < hint.until);
        let shorts = draws.iter().flat_map(|draw| {
            let waits = of_tenant.iter().filter_map(|hint| hint.wait(draw, now));
            waits.map(|wait| Short { draw: *draw, retry_after: Some(wait) })
        });
        shorts.reduce(longer)
    }

    fn remember(&self, tenant: &TenantId, short: &Short) {
        let Some(wait) = short.retry_after else { return };
        let now = self.clock.elapsed();
        let at = now.saturating_add(wait);
        let hint = Hint { draw: short.draw, at, until: at.min(now.saturating_add(HINT_LIFE)) };
        let mut hints = self.hints.lock();
        let of_tenant = hints.get_or_insert_mut(tenant.clone(), SmallVec::new);
        of_tenant.retain(|old| old.draw.limit != hint.draw.limit);
        of_tenant.push(hint);
    }

    /// Takes in Redis.
    async fn take_there(&self, tenant: &TenantId, draws: &[Draw]) -> Result<Result<(), Short>, RedisFailure> {
        let asked =
            match self.link.call(&self.command(tenant, draws, "EVALSHA", &self.sha1), self.patience).await {
                // It was flushed, or this is another server; the whole text leaves it there again.
                Err(RedisFailure::NoScript) => {
                    self.link.call(&self.command(tenant, draws, "EVAL", SCRIPT), self.patience).await
                }
                asked => asked,
            };
        match asked? {
            Value::Int(0) => Ok(Ok(())),
            Value::Array(answer) => {
                let [Value::Int(which), Value::Int(wait)] = answer[..] else {
                    return Err(RedisFailure::Garbled);
                };
                let which = usize::try_from(which).ok().and_then(|which| which.checked_sub(1));
                let draw = *which.and_then(|which| draws.get(which)).ok_or(RedisFailure::Garbled)?;
                Ok(Err(Short { draw, retry_after: u64::try_from(wait).ok().map(Duration::from_micros) }))
            }
            _ => Err(RedisFailure::Garbled),
        }
    }

    /// Nothing of a tenant's becomes part of the script: names are keys, and numbers are arguments.
    fn command(&self, tenant: &TenantId, draws: &[Draw], verb: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(draws.len());
        for draw in draws {
            command.arg(format!("{}:{{{}}}:{}", self.link.prefix(), tenant.as_str(), draw.limit.name()));
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
    /// four quadrillions a second are as good as four.
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
        match merged.iter_mut().find(|other| other.limit == draw.limit) {
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
        if let Some(short) = self.hinted(tenant, &draws) {
            return Err(short);
        }
        match self.take_there(tenant, &draws).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(short)) => {
                self.remember(tenant, &short);
                Err(short)
            }
            // Said once by the link, and counted by it.
            Err(_) => self.share.take(tenant, &draws).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(cost: u64) -> Draw {
        Draw { limit: Limit::Samples, rate: 100, burst: 1000, cost }
    }

    #[test]
    fn a_hint_tells_when_there_may_be_enough_for_more_or_less() {
        let at = Duration::from_secs(10);
        let hint = Hint { draw: draw(100), at, until: at };
        let now = Duration::from_secs(9);
        assert_eq!(hint.wait(&draw(100), now), Some(Duration::from_secs(1)));
        assert_eq!(hint.wait(&draw(300), now), Some(Duration::from_secs(3)));
        assert_eq!(hint.wait(&draw(50), now), Some(Duration::from_millis(500)));
        assert_eq!(hint.wait(&draw(0), now), None, "there may be that much");
        assert_eq!(hint.wait(&draw(300), at), None, "it is not believed any more");
        assert_eq!(hint.wait(&Draw { rate: 101, ..draw(100) }, now), None, "another limit");
        assert_eq!(hint.wait(&Draw { limit: Limit::Bytes, ..draw(100) }, now), None, "another bucket");
    }

    #[test]
    fn numbers_are_counted_in_the_smallest_units_that_fit() {
        let units = |rate, burst| {
            let Units { ticks, rate, burst, .. } = Units::of(&Draw { rate, burst, ..draw(1) });
            (ticks, rate, burst)
        };
        assert_eq!(units(1, 1), (1_000_000, 1, 1));
        assert_eq!(units(4_000_000_000, 1), (1_000_000, 4_000_000_000, 1));
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
