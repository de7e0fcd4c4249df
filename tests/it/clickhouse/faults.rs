//! What can happen to a ClickHouse under a gateway that is written to and read from all the time.
//!
//! Each test is a story: the crowd of a [`Witness`] goes on, something breaks and is well again. Then the
//! gateway works again by itself, nothing acknowledged is lost, and nothing is counted twice, however the
//! question is asked and whatever the servers computed of its answer. How long the gateway took to be back is
//! printed, and decides nothing. `LUMINATE_TEST_OUTAGE` is how many seconds a trouble lasts.

use std::{
    path::Path,
    slice::from_ref,
    time::{Duration, Instant},
};

use luminate::{
    clock::HandClock,
    model::{Labels, Matcher, TenantId, TimeRange, Timestamp},
    storage::{BatchSample, LabelsRequest, SelectRequest, Storage, WriteBatch, conformance::read_all},
};

use serde_json::Value;

use super::{
    front::Front,
    proxy::{Cut, Fault, Mode, Proxy},
    schema,
    witness::{self, Witness},
};
use crate::{
    patience::wait_for,
    server::{Options, Server, now_ms, remote_write},
};

/// How long a trouble lasts.
fn outage() -> Duration {
    let seconds = std::env::var("LUMINATE_TEST_OUTAGE").ok().and_then(|n| n.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// A gateway keeps nothing, so there is no directory it could keep it in.
pub const NO_DIRECTORY: &str = "/proc/a-gateway-keeps-nothing";

/// More than a gateway in these tests may take; an insert's queue is the greatest part of it.
const MEMORY_MB: u64 = 400;

/// Makes a gateway of a server.
pub fn gateway_options(addresses: &[String], database: &str, more: &[(&str, &str)]) -> Options {
    let options = Options { quiet: true, ..Options::default() }
        .env("LUMINATE_STORAGE__BACKEND", "clickhouse")
        .env("LUMINATE_STORAGE__CLICKHOUSE__ADDRESSES", &addresses.join(","))
        .env("LUMINATE_STORAGE__CLICKHOUSE__DATABASE", database);
    more.iter().fold(options, |options, (key, value)| options.env(key, value))
}

/// Starts a gateway to the engine at `addresses`, and does not wait.
fn spawn_gateway(addresses: &[String], database: &str, more: &[(&str, &str)]) -> Server {
    Server::spawn(Path::new(NO_DIRECTORY), &gateway_options(addresses, database, more))
}

/// The same, and waits until it is ready.
fn gateway(addresses: &[String], database: &str, more: &[(&str, &str)]) -> Server {
    let server = spawn_gateway(addresses, database, more);
    server.wait_ready();
    server
}

/// An engine with our tables, and a way to it that can be broken.
#[derive(Debug)]
struct Stage {
    front: Front,
    proxy: Proxy,
    witness: Witness,
}

impl Stage {
    /// An engine of the test's own, which may be killed.
    fn own() -> Option<Self> {
        Front::start_own().map(Self::with)
    }

    /// A database of the engine that all share.
    fn shared() -> Option<Self> {
        Front::start().map(Self::with)
    }

    /// The same, if it takes our faults.
    fn faulty() -> Option<Self> {
        Front::start().filter(Front::is_ours).map(Self::with)
    }

    fn with(front: Front) -> Self {
        schema::apply(&front);
        Self { proxy: Proxy::start(&front.url), front, witness: Witness::new() }
    }

    fn gateway(&self) -> Server {
        gateway(&[self.proxy.url()], &self.front.database, &[])
    }

    /// Lets the crowd work on one gateway while `trouble` comes and goes, and says how long the gateway took
    /// to be well again; then checks what is stored.
    fn tell(&self, what: &str, trouble: impl FnOnce(&Self)) {
        let gateway = self.gateway();
        self.witness.watch(&[gateway.url("")], || {
            self.witness.wait_progress();
            trouble(self);
            let back = self.witness.wait_progress();
            println!("{what}: well again after {:.2} s", back.as_secs_f64());
        });
        self.check(what, &gateway);
    }

    /// Checks what is stored: through the gateway that saw it all, through gateways that let the servers
    /// compute nothing and all they can, and when the parts are merged.
    fn check(&self, what: &str, gateway: &Server) {
        let peak = gateway.peak_rss_mb();
        println!("{what}: {} samples acknowledged, gateway's memory {peak} MB", self.witness.samples());
        assert!(peak < MEMORY_MB, "{peak} MB");
        self.witness.check(&gateway.url(""));
        self.check_pushed_down();
        self.front.sql(&format!("OPTIMIZE TABLE {}.samples FINAL", self.front.database));
        self.check_pushed_down();
    }

    fn check_pushed_down(&self) {
        for pushdown in ["off", "auto", "force"] {
            let more = [("LUMINATE_STORAGE__CLICKHOUSE__PUSHDOWN", pushdown)];
            let gateway = self::gateway(from_ref(&self.front.url), &self.front.database, &more);
            self.witness.check(&gateway.url(""));
        }
    }
}

#[test]
fn a_clickhouse_that_is_down_at_the_start_is_waited_for() {
    let Some(stage) = Stage::shared() else { return };
    stage.proxy.set(Mode::Refuse);
    let gateway = spawn_gateway(&[stage.proxy.url()], &stage.front.database, &[]);
    wait_for("the gateway to listen", || gateway.try_get("/-/healthy").is_ok());
    refuses(&gateway);
    stage.proxy.set(Mode::Pass);
    let begun = Instant::now();
    gateway.wait_ready();
    println!("down at the start: ready after {:.2} s", begun.elapsed().as_secs_f64());
    stage.witness.watch(&[gateway.url("")], || {
        stage.witness.wait_progress();
    });
    stage.check("down at the start", &gateway);
}

/// A gateway that cannot reach its tables lives, is not ready, and says so to all who come.
fn refuses(gateway: &Server) {
    assert_eq!(gateway.get("/-/healthy").0, 200);
    assert_eq!(gateway.get("/-/ready").0, 503);
    let series = (vec![("__name__".to_owned(), "fault".to_owned())], vec![(now_ms(), 1.0)]);
    let (status, later, text) = witness::write(&gateway.url(""), &remote_write(&[series])).unwrap();
    assert!(status >= 500 && later, "{status}: {text}");
    let (status, _, text) = witness::get(&gateway.url(""), "/api/v1/query", &[("query", "fault")]).unwrap();
    assert!(status >= 500, "{status}: {text}");
}

#[test]
fn a_clickhouse_may_be_away_for_a_while() {
    let Some(stage) = Stage::shared() else { return };
    stage.tell("away", |stage| {
        stage.proxy.set(Mode::Refuse);
        std::thread::sleep(outage());
        stage.proxy.set(Mode::Pass);
    });
    assert!(stage.witness.failed_reads() > 0, "somebody read while it was away");
}

#[test]
fn a_clickhouse_may_fall_silent_for_a_while() {
    let Some(stage) = Stage::shared() else { return };
    stage.tell("silent", |stage| {
        stage.proxy.set(Mode::Silent);
        std::thread::sleep(outage());
        stage.proxy.set(Mode::Pass);
    });
}

#[test]
fn a_slow_clickhouse_is_waited_for() {
    let Some(stage) = Stage::shared() else { return };
    stage.tell("slow", |stage| {
        stage.proxy.set(Mode::Delay(Duration::from_millis(700)));
        stage.witness.wait_progress();
        stage.proxy.set(Mode::Pass);
    });
    assert_eq!((stage.witness.failed_writes(), stage.witness.failed_reads()), (0, 0), "slow is not broken");
}

/// Statements that fit `matching` fail with `code` for a while.
fn refusing(code: u32, matching: &str) {
    let Some(stage) = Stage::faulty() else { return };
    stage.tell(&format!("{code} for {matching}"), |stage| {
        stage.front.fault(&format!("fail={code}&match={matching}&times=1000000"));
        std::thread::sleep(outage());
        stage.front.heal();
    });
}

#[test]
fn inserts_may_be_refused_for_too_many_parts() {
    refusing(252, "INSERT");
}

#[test]
fn inserts_may_be_refused_for_lack_of_memory() {
    refusing(241, "INSERT");
}

#[test]
fn a_clickhouse_may_take_no_writes() {
    refusing(242, "INSERT");
}

#[test]
fn a_clickhouse_may_be_overwhelmed() {
    refusing(202, "");
}

#[test]
fn a_refused_insert_may_have_been_done() {
    let Some(stage) = Stage::faulty() else { return };
    stage.tell("done, and refused", |stage| {
        for code in [319, 209, 210, 252] {
            stage.front.fault(&format!("fail={code}:after&match=INSERT&times=5"));
            stage.witness.wait_progress();
        }
    });
}

#[test]
fn connections_may_break_anywhere() {
    let Some(stage) = Stage::shared() else { return };
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    println!("seed {seed:#x}");
    stage.tell("connections broke", |stage| {
        for round in 0..24 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (seed >> 33) % 1500;
            let cut = if round % 2 == 0 { Cut::Request(at) } else { Cut::Answer(at % 400) };
            let holding = ["INSERT", "SELECT", "POST"][round / 2 % 3];
            let before = stage.proxy.cuts();
            // Some, so that the gateway's next try is hit too.
            stage.proxy.fault(Fault { holding, cut, times: 1 + round % 3 });
            wait_for("the accident", || stage.proxy.cuts() > before || round % 2 == 0);
        }
        // Before, in and after an insert, each for itself.
        for cut in [Cut::Request(0), Cut::Request(700), Cut::Answer(0), Cut::Answer(60)] {
            stage.proxy.fault(Fault { holding: "INSERT", cut, times: 3 });
            stage.witness.wait_progress();
        }
        for _ in 0..10 {
            stage.proxy.cut_idle();
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    assert!(stage.proxy.cuts() > 20, "{} cuts", stage.proxy.cuts());
}

#[test]
fn an_answer_may_fail_in_the_middle() {
    let Some(stage) = Stage::faulty() else { return };
    stage.tell("answers failed in the middle", |stage| {
        for fault in ["fail_mid=1001", "fail_mid=241", "fail_mid=159", "drop=mid"] {
            // Its own statements and those of the crowd, of which some are tried again.
            stage.front.fault(&format!("{fault}&match=FROM%20(samples|series)&times=5"));
            stage.witness.wait_progress();
        }
    });
    assert!(stage.witness.failed_reads() > 0, "a broken answer is not an answer");
}

#[test]
fn a_clickhouse_may_be_killed_and_started_again() {
    let Some(mut stage) = Stage::own() else { return };
    let gateway = stage.gateway();
    for _ in 0..3 {
        stage.witness.watch(&[gateway.url("")], || {
            // The front is ours alone, but the story needs it whole.
            stage.witness.wait_progress();
            stage.front.kill();
            std::thread::sleep(Duration::from_millis(300));
            stage.front.start_again(&[]);
            let back = stage.witness.wait_progress();
            println!("killed: well again after {:.2} s", back.as_secs_f64());
        });
    }
    stage.check("killed", &gateway);
}

/// Whether the gateway uses all of its servers.
fn uses_all_servers(gateway: &Server) -> bool {
    let report: Value = serde_json::from_str(&gateway.get("/health/deep").1).unwrap();
    let checks = report["data"]["checks"].as_array().unwrap();
    let is_server = |check: &&Value| check["name"].as_str().is_some_and(|name| name.starts_with("server "));
    checks.iter().filter(is_server).all(|server| server["status"] == "ok")
}

#[test]
fn one_of_three_addresses_may_be_dead() {
    let Some(stage) = Stage::shared() else { return };
    let ways = [&stage.proxy, &Proxy::start(&stage.front.url), &Proxy::start(&stage.front.url)];
    ways[0].set(Mode::Refuse);
    let gateway = gateway(&ways.map(Proxy::url), &stage.front.database, &[]);
    stage.witness.watch(&[gateway.url("")], || {
        for (number, way) in ways.iter().enumerate() {
            for mode in [Mode::Refuse, Mode::Silent] {
                way.set(mode);
                let on = stage.witness.wait_progress();
                println!("address {number} is dead ({mode:?}): on after {:.2} s", on.as_secs_f64());
                way.set(Mode::Pass);
                // Only one is to be dead at a time, and who was is asked again after a while.
                wait_for("all servers to be used", || uses_all_servers(&gateway));
            }
        }
    });
    assert_eq!(stage.witness.failed_writes(), 0, "the other two take them");
    stage.check("one of three dead", &gateway);
}

#[test]
fn a_schema_that_is_missing_is_waited_for() {
    let Some(front) = Front::start() else { return };
    let gateway = spawn_gateway(from_ref(&front.url), &front.database, &[]);
    wait_for("the gateway to listen", || gateway.try_get("/-/healthy").is_ok());
    refuses(&gateway);
    let stage = Stage::with(front);
    let begun = Instant::now();
    gateway.wait_ready();
    println!("schema applied: ready after {:.2} s", begun.elapsed().as_secs_f64());
    stage.witness.watch(&[gateway.url("")], || {
        stage.witness.wait_progress();
    });
    stage.check("schema applied", &gateway);
}

#[test]
fn a_wrong_password_is_trouble_of_ours_and_not_of_who_writes() {
    let Some(mut stage) = Stage::own() else { return };
    stage.front.kill();
    stage.front.start_again(&["--user", "luminate", "--password", "right"]);
    let with = |password| {
        let user = ("LUMINATE_STORAGE__CLICKHOUSE__USERNAME", "luminate");
        let more = [user, ("LUMINATE_STORAGE__CLICKHOUSE__PASSWORD", password)];
        spawn_gateway(from_ref(&stage.front.url), &stage.front.database, &more)
    };
    let (wrong, right) = (with("wrong"), with("right"));
    right.wait_ready();
    wait_for("the gateway to listen", || wrong.try_get("/-/healthy").is_ok());
    refuses(&wrong);
    stage.witness.watch(&[right.url("")], || {
        stage.witness.wait_progress();
    });
    stage.witness.check(&right.url(""));
    refuses(&wrong);
    // Somebody sets it right on the other side.
    stage.front.kill();
    stage.front.start_again(&["--user", "luminate", "--password", "wrong"]);
    let begun = Instant::now();
    wrong.wait_ready();
    println!("password set right: ready after {:.2} s", begun.elapsed().as_secs_f64());
    stage.witness.check(&wrong.url(""));
}

#[test]
fn what_two_gateways_insert_at_once_is_there_once() {
    let Some(stage) = Stage::shared() else { return };
    let gateways = [stage.gateway(), stage.gateway()];
    let urls = gateways.each_ref().map(|g| g.url(""));
    stage.witness.write_to_each(&urls, 80);
    stage.check("two gateways", &gateways[0]);
}

/// Pods' clocks differ. Around midnight, one registers a series for a day that the other is not in yet.
#[tokio::test]
async fn gateways_whose_clocks_differ_see_the_same() {
    let Some(front) = Front::start() else { return };
    let midnight = Timestamp(now_ms() / 86_400_000 * 86_400_000);
    let clock = |minutes: i64| HandClock::at(Timestamp(midnight.0 + minutes * 60_000));
    let (slow, fast) = (schema::open(&front, clock(-10)), schema::open(&front, clock(10)));
    slow.apply_schema().await.unwrap();
    let tenant = TenantId::anonymous();
    let shared = Labels::from_pairs([("__name__", "skew"), ("by", "both")]).unwrap();
    let mut expected = Vec::new();
    for minute in -20_i64..=20 {
        let at = Timestamp(midnight.0 + minute * 60_000);
        for (store, by) in [(&slow, "slow"), (&fast, "fast")] {
            let own = Labels::from_pairs([("__name__", "skew"), ("by", by)]).unwrap();
            let mut batch = WriteBatch::over(vec![own, shared.clone()]);
            let sample = |series| BatchSample { series, timestamp: at, value: at.0 as f64, start: 0 };
            batch.samples = vec![sample(0), sample(1)];
            let appended = store.append(&tenant, batch).await.unwrap();
            assert_eq!((appended.samples, appended.rejected.len()), (2, 0), "minute {minute} by {by}");
        }
        expected.push(at.0);
    }
    for store in [slow, fast] {
        let range =
            TimeRange::new(Timestamp(midnight.0 - 3_600_000), Timestamp(midnight.0 + 3_600_000)).unwrap();
        let request = SelectRequest::new(vec![Matcher::equal("__name__", "skew")], range);
        let found = read_all(store.as_ref(), &tenant, request).await;
        let by: Vec<_> = found.iter().map(|(labels, _)| labels.get("by").unwrap()).collect();
        assert_eq!(by, ["both", "fast", "slow"]);
        for (labels, samples) in &found {
            assert_eq!(samples.timestamps, expected, "{labels}");
        }
        // Of one day alone, on either side of midnight.
        for (from, to) in [(-1200, -1), (0, 1200)] {
            let [from, to] = [from, to].map(|seconds| Timestamp(midnight.0 + seconds * 1000));
            let matchers = vec![vec![Matcher::equal("__name__", "skew")]];
            let request = LabelsRequest { matchers, range: TimeRange::new(from, to).unwrap(), limit: 0 };
            assert_eq!(store.series(&tenant, request).await.unwrap().len(), 3, "{from:?} to {to:?}");
        }
        store.close().await.unwrap();
    }
}
