//! Debian's Prometheus federates Luminate: it scrapes `/federate` and keeps the same samples.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
};

use luminate::{
    gateway::wire::remote_read::{Label, TimeSeries},
    ingest::HistogramMessage,
    model::{
        Histogram,
        histogram::{Counts, ResetHint, Span},
    },
};
use prost::Message as _;
use serde_json::Value;

use crate::{
    patience::wait_for,
    prometheus::Prometheus,
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

/// `prometheus.WriteRequest`, whose series are those of remote read.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

/// How a Prometheus federates what is on a port.
fn config(port: u16, token: &str) -> String {
    format!(
        "scrape_configs:\n- job_name: federate\n  honor_labels: true\n  metrics_path: /federate\n  \
         params: {{'match[]': ['{{__name__=~\"fed.*\"}}']}}\n  scrape_interval: 1s\n  \
         authorization: {{credentials: '{token}'}}\n  \
         static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
    )
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
    let prometheus = Prometheus::with_config(dir.path(), 0, |_| config(port, &token));
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
    assert_eq!(sorted(theirs), sorted(kept));
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn without_job(line: &str) -> String {
    // Keys are in the order of their bytes, whichever of them there are.
    let (metric, rest) = line.split_at(line.rfind('}').unwrap() + 1);
    let mut metric: Value = serde_json::from_str(metric).unwrap();
    metric.as_object_mut().unwrap().retain(|name, value| !(name == "job" && value == "federate"));
    format!("{metric}{rest}")
}

#[test]
fn prometheus_scrapes_native_histograms() {
    if !have("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = token::start(&dir.path().join("data"));
    let token = token::token("a", "read write");
    let at = write(&server, &token);
    let histogram = |count: u64, float: bool| Histogram {
        schema: 0,
        zero_threshold: 0.001,
        sum: 7.5,
        reset_hint: ResetHint::Unknown,
        positive_spans: vec![Span { offset: -1, length: 2 }],
        negative_spans: vec![Span { offset: 2, length: 1 }],
        counts: if float {
            let count = count as f64;
            Counts::Float { count, zero_count: 0.5, positive: vec![count - 1.5, 0.5], negative: vec![0.5] }
        } else {
            Counts::Integer {
                count,
                zero_count: 1,
                positive: vec![1, 1],
                negative: vec![count.cast_signed() - 4],
            }
        },
        custom_values: vec![],
    };
    let series = |name: &str, histogram: &Histogram| TimeSeries {
        labels: vec![Label { name: "__name__".to_owned(), value: name.to_owned() }],
        samples: vec![],
        histograms: vec![HistogramMessage::new(histogram, at, 0)],
    };
    let timeseries =
        vec![series("fed_whole", &histogram(9, false)), series("fed_float", &histogram(5, true))];
    let plain = WriteRequest { timeseries }.encode_to_vec();
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = agent.post(server.url("/api/v1/write")).header("Authorization", format!("Bearer {token}"));
    let body = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    assert_eq!(request.send(&body[..]).unwrap().status(), 204);
    let port = server.port;
    let prometheus =
        Prometheus::with_arguments(dir.path(), 0, &["--enable-feature=native-histograms"], |_| {
            config(port, &token)
        });
    let time = (now_ms() / 1000 + 1).to_string();
    let ask = |base: &str, token: Option<&str>, query: &str| {
        let answer = api_as(token, base, "/api/v1/query", &[("query", query), ("time", &time)]);
        let series = answer["result"].as_array().unwrap();
        let mut lines: Vec<String> = series.iter().map(|series| series["value"][1].to_string()).collect();
        lines.sort();
        lines
    };
    let all = r#"count({__name__=~"fed.*"})"#;
    wait_for("histograms and floats to be scraped", || ask(&prometheus.base, None, all) == ["\"7\""]);
    for query in [
        "histogram_count(fed_whole)",
        "histogram_count(fed_float)",
        "histogram_sum(fed_whole)",
        "fed_total",
        "fed_text",
    ] {
        let ours = ask(&server.url(""), Some(&token), query);
        assert_eq!(ask(&prometheus.base, None, query), ours, "{query}");
        assert!(!ours.is_empty(), "{query}");
    }
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
