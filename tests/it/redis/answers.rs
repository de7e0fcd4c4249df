//! Answers that gateways over one ClickHouse keep for each other: used as long as they are true, and missed by nobody.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use luminate::{
    clock::SystemClock,
    gateway::redis::{LinkState, RedisAnswers, RedisLink},
    query::{
        QueryService,
        cache::second::{SecondCounters, SharedShelf},
    },
};

use super::setting::{RedisServer, config, until};
use crate::clickhouse::cache::{Gateways, MINUTE, STEPS, labels};

/// So long an answer waits for Redis where a busy machine must not decide a test.
const PATIENT: Duration = Duration::from_secs(20);
const TTL: Duration = Duration::from_secs(3_600);

const QUERY: &str = "abs(m)";

/// Gateways over one ClickHouse and one Redis.
struct Case {
    redis: RedisServer,
    gateways: Gateways,
}

/// A gateway that has just started.
struct Fresh(QueryService);

impl Case {
    fn start() -> Option<Self> {
        let case = Self { redis: RedisServer::start(&[])?, gateways: Gateways::start()? };
        case.gateways.fill();
        case.gateways.settle();
        Some(case)
    }

    fn link(&self) -> Arc<RedisLink> {
        let _inside = self.gateways.runtime.enter();
        let link = RedisLink::start(&config(&self.redis), SystemClock::start()).unwrap();
        self.gateways.runtime.block_on(until("connected", async || link.state() == LinkState::Closed));
        link
    }

    fn fresh(&self, link: &Arc<RedisLink>, patience: Duration) -> Fresh {
        let shelf: Arc<dyn SharedShelf> = RedisAnswers::new(Arc::clone(link), patience, TTL);
        Fresh(self.gateways.gateway(Some(shelf)))
    }

    /// What a gateway evaluates for an answer, which is right; returns when what is sent is there.
    fn ask(&self, gateway: &Fresh) -> u64 {
        let before = gateway.evaluated();
        assert_eq!(
            self.gateways.answer(&gateway.0, QUERY),
            self.gateways.answer(&self.gateways.plain, QUERY)
        );
        let evaluated = gateway.evaluated() - before;
        if evaluated * 8 >= STEPS {
            let sent = || gateway.count(|c| c.sent.load(Relaxed) + c.not_sent.load(Relaxed));
            self.gateways.runtime.block_on(until("sent", async || sent() > 0));
        }
        evaluated
    }

    /// The name of the one answer that is kept.
    fn key(&self) -> String {
        let keys: Vec<String> = self.redis.ask("KEYS luminate:answer:*");
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys[0].clone()
    }
}

impl Fresh {
    fn evaluated(&self) -> u64 {
        self.0.cache().unwrap().counters().evaluated_steps.load(Relaxed)
    }

    fn count(&self, of: impl Fn(&SecondCounters) -> u64) -> u64 {
        of(self.0.cache().unwrap().second().unwrap().counters())
    }
}

#[test]
fn what_one_gateway_has_evaluated_another_need_not() {
    let Some(case) = Case::start() else { return };
    let link = case.link();
    let first = case.fresh(&link, PATIENT);
    assert_eq!(case.ask(&first), STEPS);
    assert_eq!(first.count(|c| c.missing.load(Relaxed)), 1);
    let ttl: i64 = case.redis.ask(&format!("PTTL {}", case.key()));
    assert!((1..=3_600_000).contains(&ttl), "{ttl}");
    let second = case.fresh(&link, PATIENT);
    assert_eq!(case.ask(&second), 0);
    assert_eq!(second.count(|c| c.found.load(Relaxed)), 1);
    // It has it now, and asks no more.
    assert_eq!((case.ask(&second), second.count(|c| c.found.load(Relaxed))), (0, 1));
    // What has changed since is known of what comes from elsewhere, too.
    let late = case.gateways.start + 60 * MINUTE + 1;
    case.gateways.write(1, &labels(&[("__name__", "m"), ("x", "a")]), &[(late, 1e9)]);
    let third = case.fresh(&link, PATIENT);
    assert!((1..=7).contains(&case.ask(&third)));
    assert_eq!(third.count(|c| c.found.load(Relaxed)), 1);
}

#[test]
fn whatever_lies_in_redis_answers_are_right() {
    let Some(case) = Case::start() else { return };
    let link = case.link();
    assert_eq!(case.ask(&case.fresh(&link, PATIENT)), STEPS);
    let key = case.key();
    let mut connection = case.redis.connection();
    let good: Vec<u8> = redis::cmd("GET").arg(&key).query(&mut connection).unwrap();
    let mut put = |bytes: &[u8]| {
        let () = redis::cmd("SET").arg(&key).arg(bytes).query(&mut connection).unwrap();
    };
    let middle = good.len() / 2;
    let mut flipped = good.clone();
    flipped[middle] ^= 0x10;
    let mut other_kind = good.clone();
    other_kind[0] ^= 1;
    for bad in [&b""[..], b"garbage", &good[..middle], &flipped, &other_kind, &vec![b'x'; 2 << 20]] {
        put(bad);
        let gateway = case.fresh(&link, PATIENT);
        assert_eq!(case.ask(&gateway), STEPS);
        assert_eq!(gateway.count(|c| c.garbled.load(Relaxed)), 1);
        // It has put it right.
        assert_eq!(case.ask(&case.fresh(&link, PATIENT)), 0);
    }
    let _: i64 = case.redis.ask(&format!("DEL {key}"));
    let _: i64 = case.redis.ask(&format!("LPUSH {key} x"));
    let gateway = case.fresh(&link, PATIENT);
    assert_eq!((case.ask(&gateway), gateway.count(|c| c.away.load(Relaxed))), (STEPS, 1));
    assert_eq!(case.ask(&case.fresh(&link, PATIENT)), 0);
}

#[test]
fn without_redis_answers_are_evaluated_and_none_fails() {
    let Some(mut case) = Case::start() else { return };
    let link = case.link();
    assert_eq!(case.ask(&case.fresh(&link, PATIENT)), STEPS);
    case.redis.stall();
    for _ in 0..10 {
        let gateway = case.fresh(&link, Duration::from_millis(20));
        assert_eq!(case.ask(&gateway), STEPS);
        assert_eq!(gateway.count(|c| c.away.load(Relaxed)), 1);
    }
    case.redis.go_on();
    let back = case.link();
    assert_eq!(case.ask(&case.fresh(&back, PATIENT)), 0);
    case.redis.kill();
    for _ in 0..3 {
        let gateway = case.fresh(&back, PATIENT);
        assert_eq!((case.ask(&gateway), gateway.count(|c| c.away.load(Relaxed))), (STEPS, 1));
    }
    case.redis.restart();
    let anew = case.link();
    assert_eq!(case.ask(&case.fresh(&anew, PATIENT)), STEPS);
    assert_eq!(case.ask(&case.fresh(&anew, PATIENT)), 0);
}
