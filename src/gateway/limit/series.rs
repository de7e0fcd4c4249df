//! How many series may begin.
//!
//! Buckets give all or nothing, and here a part is worth having: when a bucket is short it says when it will
//! have enough, which tells what it has now, and that is taken. No more than three draws are made.

use std::time::Duration;

use super::Limiter;
use crate::{
    model::{Limit, OverLimit, TenantId, TenantLimits},
    storage::Granted,
};

/// How often a bucket is asked for less, if others take from it in between.
const TRIES: usize = 2;

impl Limiter {
    /// Takes `wanted` new series from a tenant's rate, or as many of them as there are.
    pub(super) async fn begin_series(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        wanted: u64,
    ) -> Granted {
        let Some(rate) = limits.get(Limit::NewSeries) else { return Granted::all(wanted) };
        let burst = limits.get(Limit::NewSeriesBurst).unwrap_or(rate);
        // A bucket never holds more than its burst, whatever is wanted.
        let first = wanted.min(burst);
        let mut ask = first;
        let mut short = None;
        for _ in 0..=TRIES {
            if ask == 0 {
                break;
            }
            match self.take(tenant, limits, &[(Limit::NewSeries, ask)]).await {
                Ok(()) => {
                    let over = (ask < wanted).then(|| self.short_of(limits, rate, wanted, short));
                    return Granted { series: ask, over };
                }
                Err(over) => {
                    let left = over.retry_after.map_or(0, |after| ask.saturating_sub(in_time(rate, after)));
                    ask = left.min(ask - 1);
                    short = Some(over);
                }
            }
        }
        Granted { series: 0, over: Some(self.short_of(limits, rate, wanted, short)) }
    }

    fn short_of(&self, limits: &TenantLimits, rate: u64, wanted: u64, short: Option<OverLimit>) -> OverLimit {
        // More than the burst comes in parts, of which the next is there in a second.
        let next = || short.and_then(|over| over.retry_after).unwrap_or(Duration::from_secs(1));
        let never = rate == 0 || limits.get(Limit::NewSeriesBurst) == Some(0);
        OverLimit {
            limit: Limit::NewSeries,
            allowed: rate,
            asked: wanted,
            retry_after: (!never).then(next),
            for_good: limits.refuses_for_good(Limit::NewSeries),
        }
    }
}

/// What comes into a bucket in a time, rounded up.
fn in_time(rate: u64, time: Duration) -> u64 {
    let whole = u128::from(rate).saturating_mul(time.as_nanos()).div_ceil(1_000_000_000);
    u64::try_from(whole).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::gateway::limit::{
        buckets::{Buckets, Draw, Level, Short},
        table::LimitTable,
    };

    /// A bucket with so much in it, and a number of others who each take one before us.
    #[derive(Debug)]
    struct Bucket(Mutex<(u64, u64, usize)>);

    #[async_trait]
    impl Buckets for Bucket {
        async fn take(&self, _: &TenantId, draws: &[Draw]) -> Result<(), Short> {
            let [draw] = draws else { panic!("{draws:?}") };
            let mut bucket = self.0.lock();
            let (has, others, asked) = &mut *bucket;
            *asked += 1;
            if draw.cost > draw.burst {
                return Err(Short { draw: *draw, retry_after: None });
            }
            if draw.cost > *has {
                let missing = draw.cost - *has;
                let retry_after = Some(Duration::from_nanos(missing * 1_000_000_000 / draw.rate));
                let taken = (*others).min(*has).min(1);
                (*has, *others) = (*has - taken, *others - taken);
                return Err(Short { draw: *draw, retry_after });
            }
            *has -= draw.cost;
            Ok(())
        }

        fn level(&self, _: &TenantId, _: &Draw) -> Option<Level> {
            None
        }
    }

    /// What is granted of `wanted`, at a rate of 7 and a burst of 100, and how often the bucket was asked.
    async fn grant(has: u64, others: u64, wanted: u64) -> (u64, Option<u64>, usize) {
        let bucket = Arc::new(Bucket(Mutex::new((has, others, 0))));
        let table = Arc::new(LimitTable::of(TenantLimits::default()));
        let limiter = Limiter::new(table, Arc::clone(&bucket) as _);
        let limits = TenantLimits::unlimited().with(Limit::NewSeries, 7).with(Limit::NewSeriesBurst, 100);
        let granted = limiter.begin_series(&TenantId::anonymous(), &limits, wanted).await;
        let asked = bucket.0.lock().2;
        (granted.series, granted.over.map(|over| over.asked), asked)
    }

    #[tokio::test]
    async fn what_is_there_is_granted() {
        assert_eq!(grant(100, 0, 60).await, (60, None, 1));
        assert_eq!(grant(100, 0, 100).await, (100, None, 1));
        assert_eq!(grant(100, 0, 250).await, (100, Some(250), 1));
        assert_eq!(grant(40, 0, 60).await, (40, Some(60), 2));
        assert_eq!(grant(0, 0, 60).await, (0, Some(60), 1));
        assert_eq!(grant(1, 0, 2).await, (1, Some(2), 2));
    }

    #[tokio::test]
    async fn others_may_take_in_between() {
        assert_eq!(grant(40, 1, 60).await, (39, Some(60), 3));
        assert_eq!(grant(40, 9, 60).await, (0, Some(60), 3), "and the next request gets them");
    }

    #[tokio::test]
    async fn no_rate_is_no_bound() {
        let limiter = Limiter::new(
            Arc::new(LimitTable::of(TenantLimits::default())),
            Arc::new(Bucket(Mutex::new((0, 0, 0)))),
        );
        let limits = TenantLimits::unlimited();
        assert_eq!(limiter.begin_series(&TenantId::anonymous(), &limits, 9).await, Granted::all(9));
    }

    #[tokio::test]
    async fn who_may_begin_none_is_not_told_to_come_again() {
        let bucket = Arc::new(Bucket(Mutex::new((100, 0, 0))));
        let limiter = Limiter::new(Arc::new(LimitTable::of(TenantLimits::default())), bucket);
        for (rate, burst, again) in [(0, 100, false), (7, 0, false), (7, 3, true)] {
            let limits =
                TenantLimits::unlimited().with(Limit::NewSeries, rate).with(Limit::NewSeriesBurst, burst);
            let granted = limiter.begin_series(&TenantId::anonymous(), &limits, 200).await;
            assert_eq!(granted.over.unwrap().retry_after.is_some(), again, "{rate} {burst}");
        }
    }
}
