//! Buckets under a clock that is turned by hand.

use proptest::prelude::*;

use super::*;
use crate::{
    clock::HandClock,
    model::{Limit, Timestamp},
};

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn samples(rate: u64, burst: u64, cost: u64) -> Draw {
    Draw { limit: Limit::Samples, rate, burst, cost }
}

struct Bench {
    clock: Arc<HandClock>,
    buckets: LocalBuckets,
}

impl Bench {
    fn new() -> Self {
        Self::of(1000)
    }

    fn of(tenants: usize) -> Self {
        let clock = HandClock::at(Timestamp(0));
        Self { buckets: LocalBuckets::new(Arc::clone(&clock) as _, tenants), clock }
    }

    fn take(&self, draws: &[Draw]) -> Result<(), Short> {
        futures_util::FutureExt::now_or_never(self.buckets.take(&tenant("a"), draws)).unwrap()
    }

    fn charge(&self, draw: Draw) {
        futures_util::FutureExt::now_or_never(self.buckets.charge(&tenant("a"), draw)).unwrap();
    }

    fn left(&self, draw: Draw) -> u64 {
        self.buckets.level(&tenant("a"), &draw).unwrap().left
    }

    fn wait(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }
}

#[test]
fn a_bucket_refills_at_its_rate_up_to_its_burst() {
    let bench = Bench::new();
    assert_eq!(bench.take(&[samples(10, 20, 20)]), Ok(()));
    let short = bench.take(&[samples(10, 20, 5)]).unwrap_err();
    assert_eq!(short.retry_after, Some(Duration::from_millis(500)));
    bench.wait(499);
    assert!(bench.take(&[samples(10, 20, 5)]).is_err());
    bench.wait(1);
    assert_eq!(bench.take(&[samples(10, 20, 5)]), Ok(()));
    bench.wait(3_600_000);
    assert_eq!(bench.left(samples(10, 20, 1)), 20);
}

#[test]
fn what_never_fits_is_never_to_be_asked_again() {
    for (rate, burst, cost) in [(10, 20, 21), (0, 20, 1), (10, 0, 1), (0, 0, u64::MAX), (1, 1, 2)] {
        let bench = Bench::new();
        let short = bench.take(&[samples(rate, burst, cost)]).unwrap_err();
        assert_eq!((short.retry_after, short.draw.cost), (None, cost), "{rate} {burst} {cost}");
        let level = bench.buckets.level(&tenant("a"), &samples(rate, burst, cost)).unwrap();
        assert_eq!(level.enough_in, None, "{rate} {burst} {cost}");
    }
}

#[test]
fn of_several_buckets_all_or_none_is_taken_and_the_slowest_is_named() {
    let bench = Bench::new();
    let requests = |cost| Draw { limit: Limit::WriteRequests, rate: 1, burst: 2, cost };
    let bytes = |cost| Draw { limit: Limit::Bytes, rate: 100, burst: 1000, cost };
    bench.take(&[requests(1), bytes(900)]).unwrap();
    let short = bench.take(&[requests(1), bytes(500)]).unwrap_err();
    assert_eq!((short.draw.limit, short.retry_after), (Limit::Bytes, Some(Duration::from_secs(4))));
    assert_eq!((bench.left(requests(1)), bench.left(bytes(1))), (1, 100));
    bench.take(&[requests(1)]).unwrap();
    // Both are short now; who comes back after the longer wait finds both filled.
    let short = bench.take(&[requests(1), bytes(500)]).unwrap_err();
    assert_eq!((short.draw.limit, short.retry_after), (Limit::Bytes, Some(Duration::from_secs(4))));
    bench.wait(4000);
    bench.take(&[requests(1), bytes(500)]).unwrap();
    let short = bench.take(&[bytes(1001), requests(2)]).unwrap_err();
    assert_eq!((short.draw.limit, short.retry_after), (Limit::Bytes, None));
}

#[test]
fn a_changed_limit_is_no_burst() {
    let bench = Bench::new();
    bench.take(&[samples(10, 20, 15)]).unwrap();
    // The new bucket holds what the old one did.
    assert!(bench.take(&[samples(1000, 2000, 6)]).is_err());
    assert_eq!(bench.left(samples(1000, 2000, 1)), 5);
    bench.take(&[samples(1000, 2000, 5)]).unwrap();
    // A smaller one holds no more than it can.
    bench.wait(60_000);
    bench.take(&[samples(1, 3, 3)]).unwrap();
    assert!(bench.take(&[samples(1, 3, 1)]).is_err());
}

#[test]
fn tokens_with_limits_of_their_own_do_not_empty_each_others_buckets() {
    let bench = Bench::new();
    bench.take(&[samples(10, 20, 1)]).unwrap();
    bench.take(&[samples(1000, 2000, 1)]).unwrap();
    bench.wait(10_000);
    bench.take(&[samples(10, 20, 20)]).unwrap();
    bench.take(&[samples(1000, 2000, 2000)]).unwrap();
    // However many there are, few are remembered.
    for rate in 1..100 {
        let _ = bench.take(&[samples(rate, 20, 20)]);
    }
    let shard = bench.buckets.shard(&tenant("a")).lock();
    assert!(shard.peek(&tenant("a")).unwrap().len() <= VARIANTS);
}

#[test]
fn what_was_used_unasked_is_owed_up_to_one_burst() {
    let bench = Bench::new();
    bench.charge(samples(10, 20, 25));
    assert_eq!(bench.left(samples(10, 20, 1)), 0);
    let short = bench.take(&[samples(10, 20, 1)]).unwrap_err();
    assert_eq!(short.retry_after, Some(Duration::from_millis(600)));
    bench.charge(samples(10, 20, u64::MAX));
    let level = bench.buckets.level(&tenant("a"), &samples(10, 20, 1)).unwrap();
    assert_eq!((level.full_in, level.enough_in), (Duration::from_secs(4), Some(Duration::from_millis(2100))));
    // A debt is not lost by another limit.
    assert!(bench.take(&[samples(20, 40, 1)]).is_err());
    bench.wait(4000);
    assert_eq!(bench.left(samples(10, 20, 1)), 20);
}

#[test]
fn a_level_tells_what_taking_would() {
    let bench = Bench::new();
    bench.take(&[samples(3, 10, 10)]).unwrap();
    for millis in [0, 1, 332, 1, 700, 5000] {
        bench.wait(millis);
        for cost in [1, 2, 7, 10, 11] {
            let level = bench.buckets.level(&tenant("a"), &samples(3, 10, cost)).unwrap();
            match bench.take(&[samples(3, 10, cost), Draw { cost: 2, ..requests_for_one() }]) {
                Ok(()) => panic!("the second draw never fits"),
                Err(short) if short.draw.limit == Limit::Samples => {
                    assert_eq!(level.enough_in, short.retry_after, "{cost}");
                }
                Err(_) => assert!(level.enough_in.is_some_and(|wait| wait.is_zero()) || cost > level.left),
            }
        }
    }
}

fn requests_for_one() -> Draw {
    Draw { limit: Limit::WriteRequests, rate: 1, burst: 1, cost: 1 }
}

#[test]
fn rates_and_bursts_beyond_32_bits_are_exact() {
    for (rate, burst) in [
        (10_000_000_000, 10_000_000_000),
        (10_000_000_000, 7),
        (1_000_000, 1 << 40),
        (3_333_333_333, 9_999_999_999),
        (u64::MAX, u64::MAX),
    ] {
        let bench = Bench::new();
        let fifth = (burst.min(1 << 60) / 5).max(1);
        let mut drained = 0;
        while bench.take(&[samples(rate, burst, fifth)]).is_ok() {
            drained += fifth;
            assert!(drained <= burst, "{rate} {burst}");
        }
        let rest = bench.left(samples(rate, burst, 1));
        bench.take(&[samples(rate, burst, rest)]).unwrap();
        assert!(rest <= fifth && bench.left(samples(rate, burst, 1)) == 0, "{rate} {burst}: {rest}");
        if rate > 10_000_000_000 {
            continue;
        }
        // A third of what comes in in a millisecond, or as much as there ever is.
        let (mut admitted, cost) = (0_u64, (rate / 3000).clamp(1, burst));
        for _ in 0..2000 {
            bench.wait(1);
            while bench.take(&[samples(rate, burst, cost)]).is_ok() {
                admitted += cost;
            }
        }
        let expected = if burst == 7 { 7 * 2000 } else { 2 * rate };
        let off = admitted.abs_diff(expected);
        assert!(off <= expected / 1000 + cost, "{rate} {burst}: {admitted} {expected}");
    }
}

#[test]
fn a_bucket_outlives_the_range_of_its_clock() {
    let bench = Bench::new();
    let (rate, burst) = (1 << 40, 1 << 41);
    bench.take(&[samples(rate, burst, burst)]).unwrap();
    for _ in 0..100 {
        bench.wait(10 * 86_400_000);
        bench.take(&[samples(rate, burst, burst)]).unwrap();
        assert!(bench.take(&[samples(rate, burst, burst)]).is_err());
    }
}

#[test]
fn no_more_tenants_are_remembered_than_agreed_and_idle_ones_go_first() {
    let bench = Bench::of(160);
    let take = |name: &str| {
        let name = tenant(name);
        futures_util::FutureExt::now_or_never(bench.buckets.take(&name, &[samples(1, 10, 10)])).unwrap()
    };
    for n in 0..1000 {
        take(&format!("t{n}")).unwrap();
        assert!(bench.buckets.tenants() <= 160);
    }
    assert!(take("t999").is_err());
    bench.wait(10_000);
    for n in 0..320 {
        take(&format!("u{n}")).unwrap();
    }
    // All of those before were full and are gone.
    assert!((0..1000).all(|n| {
        let name = tenant(&format!("t{n}"));
        let shard = bench.buckets.shard(&name).lock();
        shard.peek(&name).is_none_or(|_| shard.len() < 10)
    }));
}

#[test]
fn a_hundred_at_a_time_share_what_there_is() {
    let bench = Bench::new();
    let taken: usize = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| (0..1000).filter(|_| bench.take(&[samples(10, 1000, 1)]).is_ok()).count())
            })
            .collect();
        takers.into_iter().map(|taker| taker.join().unwrap()).sum()
    });
    assert_eq!(taken, 1000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Five times as much is asked for as is allowed, for ten seconds.
    #[test]
    fn what_is_let_through_is_the_rate(
        exponent in 0.0..7.0_f64,
        seconds_of_burst in 0.01..10.0_f64,
        costs in prop::collection::vec(1_u64..1000, 1..20),
    ) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
        let (rate, burst) = {
            let rate = 10_f64.powf(exponent) as u64;
            // A bucket that holds one request and no more is full, and loses what comes in, until somebody asks.
            (rate, ((rate as f64 * seconds_of_burst) as u64).max(2))
        };
        // No request is more than a tenth of the rate or the burst.
        let most = (burst / 2).min(rate / 10).max(1);
        let costs: Vec<u64> = costs.iter().map(|cost| cost * most / 1000 + 1).map(|c| c.min(most)).collect();
        let bench = Bench::new();
        // The burst is drained first.
        while bench.take(&[samples(rate, burst, 1.max(burst / 100))]).is_ok() {}
        while bench.take(&[samples(rate, burst, 1)]).is_ok() {}
        let mut costs = costs.iter().cycle();
        let (mut asked, mut admitted) = (0_u64, 0_u64);
        for millis in 1..=10_000 {
            bench.wait(1);
            while asked * 1000 < rate * 5 * millis {
                let cost = *costs.next().unwrap();
                asked += cost;
                if bench.take(&[samples(rate, burst, cost)]).is_ok() {
                    admitted += cost;
                }
            }
        }
        let expected = rate * 10;
        prop_assert!(
            admitted <= expected + 1 && admitted + expected / 200 + most >= expected,
            "rate {rate} burst {burst}: {admitted} of {expected}"
        );
    }

    /// Who comes back when told is let in.
    #[test]
    fn who_obeys_succeeds(
        rate in 1_u64..20_000_000,
        burst in 1_u64..20_000_000,
        costs in prop::collection::vec((0.0..1.0_f64, 0_u64..3), 1..50),
    ) {
        let bench = Bench::new();
        for (part, waits) in costs {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of the burst")]
            let cost = ((burst as f64 * part) as u64).clamp(1, burst);
            bench.wait(waits);
            if let Err(short) = bench.take(&[samples(rate, burst, cost)]) {
                let millis = short.retry_after.unwrap().as_nanos().div_ceil(1_000_000);
                bench.wait(u64::try_from(millis).unwrap());
                prop_assert_eq!(bench.take(&[samples(rate, burst, cost)]), Ok(()));
            }
        }
    }
}
