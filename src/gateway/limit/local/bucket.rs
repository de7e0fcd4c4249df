//! One bucket.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock as TickingClock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};

use super::super::buckets::{Draw, Level};
use crate::{clock::Clock, model::Limit};

/// Ticks are counted in 64 bits, and no sum of a few of these overflows.
const MOST_TICKS: u64 = 1 << 61;

/// Beyond this a rate is as good as none.
const HIGHEST_RATE: u64 = 1 << 40;

const NANOS: u128 = 1_000_000_000;

/// How a bucket's things and time are counted.
///
/// ```text
/// ticks/s = rate × ticks of a thing                 at least about one a nanosecond, so that waits are exact
/// ticks of a unit = ticks of a thing × things       governor counts what it lets through in 32 bits
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    /// Ticks in a second.
    frequency: u64,
    /// Ticks of one thing.
    thing: u64,
    /// Things in what governor counts as one: more than one only for bursts above 2³², of which little is waited for
    /// that is there already.
    unit: u64,
    /// Things in a full bucket.
    burst: u64,
}

impl Scale {
    fn of(rate: u64, burst: u64) -> Self {
        let rate = rate.clamp(1, HIGHEST_RATE);
        let burst = burst.clamp(1, MOST_TICKS / 2);
        let finest = (1_000_000_000 / rate).max(1);
        let thing = finest.min(MOST_TICKS / 2 / burst).max(1);
        let unit = burst.div_ceil(u64::from(u32::MAX));
        Self { frequency: rate * thing, thing, unit, burst: burst - burst % unit }
    }

    /// Ticks within a time, those begun not counted.
    fn ticks(&self, time: Duration) -> u64 {
        let ticks = time.as_nanos() * u128::from(self.frequency) / NANOS;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// The time of so many ticks, rounded up.
    fn time(&self, ticks: u64) -> Duration {
        let nanos = (u128::from(ticks) * NANOS).div_ceil(u128::from(self.frequency));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn quota(&self) -> Option<Quota> {
        let units = u32::try_from(self.burst / self.unit).unwrap_or(u32::MAX);
        let quota = Quota::with_period(Duration::from_nanos(self.thing * self.unit))?;
        Some(quota.allow_burst(NonZeroU32::new(units)?))
    }
}

/// Our clock as governor reads it: in ticks of a bucket, since it was made.
struct Ticks {
    clock: Arc<dyn Clock>,
    since: Duration,
    scale: Scale,
}

impl TickingClock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.scale.ticks(self.clock.elapsed().saturating_sub(self.since)))
    }
}

/// The tick at which a bucket is full again. It is only read and written under the lock of its shard.
#[derive(Clone, Debug, Default)]
struct FullAt(Arc<AtomicU64>);

impl FullAt {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, tick: u64) {
        self.0.store(tick, Ordering::Relaxed);
    }
}

impl StateStore for FullAt {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, full_at) = decide(Some(Nanos::new(self.get())))?;
        self.set(full_at.as_u64());
        Ok(outcome)
    }
}

/// A bucket of one limit, rate and burst.
pub(super) struct Bucket {
    limit: Limit,
    rate: u64,
    burst: u64,
    scale: Scale,
    since: Duration,
    full_at: FullAt,
    /// Things that were paid for with a unit of which they did not need all.
    paid: u64,
    /// None lets nothing through.
    limiter: Option<RateLimiter<NotKeyed, FullAt, Ticks, NoOpMiddleware<Nanos>>>,
}

/// How a bucket stood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    full_at: u64,
    paid: u64,
}

impl Bucket {
    /// A bucket that is full, or no fuller than the one in whose place it comes.
    pub(super) fn after(before: Option<&Self>, draw: &Draw, clock: Arc<dyn Clock>, now: Duration) -> Self {
        let Draw { limit, rate, burst, cost: _ } = *draw;
        let scale = Scale::of(rate, burst);
        let full_at = FullAt::default();
        if let Some(before) = before {
            let missing = scale.burst.saturating_sub(before.left(now));
            full_at.set(missing.saturating_mul(scale.thing));
        }
        let quota = if rate == 0 || burst == 0 { None } else { scale.quota() };
        let limiter = quota.map(|quota| {
            let ticks = Ticks { clock, since: now, scale };
            RateLimiter::new(quota, full_at.clone(), ticks)
        });
        Self { limit, rate, burst, scale, since: now, full_at, paid: 0, limiter }
    }

    /// Which limit it is of.
    pub(super) fn limit(&self) -> Limit {
        self.limit
    }

    /// Whether it is the one of a draw.
    pub(super) fn serves(&self, draw: &Draw) -> bool {
        (self.limit, self.rate, self.burst) == (draw.limit, draw.rate, draw.burst)
    }

    /// Whether there is nothing to remember of it.
    pub(super) fn is_full(&self, now: Duration) -> bool {
        self.full_at.get() <= self.tick(now)
    }

    /// Whether its ticks have become so many that it is time for a new one.
    pub(super) fn is_worn(&self, now: Duration) -> bool {
        self.tick(now) > MOST_TICKS
    }

    /// How it stands.
    pub(super) fn mark(&self) -> Mark {
        Mark { full_at: self.full_at.get(), paid: self.paid }
    }

    /// As it stood.
    pub(super) fn put_back(&mut self, mark: Mark) {
        self.full_at.set(mark.full_at);
        self.paid = mark.paid;
    }

    /// Takes things out, or tells when there will be as many; none is never.
    pub(super) fn take(&mut self, cost: u64) -> Result<(), Option<Duration>> {
        if cost > self.burst {
            return Err(None);
        }
        let unpaid = cost.saturating_sub(self.paid);
        let Some(limiter) = &self.limiter else { return if cost == 0 { Ok(()) } else { Err(None) } };
        // More than governor counts as a burst is less than one unit more: what a rounding is worth.
        let most = self.scale.burst / self.scale.unit;
        let units = unpaid.div_ceil(self.scale.unit).min(most);
        if let Some(units) = u32::try_from(units).ok().and_then(NonZeroU32::new) {
            match limiter.check_n(units) {
                Ok(Ok(())) => {}
                Ok(Err(not_yet)) => {
                    let ticks: Duration = not_yet.wait_time_from(limiter.clock().now());
                    let ticks = u64::try_from(ticks.as_nanos()).unwrap_or(u64::MAX);
                    // Not even an instant is too early: who comes back finds what they wait for.
                    return Err(Some(self.scale.time(ticks).max(Duration::from_nanos(1))));
                }
                Err(_) => return Err(None),
            }
        }
        self.paid = (self.paid + units * self.scale.unit).saturating_sub(cost);
        Ok(())
    }

    /// How it stands for one who wants `cost`.
    pub(super) fn level(&self, cost: u64, now: Duration) -> Level {
        let missing = self.full_at.get().saturating_sub(self.tick(now));
        let enough_in = (cost <= self.burst && self.limiter.is_some()).then(|| {
            let may_miss = (self.scale.burst.saturating_sub(cost.saturating_sub(self.paid)))
                .saturating_mul(self.scale.thing);
            self.scale.time(missing.saturating_sub(may_miss))
        });
        Level {
            left: if self.limiter.is_some() { self.left(now) } else { 0 },
            enough_in,
            full_in: self.scale.time(missing),
        }
    }

    fn left(&self, now: Duration) -> u64 {
        let missing = self.full_at.get().saturating_sub(self.tick(now)).div_ceil(self.scale.thing);
        self.scale.burst.saturating_sub(missing.saturating_sub(self.paid))
    }

    fn tick(&self, now: Duration) -> u64 {
        self.scale.ticks(now.saturating_sub(self.since))
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, rate, burst, .. } = self;
        f.debug_struct("Bucket")
            .field("limit", limit)
            .field("rate", rate)
            .field("burst", burst)
            .finish_non_exhaustive()
    }
}
