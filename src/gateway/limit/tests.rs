//! What the limiter says, over buckets of our own.

use super::{local::LocalBuckets, *};
use crate::{
    clock::{Clock, HandClock},
    model::Timestamp,
};

fn limiter() -> (Arc<HandClock>, Limiter) {
    let clock = HandClock::at(Timestamp(0));
    let buckets = Arc::new(LocalBuckets::new(Arc::clone(&clock) as _, 100));
    (clock, Limiter::new(Arc::new(LimitTable::of(TenantLimits::default())), buckets))
}

fn tenant() -> TenantId {
    TenantId::new("a").unwrap()
}

#[tokio::test]
async fn a_refusal_names_the_limit_that_is_in_the_way() {
    let (_, limiter) = limiter();
    let mut limits = TenantLimits::unlimited()
        .with(Limit::Samples, 10)
        .with(Limit::SamplesBurst, 30)
        .with(Limit::Bytes, 7);
    let take = async |limits: &TenantLimits, costs: &[(Limit, u64)]| {
        let over = limiter.take(&tenant(), limits, costs).await.unwrap_err();
        (over.limit, over.allowed, over.asked, over.retry_after, over.for_good)
    };
    let ms = |ms| Some(Duration::from_millis(ms));
    assert_eq!(take(&limits, &[(Limit::Samples, 31)]).await, (Limit::SamplesBurst, 30, 31, None, false));
    assert_eq!(take(&limits, &[(Limit::Bytes, 8)]).await, (Limit::Bytes, 7, 8, None, false));
    limiter.take(&tenant(), &limits, &[(Limit::Samples, 30), (Limit::Queries, 9)]).await.unwrap();
    limits.refuse_for_good(Limit::Samples, true);
    assert_eq!(take(&limits, &[(Limit::Samples, 4)]).await, (Limit::Samples, 10, 4, ms(400), true));
    limiter.take(&tenant(), &limits, &[(Limit::Bytes, 7)]).await.unwrap();
}

#[tokio::test]
async fn what_has_no_limit_costs_nothing_and_what_is_left_is_told() {
    let (_, limiter) = limiter();
    let limits = TenantLimits::unlimited().with(Limit::Queries, 10);
    limiter.take(&tenant(), &limits, &[(Limit::Samples, u64::MAX), (Limit::Queries, 4)]).await.unwrap();
    let remaining = limiter.remaining_of(&tenant(), &limits, Limit::Queries).unwrap();
    let level = remaining.level.unwrap();
    assert_eq!((remaining.limit, remaining.burst, level.left), (Limit::Queries, 10, 6));
    for limit in [Limit::Samples, Limit::QueriesBurst, Limit::ConcurrentQueries] {
        assert_eq!(limiter.remaining_of(&tenant(), &limits, limit), None, "{}", limit.name());
    }
    assert_eq!(level.full_in, Duration::from_millis(400));
    assert!(limiter.look(&tenant(), &limits, Limit::Queries, 6).is_ok());
    assert!(limiter.look(&tenant(), &limits, Limit::Queries, 7).is_err());
    assert!(limiter.look(&tenant(), &limits, Limit::Samples, 7).is_ok());
}

#[tokio::test]
async fn an_import_waits_for_what_it_costs_even_more_than_there_is_at_once() {
    let (clock, limiter) = limiter();
    let limits = TenantLimits::unlimited().with(Limit::Samples, 1000).with(Limit::SamplesBurst, 20);
    let tenant = tenant();
    let mut waiting = Box::pin(limiter.wait_for_samples(&tenant, &limits, 100));
    while tokio::time::timeout(Duration::from_millis(5), &mut waiting).await.is_err() {
        clock.advance(Duration::from_millis(5));
    }
    assert!(limiter.counters().waits.load(Ordering::Relaxed) >= 4);
    assert!(clock.elapsed() >= Duration::from_millis(80), "{:?}", clock.elapsed());
    let zero = TenantLimits::unlimited().with(Limit::Samples, 0);
    assert!(limiter.wait_for_samples(&tenant, &zero, 1).await.is_err());
    // Longer than anybody waits.
    let slow = TenantLimits::unlimited().with(Limit::Samples, 1).with(Limit::SamplesBurst, 1000);
    let over = limiter.wait_for_samples(&tenant, &slow, 1000).await.unwrap_err();
    assert!(over.retry_after.is_some());
}

#[tokio::test]
async fn places_are_refused_above_their_number() {
    let (_, limiter) = limiter();
    let limits = TenantLimits::unlimited().with(Limit::ConcurrentQueries, 1);
    let held = limiter.place(&tenant(), &limits, Limit::ConcurrentQueries).unwrap();
    let over = limiter.place(&tenant(), &limits, Limit::ConcurrentQueries).unwrap_err();
    assert_eq!((over.allowed, over.asked, over.retry_after), (1, 2, Some(PLACE_RETRY)));
    assert!(limiter.place(&tenant(), &limits, Limit::ConcurrentWrites).unwrap().is_none());
    drop(held);
    assert!(limiter.place(&tenant(), &limits, Limit::ConcurrentQueries).is_ok());
    let none = TenantLimits::unlimited().with(Limit::ConcurrentQueries, 0);
    assert_eq!(limiter.place(&tenant(), &none, Limit::ConcurrentQueries).unwrap_err().retry_after, None);
}
