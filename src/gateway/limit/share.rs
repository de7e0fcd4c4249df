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

use super::buckets::{Buckets, Draw, Short};
use crate::{
    clock::Clock,
    model::{Limit, TenantId},
};

/// Tenants that are remembered; one that is forgotten begins with a full share.
const MAX_TENANTS: NonZeroUsize = NonZeroUsize::new(100_000).expect("it is not zero");

/// Units of a token in each of `n` shares.
const NANOS: u128 = 1_000_000_000;

/// What a process may let through by itself.
#[derive(Debug)]
pub struct Share {
    /// Processes that share the rates.
    processes: u32,
    clock: Arc<dyn Clock>,
    meters: Mutex<LruCache<TenantId, SmallVec<[(Limit, Meter); 4]>>>,
}

/// What is gone from a bucket, and when that was so.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    used: u128,
    at: Duration,
}

impl Share {
    /// The share of one of several processes.
    pub fn of(processes: u32, clock: Arc<dyn Clock>) -> Self {
        Self { processes: processes.max(1), clock, meters: Mutex::new(LruCache::new(MAX_TENANTS)) }
    }

    /// Forgets everybody, so that all shares are full.
    pub fn refill(&self) {
        self.meters.lock().clear();
    }

    fn take_now(&self, tenant: &TenantId, draws: &[Draw], now: Duration) -> Result<(), Short> {
        let n = u128::from(self.processes);
        let mut meters = self.meters.lock();
        let meters = meters.get_or_insert_mut(tenant.clone(), SmallVec::new);
        let mut after: SmallVec<[Meter; 4]> = SmallVec::new();
        let mut short: Option<Short> = None;
        for draw in draws {
            let meter = meters.iter().find(|(limit, _)| *limit == draw.limit).map(|(_, meter)| *meter);
            match draw_from(meter.unwrap_or_default(), draw, n, now) {
                Ok(left) => after.push(left),
                Err(retry_after) => {
                    let new = Short { draw: *draw, retry_after };
                    short = Some(short.map_or(new, |old| longer(old, new)));
                }
            }
        }
        if let Some(short) = short {
            return Err(short);
        }
        for (draw, left) in draws.iter().zip(after) {
            match meters.iter_mut().find(|(limit, _)| *limit == draw.limit) {
                Some((_, meter)) => *meter = left,
                None => meters.push((draw.limit, left)),
            }
        }
        Ok(())
    }
}

/// What is gone after a draw; or when there will be enough for it, if ever.
fn draw_from(meter: Meter, draw: &Draw, n: u128, now: Duration) -> Result<Meter, Option<Duration>> {
    let elapsed = now.saturating_sub(meter.at).as_nanos();
    let whole = u128::from(draw.burst) * NANOS * n;
    let share = u128::from(draw.burst) * NANOS;
    let cost = u128::from(draw.cost) * NANOS * n;
    let back = u128::from(draw.rate).saturating_mul(elapsed);
    let used = meter.used.min(whole).saturating_sub(back);
    if cost > whole {
        return Err(None);
    }
    match (used + cost).saturating_sub(share.max(cost)) {
        0 => Ok(Meter { used: used + cost, at: now }),
        _ if draw.rate == 0 => Err(None),
        missing => {
            let nanos = missing.div_ceil(u128::from(draw.rate));
            Err(Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))))
        }
    }
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
        self.take_now(tenant, draws, self.clock.elapsed())
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
        let never = |d| async move { d };
        let d = never(draw(Limit::Samples, 1, 10, 11)).await;
        assert_eq!(share.take(&tenant(), &[d]).await.unwrap_err().retry_after, None);
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
    async fn a_lowered_limit_begins_with_an_empty_bucket_at_worst() {
        let (share, _) = share(1);
        let high = draw(Limit::Samples, 1_000_000, 1_000_000, 1_000_000);
        assert_eq!(share.take(&tenant(), &[high]).await, Ok(()));
        let low = draw(Limit::Samples, 10, 10, 1);
        let short = share.take(&tenant(), &[low]).await.unwrap_err();
        assert_eq!(short.retry_after, Some(Duration::from_millis(100)));
    }
}
