//! Debian's `promtool query` says the same of Luminate as of Debian's Prometheus with the same data.

use std::process::Command;

use crate::{
    prometheus::Prometheus,
    server::{Options, Series, Server, have, remote_write},
};

/// When the data begin.
const START: i64 = 1_772_325_000_000;

fn data() -> Vec<Series> {
    let series = |name: &str, labels: &[(&str, &str)], value: fn(f64) -> f64| {
        let name = [("__name__", name)];
        let pairs = name.iter().chain(labels).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        // Off the seconds that are asked for.
        let samples = (0..120).map(|i| (START + 417 + i * 15_000, value(i as f64))).collect();
        (pairs, samples)
    };
    vec![
        series("requests_total", &[("code", "200"), ("job", "api")], |i| i * 7.0),
        series("requests_total", &[("code", "500"), ("job", "api")], |i| i / 3.0),
        series("requests_total", &[("code", "200"), ("job", "web")], |i| (i % 40.0) * 2.0),
        series("up", &[("job", "api")], |_| 1.0),
        series("up", &[("job", "web")], |i| f64::from(u8::from(i % 5.0 > 1.0))),
        series("temperature", &[("room", "a \"b\"")], |i| (i / 10.0).sin() * 1e-9),
        series("latency_bucket", &[("le", "0.1")], |i| i),
        series("latency_bucket", &[("le", "1")], |i| i * 2.0),
        series("latency_bucket", &[("le", "+Inf")], |i| i * 3.0),
    ]
}

/// What it prints, and how it ends.
fn promtool(base: &str, arguments: &[&str]) -> (String, String, Option<i32>) {
    let arguments = arguments.iter().map(|argument| if *argument == "SERVER" { base } else { argument });
    let output = Command::new("promtool").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
fn promtool_says_the_same_of_both() {
    if !have("promtool") || !have("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default().env("LUMINATE_STORAGE__RETENTION__DEFAULT", "0");
    let server = Server::start(&dir.path().join("data"), &options);
    let prometheus = Prometheus::with_arguments(
        dir.path(),
        0,
        &["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"],
        |_| "global: {}\n".to_owned(),
    );
    let body = remote_write(&data());
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    for base in [server.url(""), prometheus.base.clone()] {
        let written = agent.post(format!("{base}/api/v1/write")).send(&body[..]).unwrap();
        assert_eq!(written.status(), 204);
    }
    let seconds = |millis: i64| (millis / 1000).to_string();
    let (start, end) = (seconds(START + 300_000), seconds(START + 1_500_000));
    let at = format!("--time={end}");
    let (from, to) = (format!("--start={start}"), format!("--end={end}"));
    let instant = |expr| vec!["query", "instant", &at, "SERVER", expr];
    let range = |expr| vec!["query", "range", &from, &to, "--step=60s", "SERVER", expr];
    let asked = [
        instant("sort_desc(requests_total)"),
        instant("up"),
        instant("round(sum by (job) (rate(requests_total[5m])), 0.001)"),
        instant("round(histogram_quantile(0.9, rate(latency_bucket[5m])), 0.001)"),
        instant("requests_total{code=\"500\"}[2m]"),
        instant("1e30 / 7"),
        instant("\"a text\""),
        instant("nothing"),
        instant("temperature"),
        range("requests_total"),
        // The last digits differ: sums are compensated since 3.0.
        range("round(sum(rate(requests_total[5m])), 0.001)"),
        range("temperature * 2"),
        range("vector(time())"),
        vec!["query", "series", "--match=up", "--match={job=\"web\"}", &from, &to, "SERVER"],
        vec!["query", "series", "--match=nothing", &from, &to, "SERVER"],
        vec!["query", "labels", &from, &to, "SERVER", "job"],
        vec!["query", "labels", &from, &to, "--match=requests_total", "SERVER", "code"],
        vec!["query", "labels", &from, &to, "SERVER", "__name__"],
        vec!["--format=json", "query", "instant", &at, "SERVER", "sort(requests_total)"],
        vec!["--format=json", "query", "range", &from, &to, "--step=5m", "SERVER", "up"],
        vec!["--format=json", "query", "series", "--match=up", &from, &to, "SERVER"],
        // What is wrong is said in the same words.
        vec!["query", "range", &from, &to, "--step=0s", "SERVER", "up"],
    ];
    for arguments in &asked {
        let (ours, theirs) = (promtool(&server.url(""), arguments), promtool(&prometheus.base, arguments));
        assert_eq!(
            in_order(&ours, &server.url("")),
            in_order(&theirs, &prometheus.base),
            "promtool {arguments:?}"
        );
        assert!(
            !ours.0.is_empty() || arguments.iter().any(|a| a.contains("nothing")) || ours.2 != Some(0),
            "{arguments:?}"
        );
    }
    eprintln!("{} times the same", asked.len());
}

/// The lines of what promtool says; those of a vector come in the order of the store.
fn in_order(said: &(String, String, Option<i32>), base: &str) -> (Vec<String>, String, Option<i32>) {
    let mut lines: Vec<String> = said.0.lines().map(str::to_owned).collect();
    lines.sort();
    (lines, said.1.replace(base, "SERVER"), said.2)
}
