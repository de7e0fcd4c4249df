//! A Redis that is killed, silent, flushed, restarted or locked: no request fails because of it, each gateway keeps to its
//! share, and all count together again when it is back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use luminate::gateway::redis::LinkState;
use tokio::task::JoinHandle;

use super::setting::{Gateway, RedisServer, config, samples, tenant, until};

/// Draws without end, several at a time.
struct Load {
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
    decided: Arc<AtomicU64>,
    drawing: Vec<JoinHandle<()>>,
}

const RATE: u64 = 3000;
const BURST: u64 = 3000;

impl Load {
    fn on(gateway: &Arc<Gateway>) -> Self {
        let (stop, taken, decided): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let drawing = (0..8).map(|_| {
            let (gateway, stop) = (Arc::clone(gateway), Arc::clone(&stop));
            let (taken, decided) = (Arc::clone(&taken), Arc::clone(&decided));
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    if gateway.takes(&tenant("team"), samples(RATE, BURST, 1)).await {
                        taken.fetch_add(1, Relaxed);
                    }
                    decided.fetch_add(1, Relaxed);
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
            })
        });
        let drawing = drawing.collect();
        Self { stop, taken, decided, drawing }
    }

    /// Waits for so many more decisions.
    async fn goes_on(&self, more: u64) {
        let from = self.decided.load(Relaxed);
        until("draws are decided", async || self.decided.load(Relaxed) >= from + more).await;
    }

    async fn end(self) {
        self.stop.store(true, Relaxed);
        for drawer in self.drawing {
            drawer.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_decided_while_redis_comes_and_goes() {
    let Some(mut server) = RedisServer::start(&[]) else { return };
    let gateway = Arc::new(Gateway::over(&config(&server), Duration::from_millis(25)));
    gateway.until(LinkState::Closed).await;
    let load = Load::on(&gateway);
    load.goes_on(200).await;

    // What was there is lost, and the buckets begin full; nobody notices otherwise.
    let _: () = server.ask("SCRIPT FLUSH");
    load.goes_on(200).await;
    let _: () = server.ask("FLUSHALL");
    load.goes_on(200).await;

    server.kill();
    until("the gateway is on its own", async || gateway.buckets.is_on_its_own()).await;
    load.goes_on(500).await;
    until("it is told why", async || gateway.link.check().detail.contains("refused")).await;
    server.restart();
    gateway.until(LinkState::Closed).await;
    load.goes_on(200).await;

    server.stall();
    until("the gateway is on its own", async || gateway.buckets.is_on_its_own()).await;
    load.goes_on(500).await;
    server.go_on();
    gateway.until(LinkState::Closed).await;
    load.goes_on(200).await;

    // Somebody changes the password and throws everybody out.
    let mut still_in = server.connection();
    let _: () = super::setting::ask(&mut still_in, "CONFIG SET requirepass sesame");
    let _: i64 = super::setting::ask(&mut still_in, "CLIENT KILL TYPE normal SKIPME yes");
    until("the gateway is on its own", async || gateway.buckets.is_on_its_own()).await;
    load.goes_on(500).await;
    until("it is told why", async || gateway.link.check().detail.contains("NOAUTH")).await;
    let _: () = redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("").query(&mut still_in).unwrap();
    gateway.until(LinkState::Closed).await;
    load.goes_on(200).await;
    load.end().await;
    assert!(gateway.link.counters().lost.load(Relaxed) >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_on_its_own_keeps_to_its_share() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut nowhere = config(&server);
    drop(server);
    nowhere.breaker.max_open = Duration::from_millis(50);
    let gateway = Arc::new(Gateway::over(&nowhere, Duration::from_millis(25)));
    gateway.until(LinkState::Open).await;
    let began = gateway.clock.elapsed();
    let load = Load::on(&gateway);
    load.goes_on(5000).await;
    let taken = Arc::clone(&load.taken);
    load.end().await;
    let took = gateway.clock.elapsed() - began;
    // A third of the burst, and of what came in; at least the burst was there to be had.
    let most = u128::from(BURST) / 3 + u128::from(RATE) * took.as_nanos() / 3_000_000_000;
    let taken = taken.load(Relaxed);
    assert!(BURST / 3 <= taken && u128::from(taken) <= most, "{taken} of {most} in {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_redis_is_asked_by_few_and_holds_nobody_up() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut patient = config(&server);
    // Once left alone it stays so for the rest of the test.
    patient.breaker.min_open = Duration::from_secs(50);
    patient.breaker.max_open = Duration::from_secs(50);
    let gateway = Arc::new(Gateway::over(&patient, Duration::from_millis(25)));
    gateway.until(LinkState::Closed).await;
    server.stall();
    let mut waited = Vec::new();
    for n in 0..1000 {
        let began = gateway.clock.elapsed();
        gateway.takes(&tenant(&format!("t{n}")), samples(RATE, BURST, 1)).await;
        waited.push(gateway.clock.elapsed() - began);
    }
    let counters = gateway.link.counters();
    assert_eq!(counters.late.load(Relaxed), 5, "five are late, and nobody else asks");
    assert_eq!(counters.skipped.load(Relaxed), 995);
    assert_eq!(gateway.link.state(), LinkState::Open);
    waited.sort();
    let late = waited.iter().filter(|wait| **wait >= Duration::from_millis(25)).count();
    assert!(late >= 5, "{late}");
}

#[tokio::test]
async fn what_another_keeps_under_our_names_is_no_answer_and_no_panic() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let gateway = Gateway::connected(&config(&server)).await;
    let _: () = server.ask("SET luminate:{a}:samples_per_second:1:10 x");
    assert!(gateway.takes(&tenant("a"), samples(1, 10, 3)).await, "by its share");
    assert!(!gateway.takes(&tenant("a"), samples(1, 10, 3)).await, "which is three");
    let _: i64 = server.ask("HSET luminate:{b}:samples_per_second:1:10 used many at never");
    assert!(gateway.takes(&tenant("b"), samples(1, 10, 10)).await, "as if it were not there");
    assert_eq!(gateway.link.state(), LinkState::Closed);
}
