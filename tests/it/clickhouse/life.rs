//! A server over ClickHouse: without it, without a schema, with both, without it again.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    front::Front,
    proxy::{Mode, Proxy},
    witness,
};
use crate::server::{Options, Server, luminate, now_ms, remote_write};

/// A server over a front, not waited for; it has no place for files of its own.
fn server(front: &Front) -> Server {
    server_at(&front.url, front)
}

/// The same, where the ways to the front are others.
fn server_at(addresses: &str, front: &Front) -> Server {
    Server::spawn("/nowhere/luminate".as_ref(), &options(addresses, front))
}

/// One that is not ready while ClickHouse is away.
fn strict_server(front: &Front) -> Server {
    let options = options(&front.url, front).env("LUMINATE_HEALTH__READY_REQUIRES_STORAGE", "true");
    Server::spawn("/nowhere/luminate".as_ref(), &options)
}

fn options(addresses: &str, front: &Front) -> Options {
    Options::default()
        .env("LUMINATE_STORAGE__BACKEND", "clickhouse")
        .env("LUMINATE_STORAGE__CLICKHOUSE__ADDRESSES", addresses)
        .env("LUMINATE_STORAGE__CLICKHOUSE__DATABASE", &front.database)
}

fn apply(front: &Front) {
    let arguments = ["schema", "apply", "--address", &front.url, "--database", &front.database];
    let applied = luminate().args(arguments).output().unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
}

/// Asks until the answer is as wanted, and gives how long that took.
#[track_caller]
fn until(server: &Server, path: &str, wanted: impl Fn(u16, &str) -> bool) -> Duration {
    let began = Instant::now();
    let mut last = String::new();
    while began.elapsed() < Duration::from_secs(60) {
        if let Ok((status, body)) = server.try_get(path) {
            if wanted(status, &body) {
                return began.elapsed();
            }
            last = format!("{status} {body}");
        }
        sleep(Duration::from_millis(100));
    }
    panic!("{path} still says {last}");
}

fn deep(server: &Server) -> Value {
    let mut answer: Value = serde_json::from_str(&server.get("/health/deep").1).unwrap();
    answer["data"].take()
}

fn status_of(deep: &Value, name: &str) -> String {
    let checks = deep["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap()["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_server_waits_for_clickhouse_and_for_its_schema() {
    let Some(mut front) = Front::start_own() else { return };
    front.kill();
    let server = server(&front);
    until(&server, "/health/ready", |status, body| status == 503 && body.contains("out of reach"));
    assert_eq!(server.get("/health/live").0, 200);
    assert_eq!(server.get("/health/startup").0, 200, "a pod is not to be killed for what it stands on");
    let report = deep(&server);
    assert_eq!((report["status"].as_str(), report["ready"].as_bool()), (Some("failed"), Some(false)));
    assert_eq!(status_of(&report, "clickhouse"), "failed");

    front.start_again(&[]);
    until(&server, "/health/ready", |status, body| {
        status == 503 && body.contains("run `luminate schema apply`")
    });
    assert_eq!(status_of(&deep(&server), "schema"), "failed");

    apply(&front);
    until(&server, "/health/ready", |status, _| status == 200);
    until(&server, "/health/deep", |status, body| status == 200 && body.contains("26."));
    let report = deep(&server);
    assert_eq!(report["status"], "ok", "{report}");
    for name in ["clickhouse", "schema", "parts"] {
        assert_eq!(status_of(&report, name), "ok", "{report}");
    }
    let (code, _) = server.get("/api/v1/health");
    assert_eq!(code, 200);
    assert!(server.terminate().success());
}

#[test]
fn a_server_that_loses_clickhouse_stays_to_tell_senders_when_to_come_back() {
    let Some(mut front) = Front::start_own() else { return };
    apply(&front);
    let gateway = server(&front);
    let strict = strict_server(&front);
    for server in [&gateway, &strict] {
        until(server, "/health/ready", |status, _| status == 200);
    }
    for _ in 0..2 {
        front.kill();
        for server in [&gateway, &strict] {
            until(server, "/health/deep", |status, body| status == 503 && body.contains("unavailable"));
            assert_eq!(server.get("/health/live").0, 200);
            assert_eq!(server.get("/health/startup").0, 200);
            assert!(server.get("/metrics").1.contains("luminate_storage_answers_reads 0"));
        }
        // All gateways lose it at once: were none ready, a load balancer would have nobody to send to.
        assert_eq!(gateway.get("/health/ready").0, 200);
        assert_eq!(gateway.get("/api/v1/health").0, 200);
        let report = deep(&gateway);
        assert_eq!((report["status"].as_str(), report["ready"].as_bool()), (Some("failed"), Some(true)));
        let series = (vec![("__name__".to_owned(), "lost".to_owned())], vec![(now_ms(), 1.0)]);
        let (status, later, text) = witness::write(&gateway.url(""), &remote_write(&[series])).unwrap();
        assert_eq!((status, later), (503, true), "{text}");
        let (status, _, text) =
            witness::get(&gateway.url(""), "/api/v1/query", &[("query", "lost")]).unwrap();
        assert!(status == 503 && text.contains("ClickHouse"), "{status}: {text}");
        let (status, why) = strict.get("/health/ready");
        assert!(status == 503 && why.contains("unavailable"), "{status}: {why}");

        front.start_again(&[]);
        for server in [&gateway, &strict] {
            let took = until(server, "/health/deep", |status, _| status == 200);
            eprintln!("well {took:?} after ClickHouse was back");
            assert_eq!(server.get("/health/ready").0, 200);
            assert!(server.get("/metrics").1.contains("luminate_storage_answers_reads 1"));
        }
    }
    assert!(gateway.terminate().success());
    assert!(strict.terminate().success());
}

#[test]
fn a_server_stays_ready_while_one_address_of_two_is_silent() {
    let Some(front) = Front::start() else { return };
    apply(&front);
    let ways = [(); 2].map(|()| Proxy::start(&front.url));
    let server = server_at(&ways.each_ref().map(Proxy::url).join(","), &front);
    until(&server, "/health/ready", |status, _| status == 200);
    ways[1].set(Mode::Silent);
    // As long as several looks take that get no answer; nobody else asks the servers anything.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(16) {
        assert_eq!(server.get("/health/ready").0, 200, "the other one answers");
        sleep(Duration::from_millis(100));
    }
    assert_eq!(status_of(&deep(&server), "clickhouse"), "ok");
}

#[test]
fn what_is_stored_is_told_as_the_servers_have_it() {
    let Some(front) = Front::start() else { return };
    apply(&front);
    let server = server(&front);
    until(&server, "/health/ready", |status, _| status == 200);
    let stored = || -> Value {
        let mut answer: Value = serde_json::from_str(&server.get("/api/v1/status/storage").1).unwrap();
        answer["data"].take()
    };
    let data = stored();
    assert_eq!(data["backend"], "clickhouse", "{data}");
    assert_eq!((&data["partSamples"], &data["minTime"]), (&0.into(), &Value::Null), "{data}");
    let samples = "(tenant, mid, sid, ts, value)";
    front.sql(&format!(
        "INSERT INTO {0}.samples {samples} VALUES ('a', 1, 2, -5, 1), ('b', 1, 2, 86400000, 1), ('b', 1, 2, 7, 1)",
        front.database
    ));
    front.sql(&format!(
        "INSERT INTO {}.series (tenant, day, metric, mid, sid) VALUES ('a', today(), 'm', 1, 2), ('b', today(), 'm', 1, 2)",
        front.database
    ));
    let data = stored();
    assert_eq!(data["partSamples"], 3, "{data}");
    assert_eq!((&data["minTime"], &data["maxTime"]), (&(-5).into(), &86_400_000.into()), "{data}");
    assert_eq!(data["activeSeries"], 2, "{data}");
    assert!(data["diskBytes"]["samples"].as_u64().unwrap() > 0, "{data}");
    assert!(data["parts"].as_u64().unwrap() >= 3, "{data}");
}
