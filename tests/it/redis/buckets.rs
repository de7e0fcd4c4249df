//! Buckets in Redis: exact whoever draws, all or nothing, walled off from each other.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use luminate::{
    gateway::limit::buckets::{Buckets, Draw},
    model::Limit,
};

use super::setting::{Gateway, RedisServer, config, samples, tenant};

const KEY: &str = "luminate:{team-a}:samples_per_second:2000:20000";

/// What a bucket is, as Redis keeps it: microtokens gone, and the microsecond of that.
fn kept(server: &RedisServer, key: &str) -> (u64, u64) {
    server.ask(&format!("HMGET {key} used at"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_gateways_share_a_bucket_and_no_token_is_lost_or_made() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let team = tenant("team-a");
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(Arc::new(Gateway::connected(&config(&server)).await));
    }
    // Emptied first: a bucket that is empty takes ten seconds to fill, so that none of what comes in runs over.
    assert!(gateways[0].takes(&team, samples(2000, 20_000, 20_000)).await);
    let (used, began) = kept(&server, KEY);
    assert_eq!(used, 20_000_000_000);

    let mut drawing = Vec::new();
    for (n, gateway) in gateways.iter().enumerate() {
        for cost in [1, 7] {
            let (gateway, team) = (Arc::clone(gateway), team.clone());
            drawing.push(tokio::spawn(async move {
                let (mut taken, mut refused) = (0, 0);
                // Each does as much however long that takes; together they want more than there is.
                while refused < 40 {
                    match gateway.buckets.take(&team, &[samples(2000, 20_000, cost)]).await {
                        Ok(()) => taken += cost,
                        Err(short) => {
                            refused += 1;
                            let wait = short.retry_after.unwrap();
                            assert!(wait <= Duration::from_secs(1), "{wait:?} by gateway {n}");
                            tokio::time::sleep(wait).await;
                        }
                    }
                }
                taken
            }));
        }
    }
    let mut taken = 0;
    for drawer in drawing {
        taken += drawer.await.unwrap();
    }
    let (used, ended) = kept(&server, KEY);
    assert!(taken > 100, "{taken}");
    assert_eq!((20_000 + taken) * 1_000_000 - used, 2000 * (ended - began), "microtokens that came in");
    assert!(used <= 20_000_000_000, "more was let through than there was");
    for gateway in gateways {
        assert_eq!(gateway.link.counters().errors.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn several_buckets_give_all_or_nothing_and_the_longest_wait_is_told() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let (one, other) =
        (Gateway::connected(&config(&server)).await, Gateway::connected(&config(&server)).await);
    let team = tenant("a");
    // So slow that nothing of note comes in while the test runs.
    let bytes = Draw { limit: Limit::Bytes, rate: 1, burst: 100_000, cost: 100_000 };
    let requests = Draw { limit: Limit::WriteRequests, rate: 2, burst: 100_000, cost: 100_000 };
    assert_eq!(one.buckets.take(&team, &[bytes]).await, Ok(()));
    let short = other.buckets.take(&team, &[requests, bytes]).await.unwrap_err();
    assert_eq!(short.draw, bytes);
    assert!(short.retry_after.unwrap() > Duration::from_secs(90_000), "{short:?}");
    // Nothing was taken of the other bucket.
    assert_eq!(one.buckets.take(&team, &[requests]).await, Ok(()));
    let short = other.buckets.take(&team, &[requests, bytes]).await.unwrap_err();
    assert_eq!(short.draw, bytes, "it takes twice as long to fill");
    let level = one.buckets.level(&team, &requests).unwrap();
    assert!(level.left < 1000 && level.enough_in.unwrap() > Duration::from_secs(40_000), "{level:?}");

    let never = one.buckets.take(&team, &[samples(10, 10, 11)]).await.unwrap_err();
    assert_eq!(never.retry_after, None);
    let stopped = samples(0, 5, 5);
    assert_eq!(one.buckets.take(&team, &[stopped]).await, Ok(()));
    assert_eq!(other.buckets.take(&team, &[stopped]).await.unwrap_err().retry_after, None);
    let ttl: i64 = server.ask("PTTL luminate:{a}:samples_per_second:0:5");
    assert_eq!(ttl, -1, "it is never full again");

    assert_eq!(one.buckets.take(&team, &[samples(10, 10, 0)]).await, Ok(()), "nothing may always be had");
    let merged = one.buckets.take(&team, &[samples(1, 10, 6), samples(1, 10, 6)]).await.unwrap_err();
    assert_eq!(merged.draw.cost, 12);
}

#[tokio::test]
async fn a_full_bucket_is_not_kept_and_the_largest_numbers_are_counted() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let gateway = Gateway::connected(&config(&server)).await;
    let team = tenant("a");
    assert!(gateway.takes(&team, samples(1_000_000, 1_000_000, 1)).await);
    let ttl: i64 = server.ask("PTTL luminate:{a}:samples_per_second:1000000:1000000");
    assert!((1..=1001).contains(&ttl), "{ttl}");
    // A clock that went back, as on another server that took over: nothing comes in, and nothing breaks.
    let ahead = server.time() + 3_600_000_000;
    let _: i64 =
        server.ask(&format!("HSET luminate:{{b}}:samples_per_second:1:100 used 50000000 at {ahead}"));
    assert!(gateway.takes(&tenant("b"), samples(1, 100, 50)).await);
    assert!(!gateway.takes(&tenant("b"), samples(1, 100, 10)).await);
    for limit in [u64::MAX, 1 << 53, 5_000_000_000_000, 5_000_000_000, 3_000_000_000] {
        let all = samples(limit, limit, limit);
        assert!(gateway.takes(&team, all).await, "{limit}");
        let slow = Draw { rate: 1, ..all };
        assert!(gateway.takes(&team, slow).await, "{limit}");
        let short = gateway.buckets.take(&team, &[slow]).await.unwrap_err();
        assert!(short.retry_after.unwrap() > Duration::from_secs(1_000_000), "{limit}: {short:?}");
    }
}

#[tokio::test]
async fn a_tenants_name_is_part_of_a_key_and_nothing_more() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let gateway = Gateway::connected(&config(&server)).await;
    let names = [
        "a",
        "'",
        "')",
        "!!",
        "*",
        "a*",
        "__proto__",
        "KEYS",
        "(redis.call('FLUSHALL'))",
        "x'..redis.call('FLUSHALL')..'",
        "luminate",
        "probe",
        &"a".repeat(150),
    ];
    for name in names {
        assert!(gateway.takes(&tenant(name), samples(1, 1000, 1000)).await, "{name}");
    }
    for name in names {
        assert!(!gateway.takes(&tenant(name), samples(1, 1000, 1000)).await, "{name} shares with another");
    }
    let keys: BTreeSet<String> = server.ask("KEYS *");
    let expected: BTreeSet<String> =
        names.iter().map(|name| format!("luminate:{{{name}}}:samples_per_second:1:1000")).collect();
    let probe = BTreeSet::from(["luminate:probe".to_owned()]);
    assert_eq!(keys.difference(&probe).cloned().collect::<BTreeSet<_>>(), expected);
}
