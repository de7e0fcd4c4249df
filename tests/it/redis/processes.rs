//! Three real gateways with one limit.

use serde_json::Value;

use super::setting::{RedisServer, until};
use crate::server::{Options, Server, now_ms, remote_write};

/// So little that the slowest machine asks for more.
const RATE: u64 = 20;
const BURST: u64 = 2000;

/// A write of ten samples.
fn write(server: &Server, n: i64) -> u16 {
    write_many(server, n, 10)
}

/// A write of so many samples.
fn write_many(server: &Server, n: i64, count: i64) -> u16 {
    let labels = vec![("__name__".to_owned(), "m".to_owned())];
    let at = now_ms() - 60_000 + n;
    let samples = (0..count).map(|i| (at + i, 1.0)).collect();
    server.try_write(&remote_write(&[(labels, samples)]), None).unwrap().0
}

fn figure(server: &Server, name: &str) -> f64 {
    let (_, text) = server.get("/metrics");
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")))
        .unwrap_or_else(|| panic!("{name}\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn redis_check(server: &Server) -> Value {
    let (status, text) = server.get("/health/deep");
    assert_eq!(status, 200, "{text}");
    let document: Value = serde_json::from_str(&text).unwrap();
    let document = document.get("data").unwrap_or(&document);
    let checks = document["checks"].as_array().unwrap_or_else(|| panic!("{text}"));
    checks.iter().find(|check| check["name"] == "redis").unwrap_or_else(|| panic!("{text}")).clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_share_a_limit_and_live_on_without_redis() {
    let Some(mut redis) = RedisServer::start(&["--requirepass", "sesame"]) else { return };
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let options = Options { quiet: true, ..Options::default() }
        .env("REDIS_URL", &redis.url())
        .env("REDIS_PASSWORD", "sesame")
        .env("REDIS_RATELIMIT_ENABLED", "true")
        // A busy machine is no failure here.
        .env("LUMINATE_REDIS__TIMEOUT", "10s")
        .env("LUMINATE_REDIS__BREAKER__MIN_OPEN", "50ms")
        .env("LUMINATE_REDIS__BREAKER__MAX_OPEN", "1s")
        .env("LUMINATE_LIMITS__DEFAULTS__SAMPLES_PER_SECOND", &RATE.to_string())
        .env("LUMINATE_LIMITS__DEFAULTS__SAMPLES_BURST", &BURST.to_string());
    let servers: Vec<Server> = dirs.iter().map(|dir| Server::start(dir.path(), &options)).collect();
    let connected = |server: &Server| figure(server, "luminate_redis_fallback_active") == 0.0;
    until("all are connected", async || servers.iter().all(connected)).await;
    assert_eq!(redis_check(&servers[0])["status"], "ok");

    let mut key = redis::Client::open(format!("redis://:sesame@127.0.0.1:{}", redis.port))
        .unwrap()
        .get_connection()
        .unwrap();
    let mut kept = || -> (Option<u64>, Option<u64>) {
        super::setting::ask(&mut key, "HMGET luminate:{anonymous}:samples_per_second:20:2000 used at")
    };
    // Emptied first: it takes long to fill, so that none of what comes in runs over.
    assert!(matches!(write_many(&servers[0], 0, 2000), 200 | 204));
    let began = kept().1;
    let (mut taken, mut refused) = (BURST, 0);
    for n in 0..10_000 {
        match write(&servers[usize::try_from(n % 3).unwrap()], n) {
            200 | 204 => taken += 10,
            429 => refused += 1,
            status => panic!("{status}"),
        }
        if refused >= 30 && taken >= BURST + 20 {
            break;
        }
    }
    assert!(refused >= 30 && taken > BURST, "{taken} taken, {refused} refused");
    let (used, ended) = kept();
    let came_in = RATE * (ended.unwrap() - began.unwrap());
    assert_eq!(taken * 1_000_000 - used.unwrap(), came_in, "not a microtoken more or less for all three");

    // Gone: each has its share of the burst, and nobody gets an error.
    redis.kill();
    for server in &servers {
        let (mut alone, mut n) = (0, 0);
        let mut writes = || {
            n += 1;
            match write(server, n) {
                200 | 204 => alone += 10,
                429 => {}
                status => panic!("{status}"),
            }
        };
        // Whoever was just refused is not asked about for a moment, so that it is not noticed at once.
        until("it is noticed", || {
            writes();
            let noticed = figure(server, "luminate_redis_fallback_active") == 1.0;
            async move { noticed }
        })
        .await;
        (0..100).for_each(|_| writes());
        assert!(alone >= BURST / 3 - 10, "{alone}");
        let check = redis_check(server);
        assert_eq!(check["status"], "degraded", "{check}");
    }
    redis.restart();
    until("all are connected again", async || servers.iter().all(connected)).await;
    for server in servers {
        assert!(server.terminate().success());
    }
}

#[test]
fn the_server_starts_without_redis_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { quiet: true, ..Options::default() }
        .env("LUMINATE_REDIS_URL", &format!("redis://127.0.0.1:{}", crate::server::free_port()))
        .env("LUMINATE_REDIS_RATELIMIT_ENABLED", "true")
        .env("LUMINATE_LIMITS__DEFAULTS__SAMPLES_PER_SECOND", "300");
    let server = Server::start(dir.path(), &options);
    assert_eq!(write(&server, 0), 204);
    assert_eq!(redis_check(&server)["status"], "degraded");
    assert_eq!(figure(&server, "luminate_redis_fallback_active"), 1.0);
    assert!(server.terminate().success());
}
