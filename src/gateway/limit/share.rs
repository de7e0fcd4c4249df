//! A process's share of what several have together, while they cannot count together.
//!
//! Of `n` processes each lets an `n`th of a rate through, and an `n`th of a burst at once. A single draw that is
//! larger than that, but not than the whole burst, is let through by a full bucket, which then has to make up for it:
//! over time the rate holds all the same. All numbers are exact: what is used is counted in `n`ths of a billionth of
//! a token, of which a rate gives back a whole number in each nanosecond.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use async_trait::async_trait;
use lru::LruCache;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::buckets::{Buckets, Draw, Level, Short};
use crate::{
    clock::Clock,
    model::{Limit, TenantId},
};

/// Tenants that are remembered; one that is forgotten begins with a full share.
const MAX_TENANTS: NonZeroUsize = NonZeroUsize::new(100_000).expect("it is not zero");

/// Units of a token in each of `n` shares.
const NANOS: u128 = 1_000_000_000;

/// Buckets of one tenant that are remembered; of those its tokens have limits of their own for, the oldest goes first.
const MAX_METERS: usize = 16;

/// What a process may let through by itself.
#[derive(Debug)]
pub struct Share {
    /// Processes that share the rates.
    processes: u32,
    clock: Arc<dyn Clock>,
    meters: Mutex<LruCache<TenantId, Meters>>,
}

type Meters = SmallVec<[Meter; 4]>;

/// What is gone from a bucket, and when that was so.
#[derive(Clone, Copy, Debug)]
struct Meter {
    limit: Limit,
    rate: u64,
    burst: u64,
    used: u128,
    at: Duration,
}

impl Meter {
    fn full(draw: &Draw) -> Self {
        Self { limit: draw.limit, rate: draw.rate, burst: draw.burst, used: 0, at: Duration::ZERO }
    }

    fn serves(&self, draw: &Draw) -> bool {
        (self.limit, self.rate, self.burst) == (draw.limit, draw.rate, draw.burst)
    }

    /// The same at a later moment. Who comes with an earlier one was overtaken, and time does not go back for them.
    fn at(mut self, now: Duration) -> Self {
        let now = now.max(self.at);
        let back = u128::from(self.rate).saturating_mul(now.saturating_sub(self.at).as_nanos());
        (self.used, self.at) = (self.used.saturating_sub(back), now);
        self
    }

    /// When there will be enough, if so much is missing.
    fn until_back(&self, missing: u128) -> Option<Duration> {
        if missing == 0 {
            return Some(Duration::ZERO);
        }
        if self.rate == 0 {
            return None;
        }
        // Rounded up: in the moment told there is enough.
        let nanos = missing.div_ceil(u128::from(self.rate));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// What is missing for so much; none if it is more than there ever is.
    fn missing(&self, cost: u64, n: u128) -> Option<u128> {
        let cost_units = u128::from(cost) * NANOS * n;
        let share = (u128::from(self.burst) * NANOS).max(cost_units);
        (cost <= self.burst).then(|| (self.used + cost_units).saturating_sub(share))
    }
}

impl Share {
    /// The share of one of several processes.
    pub fn of(processes: u32, clock: Arc<dyn Clock>) -> Self {
        Self { processes: processes.max(1), clock, meters: Mutex::new(LruCache::new(MAX_TENANTS)) }
    }

    fn n(&self) -> u128 {
        u128::from(self.processes)
    }

    fn with<T>(&self, tenant: &TenantId, act: impl FnOnce(&mut Meters) -> T) -> T {
        act(self.meters.lock().get_or_insert_mut(tenant.clone(), Meters::new))
    }
}

/// The meter of a draw; one that is not there is full.
fn meter_of(meters: &Meters, draw: &Draw, now: Duration) -> Meter {
    meters.iter().find(|meter| meter.serves(draw)).map_or_else(|| Meter::full(draw), |meter| meter.at(now))
}

fn keep(meters: &mut Meters, meter: Meter) {
    let old = meters
        .iter()
        .position(|old| (old.limit, old.rate, old.burst) == (meter.limit, meter.rate, meter.burst));
    if let Some(at) = old.or((meters.len() >= MAX_METERS).then_some(0)) {
        meters.remove(at);
    }
    meters.push(meter);
}

/// The one of two that takes longer to mend.
pub(super) fn longer(one: Short, other: Short) -> Short {
    match (one.retry_after, other.retry_after) {
        (None, _) => one,
        (_, None) => other,
        (Some(a), Some(b)) if b > a => other,
        (Some(_), Some(_)) => one,
    }
}

#[async_trait]
impl Buckets for Share {
    async fn take(&self, tenant: &TenantId, draws: &[Draw]) -> Result<(), Short> {
        let (now, n) = (self.clock.elapsed(), self.n());
        self.with(tenant, |meters| {
            let mut after: SmallVec<[Meter; 4]> = SmallVec::new();
            let mut short: Option<Short> = None;
            for draw in draws {
                let mut meter = meter_of(meters, draw, now);
                let missing = meter.missing(draw.cost, n);
                if missing == Some(0) {
                    meter.used += u128::from(draw.cost) * NANOS * n;
                    after.push(meter);
                    continue;
                }
                let retry_after = missing.and_then(|missing| meter.until_back(missing));
                let this = Short { draw: *draw, retry_after };
                short = Some(short.map_or(this, |so_far| longer(so_far, this)));
            }
            match short {
                Some(short) => Err(short),
                None => {
                    after.into_iter().for_each(|meter| keep(meters, meter));
                    Ok(())
                }
            }
        })
    }

    fn level(&self, tenant: &TenantId, draw: &Draw) -> Option<Level> {
        let now = self.clock.elapsed();
        let meter = self.with(tenant, |meters| meter_of(meters, draw, now));
        let left = (u128::from(draw.burst) * NANOS).saturating_sub(meter.used) / NANOS / self.n();
        Some(Level {
            left: u64::try_from(left).unwrap_or(u64::MAX),
            enough_in: meter.missing(draw.cost, self.n()).and_then(|missing| meter.until_back(missing)),
            full_in: meter.until_back(meter.used).unwrap_or(Duration::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::HandClock, model::Timestamp};

    fn draw(limit: Limit, rate: u64, burst: u64, cost: u64) -> Draw {
        Draw { limit, rate, burst, cost }
    }

    fn tenant() -> TenantId {
        TenantId::new("a").unwrap()
    }

    fn share(processes: u32) -> (Share, Arc<HandClock>) {
        let clock = HandClock::at(Timestamp(0));
        (Share::of(processes, Arc::<HandClock>::clone(&clock)), clock)
    }

    async fn taken(share: &Share, draw: Draw) -> u64 {
        let mut taken = 0;
        while share.take(&tenant(), &[draw]).await.is_ok() {
            taken += draw.cost;
        }
        taken
    }

    #[tokio::test]
    async fn a_share_is_its_part_of_rate_and_burst() {
        let (share, clock) = share(3);
        let one = draw(Limit::Samples, 100, 300, 1);
        assert_eq!(taken(&share, one).await, 100);
        clock.advance(Duration::from_secs(3));
        assert_eq!(taken(&share, one).await, 100);
        // A third of 100 a second does not come out even; nothing is lost all the same.
        let mut all = 0;
        for _ in 0..3000 {
            clock.advance(Duration::from_millis(1));
            all += taken(&share, one).await;
        }
        assert_eq!(all, 100);
    }

    #[tokio::test]
    async fn one_that_is_larger_than_the_share_waits_for_it_to_be_full_and_pays_all() {
        let (share, clock) = share(4);
        let large = draw(Limit::Samples, 100, 400, 400);
        assert_eq!(share.take(&tenant(), &[large]).await, Ok(()));
        let short = share.take(&tenant(), &[large]).await.unwrap_err();
        assert_eq!(short.retry_after, Some(Duration::from_secs(16)));
        clock.advance(Duration::from_millis(15_999));
        assert!(share.take(&tenant(), &[large]).await.is_err());
        clock.advance(Duration::from_millis(1));
        assert_eq!(share.take(&tenant(), &[large]).await, Ok(()));
    }

    #[test]
    fn nothing_comes_in_twice_where_one_overtakes_another() {
        let seconds = Duration::from_secs;
        let meter = Meter { used: 100 * NANOS, ..Meter::full(&draw(Limit::Samples, 10, 100, 1)) };
        let in_turn = meter.at(seconds(5)).at(seconds(6));
        let overtaken = meter.at(seconds(5)).at(seconds(3)).at(seconds(6));
        assert_eq!((overtaken.used, overtaken.at), (in_turn.used, in_turn.at));
        assert_eq!(in_turn.used, 40 * NANOS);
    }

    #[tokio::test]
    async fn it_is_all_or_nothing_and_the_longest_wait_is_told() {
        let (share, _) = share(1);
        let (bytes, samples) = (draw(Limit::Bytes, 10, 10, 10), draw(Limit::Samples, 1, 10, 10));
        assert_eq!(share.take(&tenant(), &[bytes]).await, Ok(()));
        let short = share.take(&tenant(), &[bytes, samples]).await.unwrap_err();
        assert_eq!((short.draw.limit, short.retry_after), (Limit::Bytes, Some(Duration::from_secs(1))));
        assert_eq!(share.take(&tenant(), &[samples]).await, Ok(()), "nothing was taken of it");
        let short = share.take(&tenant(), &[bytes, samples]).await.unwrap_err();
        assert_eq!((short.draw.limit, short.retry_after), (Limit::Samples, Some(Duration::from_secs(10))));
        let other = TenantId::new("b").unwrap();
        assert_eq!(share.take(&other, &[bytes, samples]).await, Ok(()), "tenants have buckets of their own");
    }

    #[tokio::test]
    async fn what_never_fits_is_told_so_and_the_largest_numbers_do_not_overflow() {
        let (share, clock) = share(u32::MAX);
        let never = draw(Limit::Samples, 1, 10, 11);
        assert_eq!(share.take(&tenant(), &[never]).await.unwrap_err().retry_after, None);
        let all = draw(Limit::Bytes, u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(share.take(&tenant(), &[all]).await, Ok(()));
        assert!(share.take(&tenant(), &[all]).await.unwrap_err().retry_after.is_some());
        clock.advance(Duration::from_secs(1 << 40));
        assert_eq!(share.take(&tenant(), &[all]).await, Ok(()));
        let stopped = draw(Limit::Queries, 0, 5, 5);
        assert_eq!(share.take(&tenant(), &[stopped]).await, Ok(()));
        assert_eq!(share.take(&tenant(), &[stopped]).await.unwrap_err().retry_after, None);
    }

    #[tokio::test]
    async fn a_token_with_limits_of_its_own_has_buckets_of_its_own() {
        let (share, _) = share(1);
        let high = draw(Limit::Samples, 1_000_000, 1_000_000, 1_000_000);
        assert_eq!(share.take(&tenant(), &[high]).await, Ok(()));
        let low = draw(Limit::Samples, 10, 10, 1);
        assert_eq!(taken(&share, low).await, 10);
        for rate in 100..1000 {
            assert_eq!(share.take(&tenant(), &[draw(Limit::Samples, rate, 10, 1)]).await, Ok(()));
        }
        assert_eq!(share.with(&tenant(), |meters| meters.len()), MAX_METERS);
    }
}
