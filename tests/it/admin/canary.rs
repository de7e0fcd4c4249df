//! Known samples, for ever.

use std::process::Child;

use super::{run, start};
use crate::{
    patience::{wait_for_end, wait_for_some},
    server::{Options, Server, free_port, text},
};

/// A canary that sings ten times a second; killed when dropped.
struct Canary {
    child: Child,
    metrics: String,
}

impl Canary {
    fn start(server: &str) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let arguments = ["admin", "canary", "--server", server, "--interval", "100ms", "--horizon", "5m"];
        let child = start(&[&arguments[..], &["--listen", &listen, "--timeout", "5s"]].concat(), &[]);
        Self { child, metrics: format!("http://{listen}") }
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let text = text(&self.metrics, "/metrics")?;
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    #[track_caller]
    fn until(&self, name: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        wait_for_some(name, || self.metric(name).filter(|value| wanted(*value)))
    }

    /// How many rounds are over, once some more are.
    #[track_caller]
    fn rounds(&self, more: f64) -> f64 {
        let now = self.metric("luminate_canary_rounds_total").unwrap_or(0.0);
        self.until("luminate_canary_rounds_total", |rounds| rounds >= now + more)
    }

    /// Asks it to stop, and gives its exit code.
    fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_for_end("the canary", &mut self.child).code().unwrap()
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const WRONG: &str = "luminate_canary_wrong_values_total";
const MISSING: &str = "luminate_canary_missing_values_total";
const CHECKED: &str = "luminate_canary_checked_values_total";

fn failed(stage: &str) -> String {
    format!("luminate_canary_failed_rounds_total{{stage=\"{stage}\"}}")
}

#[test]
fn a_canary_sees_all_it_wrote_and_goes_on_where_another_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let first = Canary::start(&server.url(""));
    first.rounds(5.0);
    for stage in ["write", "visible", "query", "query_range"] {
        assert_eq!(first.metric(&failed(stage)), Some(0.0), "{stage}");
    }
    assert!(first.until("luminate_canary_visible_seconds_count", |n| n > 0.0) >= 1.0);
    assert!(first.until("luminate_canary_last_success_timestamp_seconds", |at| at > 0.0) > 1.7e9);
    assert_eq!(first.stop(), 0);

    let second = Canary::start(&server.url(""));
    second.rounds(3.0);
    // More than it wrote itself: at most three values a round, each compared twice.
    let (checked, rounds) =
        (second.metric(CHECKED).unwrap(), second.metric("luminate_canary_rounds_total").unwrap());
    assert!(checked > rounds * 6.0, "{checked} in {rounds} rounds");
    assert_eq!((second.metric(WRONG), second.metric(MISSING)), (Some(0.0), Some(0.0)));
    let named = server.api("/api/v1/label/canary/values", &[]);
    assert_eq!(named, serde_json::json!(["canary"]));
}

#[test]
fn what_was_taken_away_is_missed_by_who_wrote_it_and_by_who_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let first = Canary::start(&server.url(""));
    first.rounds(6.0);
    let samples = server.api("/api/v1/query", &[("query", "luminate_canary{series=\"time\"}[5m]")]);
    let third = samples["result"][0]["values"][2][0].to_string();
    let path = format!("/api/v1/admin/tsdb/delete_series?match[]=luminate_canary&start={third}&end={third}");
    assert_eq!(server.try_post(&path).unwrap().0, 204);
    first.until(MISSING, |missing| missing >= 3.0);
    let rounds = first.rounds(3.0);
    assert_eq!(first.metric(MISSING), Some(3.0), "each is counted once");
    // Series may go one after the other.
    let bad = first.metric(&failed("query")).unwrap();
    assert!((1.0..=3.0).contains(&bad), "{bad} of {rounds}");
    assert_eq!(first.stop(), 0);

    let second = Canary::start(&server.url(""));
    second.until(MISSING, |missing| missing >= 3.0);
    assert_eq!((second.metric(MISSING), second.metric(WRONG)), (Some(3.0), Some(0.0)));
}

#[test]
fn what_somebody_changed_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let canary = Canary::start(&server.url(""));
    canary.rounds(3.0);
    let samples = server.api("/api/v1/query", &[("query", "luminate_canary{series=\"sine\"}[5m]")]);
    let at: f64 = samples["result"][0]["values"][1][0].to_string().parse().unwrap();
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let labels =
        vec![label("__name__", "luminate_canary"), label("canary", "canary"), label("series", "sine")];
    let body = crate::server::remote_write(&[(labels, vec![((at * 1000.0).round() as i64, 7.0)])]);
    assert_eq!(server.try_write(&body, None).unwrap().0, 204);
    canary.until(WRONG, |wrong| wrong >= 1.0);
    canary.rounds(2.0);
    assert_eq!((canary.metric(WRONG), canary.metric(MISSING)), (Some(1.0), Some(0.0)));
}

#[test]
fn a_server_that_goes_and_comes_back_fails_rounds_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options::default());
    let (port, url) = (server.port, server.url(""));
    let canary = Canary::start(&url);
    canary.rounds(3.0);
    server.kill();
    drop(server);
    canary.until(&failed("write"), |failed| failed >= 2.0);
    let _server = Server::start(dir.path(), &Options::default().port(port));
    let before = canary.metric("luminate_canary_last_success_timestamp_seconds").unwrap();
    canary.until("luminate_canary_last_success_timestamp_seconds", |at| at > before);
    assert_eq!((canary.metric(WRONG), canary.metric(MISSING)), (Some(0.0), Some(0.0)));
    assert_eq!(canary.stop(), 0);
}

#[test]
fn a_canary_that_cannot_sing_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let ended = run(&["admin", "canary", "--listen", &at], &[]);
    assert!(ended.code == 1 && ended.err.contains("cannot listen on"), "{ended:?}");
    for wrong in [
        ["--interval", "10ms"],
        ["--interval", "2h"],
        ["--horizon", "50d"],
        ["--timeout", "0"],
        ["--name", ""],
        ["--listen", "here"],
        ["--server", "ftp://x"],
        ["--token.file", "/nowhere"],
    ] {
        let ended = run(&[&["admin", "canary"], &wrong[..]].concat(), &[]);
        assert_eq!(ended.code, 2, "{wrong:?}: {ended:?}");
    }
}
