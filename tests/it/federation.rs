//! Debian's Prometheus federates Luminate: it scrapes `/federate` and keeps the same samples.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    prometheus::{Prometheus, wait_for},
    server::{Server, api, api_as, have, now_ms, remote_write},
    token,
};

/// Series with all that text can say, as of half a minute ago, and one that is gone.
fn write(server: &Server, token: &str) -> i64 {
    let at = now_ms() - 30_000;
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let series = |name: &str, labels: &[(&str, &str)], samples: Vec<(i64, f64)>| {
        let name = [("__name__", name)];
        let pairs = name.iter().chain(labels).map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        (pairs.collect::<Vec<_>>(), samples)
    };
    let all = [
        series("fed_total", &[("instance", "a:1"), ("job", "x")], vec![(at - 15_000, 1.0), (at, 2.0)]),
        series("fed_total", &[("instance", "b:1"), ("job", "x")], vec![(at + 1, 1e300)]),
        series("fed_plain", &[], vec![(at + 2, -0.25)]),
        series("fed_text", &[("t", "a \"b\" \\ c\n{}"), ("ü", "ö")], vec![(at + 3, f64::INFINITY)]),
        series("fed:rule", &[("le", "+Inf")], vec![(at + 4, f64::NAN)]),
        series("fed_gone", &[], vec![(at, 1.0), (at + 5, stale)]),
        series("other", &[], vec![(at, 1.0)]),
    ];
    let body = remote_write(&all);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = agent.post(server.url("/api/v1/write")).header("Authorization", format!("Bearer {token}"));
    assert_eq!(request.send(&body[..]).unwrap().status(), 204);
    at
}

/// Labels without those that scraping adds, times and values of what a selection holds.
fn samples(answer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for series in answer["result"].as_array().unwrap() {
        for pair in series["values"].as_array().unwrap() {
            lines.push(format!("{} {} {}", series["metric"], pair[0], pair[1]));
        }
    }
    lines.sort();
    lines
}

#[test]
fn prometheus_scrapes_the_newest_samples() {
    if !have("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = token::start(&dir.path().join("data"));
    let token = token::token("a", "read write");
    write(&server, &token);
    let port = server.port;
    let prometheus = Prometheus::with_config(dir.path(), 0, |_| {
        format!(
            "scrape_configs:\n- job_name: federate\n  honor_labels: true\n  metrics_path: /federate\n  \
             params: {{'match[]': ['{{__name__=~\"fed.*\"}}']}}\n  scrape_interval: 1s\n  \
             authorization: {{credentials: '{token}'}}\n  \
             static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
        )
    });
    let selection = r#"{__name__=~"fed.*"}[2m]"#;
    let ask = |time: &str| {
        let theirs = api(&prometheus.base, "/api/v1/query", &[("query", selection), ("time", time)]);
        let ours =
            api_as(Some(&token), &server.url(""), "/api/v1/query", &[("query", selection), ("time", time)]);
        (samples(&theirs), samples(&ours))
    };
    let now = (now_ms() / 1000 + 1).to_string();
    wait_for("the newest samples to be scraped", || ask(&now).0.len() >= 5);
    let health = api(&prometheus.base, "/api/v1/targets", &[]);
    assert_eq!(health["activeTargets"][0]["lastError"], "", "{health}");
    let (theirs, ours) = ask(&now);
    // What is gone and what is not the newest stays here; 2.42 knows no other names than plain ones, so that the
    // label that is not comes as `_`, and a job is what honor_labels does not add but to those that have none.
    let kept: Vec<String> = ours
        .into_iter()
        .filter(|line| !line.contains("fed_gone") && !line.contains("\"1\"") || line.contains("fed_plain"))
        .map(|line| line.replace("\"ü\"", "\"_\""))
        .collect();
    let theirs: Vec<String> = theirs.iter().map(|line| without_job(line)).collect();
    let kept: Vec<String> = kept.iter().map(|line| without_job(line)).collect();
    assert_eq!(theirs, kept);
}

fn without_job(line: &str) -> String {
    // Keys are in the order of their bytes, whichever of them there are.
    let (metric, rest) = line.split_at(line.rfind('}').unwrap() + 1);
    let mut metric: Value = serde_json::from_str(metric).unwrap();
    metric.as_object_mut().unwrap().retain(|name, value| !(name == "job" && value == "federate"));
    format!("{metric}{rest}")
}

#[test]
fn promtool_reads_what_is_exposed() {
    if !have("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = token::start(&dir.path().join("data"));
    let token = token::token("a", "read write");
    write(&server, &token);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent
        .get(server.url("/federate?match[]=%7B__name__!=%22%22%7D"))
        .header("Authorization", format!("Bearer {token}"))
        .call()
        .unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 6, "{text}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.stderr.as_slice().read_to_string(&mut said).unwrap();
    // It parses; what is left to complain about is that there is no help, and how others have named their metrics.
    assert!(!said.contains("error while linting"), "{said}\n{text}");
    assert!(said.lines().all(|line| line.contains("fed") || line.contains("other")), "{said}\n{text}");
    let other = |tenant: &str| {
        let other = token::token(tenant, "read");
        let request = agent.get(server.url("/federate?match[]=%7B__name__!=%22%22%7D"));
        request
            .header("Authorization", format!("Bearer {other}"))
            .call()
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap()
    };
    assert_eq!(other("b"), "");
    assert_eq!(agent.get(server.url("/federate?match[]=up")).call().unwrap().status(), 401);
}
