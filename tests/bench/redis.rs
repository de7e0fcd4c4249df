//! Limits that three gateways share over Redis: how exact they are, what a call costs, and what a silent Redis costs.
//!
//! `make bench` prints a table. `LUMINATE_BENCH_SECONDS` changes how long the limit is held against the clock.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    dead_code,
    unreachable_pub,
    reason = "a measuring program, which uses some of the tests' parts"
)]

#[path = "../it/patience.rs"]
mod patience;
#[path = "../it/server.rs"]
mod server;
#[path = "../it/redis/setting.rs"]
mod setting;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use luminate::gateway::{limit::buckets::Buckets, redis::LinkState};
use setting::{Gateway, RedisServer, config, samples, tenant, until};

const RATE: u64 = 10_000;

fn main() {
    // `cargo bench` and `cargo test --benches` pass flags that are not for us.
    let seconds =
        std::env::var("LUMINATE_BENCH_SECONDS").ok().and_then(|value| value.parse().ok()).unwrap_or(30);
    let Some(redis) = RedisServer::start(&[]) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("| | |\n|---|---:|");
    runtime.block_on(async {
        exactness(&redis, Duration::from_secs(seconds)).await;
        latency(&redis).await;
    });
}

/// Three gateways want three times what there is, for a while.
async fn exactness(redis: &RedisServer, lasts: Duration) {
    let team = tenant("team");
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(Arc::new(Gateway::connected(&config(redis)).await));
    }
    // The burst is had first, so that what follows is the rate alone.
    assert!(gateways[0].takes(&team, samples(RATE, RATE, RATE)).await);
    let began = redis.time();
    let end = Instant::now() + lasts;
    let mut drawing = Vec::new();
    for gateway in &gateways {
        for _ in 0..8 {
            let (gateway, team) = (Arc::clone(gateway), team.clone());
            drawing.push(tokio::spawn(async move {
                let mut taken = 0;
                while Instant::now() < end {
                    match gateway.buckets.take(&team, &[samples(RATE, RATE, 25)]).await {
                        Ok(()) => taken += 25,
                        Err(short) => tokio::time::sleep(short.retry_after.unwrap()).await,
                    }
                }
                taken
            }));
        }
    }
    let mut taken = 0_u64;
    for drawer in drawing {
        taken += drawer.await.unwrap();
    }
    let took = (redis.time() - began) as f64 / 1e6;
    let allowed = RATE as f64 * took;
    println!("| let through by three gateways in {took:.1} s, of {allowed:.0} | {taken} |");
    println!("| off by | {:+.3} % |", 100.0 * (taken as f64 - allowed) / allowed);
}

/// What a draw takes: in memory, in Redis, and while Redis is silent.
async fn latency(redis: &RedisServer) {
    let gateway = Arc::new(Gateway::over(&config(redis), Duration::from_millis(25)));
    gateway.until(LinkState::Closed).await;
    let well = draws(&gateway).await;
    report("draw from Redis", &well);
    redis.stall();
    let silent = draws(&gateway).await;
    report("draw while Redis is silent", &silent);
    let growth = percentile(&silent, 0.99).saturating_sub(percentile(&well, 0.99));
    println!("| p99 grows by | {:.3} ms |", growth.as_secs_f64() * 1e3);
    let began = Instant::now();
    redis.go_on();
    until("Redis is back", async || gateway.link.state() == LinkState::Closed).await;
    println!("| well again after | {:.2} s |", began.elapsed().as_secs_f64());
}

/// Draws by eight for several seconds, a thousand a second together; how long each took, in order.
async fn draws(gateway: &Arc<Gateway>) -> Vec<Duration> {
    let drawing = (0..8).map(|n| {
        let gateway = Arc::clone(gateway);
        tokio::spawn(async move {
            let team = tenant(&format!("t{n}"));
            let mut took = Vec::new();
            let mut tick = tokio::time::interval(Duration::from_millis(8));
            for _ in 0..1000 {
                tick.tick().await;
                let began = Instant::now();
                gateway.takes(&team, samples(1_000_000, 1_000_000, 1)).await;
                took.push(began.elapsed());
            }
            took
        })
    });
    let mut all = Vec::new();
    for drawer in drawing.collect::<Vec<_>>() {
        all.extend(drawer.await.unwrap());
    }
    all.sort();
    all
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn report(what: &str, sorted: &[Duration]) {
    let at = |share| percentile(sorted, share).as_secs_f64() * 1e3;
    println!("| {what}: p50, p99, worst | {:.3}, {:.3}, {:.3} ms |", at(0.5), at(0.99), at(1.0));
}
