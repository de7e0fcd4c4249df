//! Debian's `vmalert` evaluates rules over Luminate, writes what they give back to it, and finds its alerts there again
//! when it starts anew.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    patience::wait_for,
    server::{Options, Server, free_port, have, now_ms, remote_write, text},
};

const RULES: &str = "
groups:
- name: rules
  interval: 1s
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
    labels: {from: vmalert}
  - alert: Down
    expr: up == 0
    for: 1h
    labels: {severity: page}
  - alert: Up
    expr: up == 1
";

struct VmAlert {
    child: Child,
    base: String,
}

impl VmAlert {
    fn start(dir: &Path, server: &Server) -> Self {
        let rules = dir.join("rules.yml");
        std::fs::write(&rules, RULES).unwrap();
        let (port, nobody) = (free_port(), free_port());
        let of = |flag: &str| format!("-{flag}.url={}", server.url(""));
        let child = Command::new("vmalert")
            .arg(format!("-rule={}", rules.display()))
            .args([of("datasource"), of("remoteWrite"), of("remoteRead")])
            .arg("-remoteWrite.flushInterval=1s")
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            // There has to be one, and nobody is told.
            .arg(format!("-notifier.url=http://127.0.0.1:{nobody}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let alert = Self { child, base: format!("http://127.0.0.1:{port}") };
        wait_for("vmalert to be ready", || text(&alert.base, "/health").is_some());
        alert
    }

    /// The alert that is pending, if it has been seen yet.
    fn pending(&self) -> Option<Value> {
        let alerts: Value = serde_json::from_str(&text(&self.base, "/api/v1/alerts")?).ok()?;
        let alerts = alerts["data"]["alerts"].as_array()?.clone();
        alerts.into_iter().find(|alert| alert["name"] == "Down")
    }
}

impl Drop for VmAlert {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn rules_are_evaluated_and_written_back_and_alerts_found_again() {
    if !have("vmalert") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &Options::default());
    let up = |job: &str, value| {
        let labels = [("__name__", "up"), ("job", job)].map(|(n, v)| (n.to_owned(), v.to_owned()));
        (labels.to_vec(), vec![(now_ms() - 1_000, value)])
    };
    let (status, body) = server.try_write(&remote_write(&[up("a", 1.0), up("b", 0.0)]), None).unwrap();
    assert_eq!(status, 204, "{body}");

    let first = VmAlert::start(dir.path(), &server);
    let found = |query: &str| {
        let answer = server.api("/api/v1/query", &[("query", query)]);
        answer["result"].as_array().unwrap().clone()
    };
    wait_for("what rules give", || {
        found("job:up:sum").len() == 2 && !found("ALERTS_FOR_STATE").is_empty() && found("ALERTS").len() == 2
    });
    let recorded = found("sort(job:up:sum)");
    assert_eq!(
        recorded
            .iter()
            .map(|series| (series["metric"]["job"].clone(), series["value"][1].clone()))
            .collect::<Vec<_>>(),
        [("b".into(), "0".into()), ("a".into(), "1".into())]
    );
    assert_eq!(recorded[0]["metric"]["from"], "vmalert");
    let states = |state: &str| {
        let series = found(&format!("ALERTS{{alertstate={state:?}}}"));
        series.iter().map(|series| series["metric"]["alertname"].clone()).collect::<Vec<_>>()
    };
    wait_for("the alerts' states", || states("pending") == ["Down"] && states("firing") == ["Up"]);
    assert_eq!(found("ALERTS{alertname=\"Down\"}")[0]["metric"]["severity"], "page");

    let since = first.pending().unwrap()["activeAt"].as_str().unwrap().to_owned();
    drop(first);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let second = VmAlert::start(dir.path(), &server);
    let mut again = None;
    wait_for("the alert to be found again", || {
        again = second.pending();
        again
            .as_ref()
            .is_some_and(|alert| alert["activeAt"].as_str().is_some_and(|at| at[..19] == since[..19]))
    });
    eprintln!("pending since {since}, and so after the restart: {}", again.unwrap()["activeAt"]);
}
