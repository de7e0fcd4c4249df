//! Debian's Prometheus scrapes Luminate and itself and writes everything to Luminate; then both are asked
//! the same questions.
//!
//! Prometheus 2.42 has closed ranges and 3.x, like Luminate, left-open ones. The grids below keep
//! every sample at least a millisecond off each window's edge, where the two agree. What differs
//! for other reasons:
//!
//! * 2.42 looks at the distance to zero before it looks at the average distance, so `rate` and
//!   `increase` differ in windows in which a counter begins. All windows here begin after the series.
//! * 2.42 keeps the metric name over `atan2`; the question here sums it away.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    patience::wait_for,
    server::{Options, Server, api, free_port, have, now_ms, text},
};

/// How long Prometheus writes before the questions are asked.
const WRITING: Duration = Duration::from_secs(75);

/// Newer samples than this may still be on their way.
const SETTLED_MS: i64 = 15_000;

/// A running Prometheus; killed when dropped.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    pub base: String,
}

impl Prometheus {
    fn start(dir: &Path, luminate: &Server, attempt: u32) -> Self {
        let (target, write) = (luminate.port, luminate.url("/api/v1/write"));
        Self::with_config(dir, attempt, |own| {
            format!(
                "global:\n  scrape_interval: 2s\n  external_labels: {{attempt: 'a{attempt}'}}\n\
                 scrape_configs:\n\
                 - job_name: luminate\n  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n\
                 - job_name: prometheus\n  static_configs: [{{targets: ['127.0.0.1:{own}']}}]\n\
                 remote_write:\n- url: {write}\n  send_exemplars: true\n  metadata_config: {{send_interval: 5s}}\n"
            )
        })
    }

    /// Starts one with the configuration for the port it listens on, and files that begin with nothing.
    pub fn with_config(dir: &Path, attempt: u32, yaml: impl FnOnce(u16) -> String) -> Self {
        Self::with_arguments(dir, attempt, &[], yaml)
    }

    /// The same with more on its command line.
    pub fn with_arguments(
        dir: &Path,
        attempt: u32,
        arguments: &[&str],
        yaml: impl FnOnce(u16) -> String,
    ) -> Self {
        let port = free_port();
        let config = dir.join(format!("prometheus-{attempt}.yml"));
        fs::write(&config, yaml(port)).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join(format!("tsdb-{attempt}")).display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--log.level=error", "--enable-feature=exemplar-storage"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let prometheus = Self { child, base: format!("http://127.0.0.1:{port}") };
        wait_for("Prometheus to be ready", || text(&prometheus.base, "/-/ready").is_some());
        prometheus
    }

    /// A counter of Prometheus about its remote write, summed over its queues.
    pub fn counter(&self, name: &str) -> f64 {
        let metrics = text(&self.base, "/metrics").unwrap();
        let lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The milliseconds of a second that samples of any target fall on.
pub fn phases(base: &str) -> Vec<i64> {
    let data = api(base, "/api/v1/query", &[("query", "up[1m]")]);
    let series = data["result"].as_array().unwrap();
    let mut phases: Vec<i64> = series
        .iter()
        .flat_map(|s| s["values"].as_array().unwrap())
        .map(|pair| ((pair[0].as_f64().unwrap() * 1000.0).round() as i64).rem_euclid(1000))
        .collect();
    phases.sort_unstable();
    phases.dedup();
    phases
}

fn distance(a: i64, b: i64) -> i64 {
    let d = (a - b).rem_euclid(1000);
    d.min(1000 - d)
}

#[test]
fn prometheus_writes_unchanged_and_both_answer_the_same() {
    if !have("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let luminate = Server::start(&dir.path().join("data"), &Options::default());
    // Subqueries run on whole seconds, so the scrapes must not. Where in a second Prometheus scrapes depends on
    // a hash that the external labels go into; try some.
    let mut attempt = 0;
    let prometheus = loop {
        let prometheus = Prometheus::start(dir.path(), &luminate, attempt);
        let mut seen = Vec::new();
        wait_for("both targets to be scraped", || {
            seen = phases(&prometheus.base);
            !seen.is_empty()
                && api(&prometheus.base, "/api/v1/query", &[("query", "count(up) == 2")])["result"][0]
                    .is_object()
        });
        if seen.iter().all(|phase| distance(*phase, 0) > 20) {
            break prometheus;
        }
        attempt += 1;
        assert!(attempt < 20, "no scrape phase off the second in 20 attempts");
    };
    std::thread::sleep(WRITING);

    for name in ["failed", "dropped", "retried"] {
        assert_eq!(
            prometheus.counter(&format!("prometheus_remote_storage_samples_{name}_total")),
            0.0,
            "{name}"
        );
        assert_eq!(
            prometheus.counter(&format!("prometheus_remote_storage_metadata_{name}_total")),
            0.0,
            "{name}"
        );
    }
    let sent = prometheus.counter("prometheus_remote_storage_samples_total");
    assert!(sent > 10_000.0, "only {sent} samples were sent");

    let seen = phases(&prometheus.base);
    let phase = (0..1000).max_by_key(|p| seen.iter().map(|s| distance(*s, *p)).min()).unwrap();
    assert!(
        seen.iter().all(|s| distance(*s, phase) >= 2 && distance(*s, 0) >= 2),
        "samples at {seen:?}, grid at {phase}"
    );
    let whole = (now_ms() - SETTLED_MS) / 1000 * 1000;
    let end = whole + phase - 1000;
    let start = end - 20_000;

    let mut differences = Vec::new();
    let mut asked = 0;
    for expression in EXPRESSIONS {
        let external = format!("attempt=\"a{attempt}\"");
        for range in [false, true] {
            asked += 1;
            let compare = || -> Result<usize, String> {
                let theirs = ask(&prometheus.base, expression, start, end, range);
                let ours = ask(
                    &luminate.url(""),
                    &expression.replace("job=", &format!("{external},job=")),
                    start,
                    end,
                    range,
                );
                same(&theirs, &strip(ours))
            };
            match compare() {
                Ok(0) => differences.push(format!("{expression}: both answer nothing")),
                Ok(_) => {}
                Err(difference) => differences.push(format!("{expression} (range: {range}): {difference}")),
            }
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    eprintln!("{sent} samples written, 0 failed, 0 dropped, 0 retried; {asked} questions, the same answers");

    let metadata =
        api(&luminate.url(""), "/api/v1/metadata", &[("metric", "prometheus_http_requests_total")]);
    assert_eq!(metadata["prometheus_http_requests_total"][0]["type"], "counter", "{metadata}");
}

fn seconds(millis: i64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

fn ask(base: &str, expression: &str, start: i64, end: i64, range: bool) -> Value {
    if range {
        let (start, end) = (seconds(start), seconds(end));
        api(
            base,
            "/api/v1/query_range",
            &[("query", expression), ("start", &start), ("end", &end), ("step", "1")],
        )
    } else {
        api(base, "/api/v1/query", &[("query", expression), ("time", &seconds(end))])
    }
}

/// Without the label that only the written series have.
fn strip(mut answer: Value) -> Value {
    if let Some(all) = answer["result"].as_array_mut() {
        for series in all {
            if let Some(metric) = series.get_mut("metric").and_then(Value::as_object_mut) {
                metric.remove("attempt");
            }
        }
    }
    answer
}

/// How many samples the two answers share, or where they first differ.
fn same(theirs: &Value, ours: &Value) -> Result<usize, String> {
    if theirs["resultType"] != ours["resultType"] {
        return Err(format!("{} is not {}", ours["resultType"], theirs["resultType"]));
    }
    if theirs["resultType"] == "scalar" {
        return close(&theirs["result"], &ours["result"]).map(|()| 1);
    }
    let series = |answer: &Value| -> BTreeMap<String, Value> {
        let all = answer["result"].as_array().unwrap().iter();
        all.map(|s| (s["metric"].to_string(), s.clone())).collect()
    };
    let (theirs, ours) = (series(theirs), series(ours));
    if !theirs.keys().eq(ours.keys()) {
        let missing: Vec<_> = theirs.keys().filter(|k| !ours.contains_key(*k)).take(3).collect();
        let extra: Vec<_> = ours.keys().filter(|k| !theirs.contains_key(*k)).take(3).collect();
        return Err(format!(
            "{} series, not {}; missing {missing:?}, extra {extra:?}",
            ours.len(),
            theirs.len()
        ));
    }
    let mut shared = 0;
    for (labels, their) in &theirs {
        let our = &ours[labels];
        let points = |s: &Value| -> Vec<Value> {
            s["values"].as_array().cloned().unwrap_or_else(|| vec![s["value"].clone()])
        };
        let (their, our) = (points(their), points(our));
        if their.len() != our.len() {
            return Err(format!("{labels}: {} points, not {}", our.len(), their.len()));
        }
        for (their, our) in their.iter().zip(&our) {
            close(their, our).map_err(|e| format!("{labels}: {e}"))?;
            shared += 1;
        }
    }
    Ok(shared)
}

fn close(their: &Value, our: &Value) -> Result<(), String> {
    let value = |pair: &Value| pair[1].as_str().and_then(|text| text.parse::<f64>().ok());
    let (Some(a), Some(b)) = (value(their), value(our)) else {
        return Err(format!("{our} is not {their}"));
    };
    let equal = a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
    if their[0].as_f64() == our[0].as_f64() && equal { Ok(()) } else { Err(format!("{our} is not {their}")) }
}

/// Every selector names its job, in which the label of the written series is slipped.
const EXPRESSIONS: &[&str] = &[
    r#"up{job="prometheus"}"#,
    r#"up{job=~".+"}"#,
    r#"count(up{job=~".*"})"#,
    r#"{job="luminate",__name__=~"luminate_.*_total"}"#,
    r#"prometheus_http_requests_total{job="prometheus",handler!~"/metrics|/-/ready"} offset 5s"#,
    r#"process_resident_memory_bytes{job="prometheus"} / 1024"#,
    r#"process_resident_memory_bytes{job="prometheus"} - process_virtual_memory_bytes{job="prometheus"}"#,
    r#"go_goroutines{job="prometheus"} > bool 10"#,
    r#"go_goroutines{job="prometheus"} > 1"#,
    r#"-go_goroutines{job="prometheus"}"#,
    r#"2 ^ up{job="prometheus"} % 3"#,
    r#"sum(go_memstats_alloc_bytes{job="prometheus"})"#,
    r#"sum by (code) (prometheus_http_requests_total{job="prometheus"})"#,
    r#"sum without (handler) (prometheus_http_requests_total{job="prometheus"})"#,
    r#"avg by (job) (scrape_duration_seconds{job=~".+"})"#,
    r#"min by (job) (scrape_duration_seconds{job=~".+"})"#,
    r#"max(scrape_samples_scraped{job=~".+"})"#,
    r#"count by (job) ({job=~".+"})"#,
    r#"group by (job) (up{job=~".+"})"#,
    r#"stddev(scrape_duration_seconds{job=~".+"})"#,
    r#"stdvar(scrape_samples_scraped{job=~".+"})"#,
    r#"topk(1, scrape_samples_scraped{job=~".+"})"#,
    r#"bottomk(1, scrape_samples_scraped{job=~".+"})"#,
    r#"quantile(0.9, scrape_duration_seconds{job=~".+"})"#,
    r#"count_values("v", up{job=~".+"})"#,
    r#"rate(process_cpu_seconds_total{job="prometheus"}[20s])"#,
    r#"sum by (job) (rate(process_cpu_seconds_total{job=~".+"}[20s]))"#,
    r#"increase(prometheus_tsdb_head_samples_appended_total{job="prometheus"}[20s])"#,
    r#"irate(prometheus_tsdb_head_samples_appended_total{job="prometheus"}[20s])"#,
    r#"delta(go_memstats_alloc_bytes{job="prometheus"}[20s])"#,
    r#"idelta(go_memstats_alloc_bytes{job="prometheus"}[20s])"#,
    r#"deriv(process_resident_memory_bytes{job="prometheus"}[20s])"#,
    r#"predict_linear(go_memstats_alloc_bytes{job="prometheus"}[20s], 60)"#,
    r#"changes(go_memstats_alloc_bytes{job="prometheus"}[20s])"#,
    r#"resets(go_memstats_alloc_bytes{job="prometheus"}[20s])"#,
    r#"avg_over_time(go_goroutines{job="prometheus"}[20s])"#,
    r#"min_over_time(go_memstats_alloc_bytes{job="prometheus"}[20s])"#,
    r#"max_over_time(go_memstats_alloc_bytes{job="prometheus"}[20s])"#,
    r#"sum_over_time(scrape_duration_seconds{job="prometheus"}[20s])"#,
    r#"count_over_time(go_memstats_alloc_bytes{job="prometheus"}[20s])"#,
    r#"last_over_time(go_goroutines{job="prometheus"}[20s])"#,
    r#"present_over_time(up{job=~".+"}[20s])"#,
    r#"stddev_over_time(go_memstats_alloc_bytes{job="prometheus"}[20s])"#,
    r#"stdvar_over_time(scrape_duration_seconds{job="prometheus"}[20s])"#,
    r#"quantile_over_time(0.7, go_memstats_alloc_bytes{job="prometheus"}[20s])"#,
    r#"absent(nothing{job="prometheus"})"#,
    r#"absent_over_time(nothing{job="prometheus"}[20s])"#,
    r#"abs(-go_goroutines{job="prometheus"})"#,
    r#"ceil(process_cpu_seconds_total{job="prometheus"})"#,
    r#"floor(process_cpu_seconds_total{job="prometheus"})"#,
    r#"round(process_cpu_seconds_total{job="prometheus"}, 0.05)"#,
    r#"ln(go_goroutines{job="prometheus"})"#,
    r#"log2(go_goroutines{job="prometheus"})"#,
    r#"log10(go_goroutines{job="prometheus"})"#,
    r#"exp(up{job="prometheus"})"#,
    r#"sqrt(go_goroutines{job="prometheus"})"#,
    r#"sgn(go_goroutines{job="prometheus"})"#,
    r#"clamp(go_goroutines{job="prometheus"}, 1, 5)"#,
    r#"clamp_min(go_goroutines{job="prometheus"}, 1e6)"#,
    r#"clamp_max(go_goroutines{job="prometheus"}, 5)"#,
    r#"sin(go_goroutines{job="prometheus"}) + cos(go_goroutines{job="prometheus"})"#,
    r#"deg(atan(up{job="prometheus"}))"#,
    r#"sum(go_goroutines{job="prometheus"} atan2 up{job="prometheus"})"#,
    r#"timestamp(up{job="prometheus"})"#,
    r#"time() - process_start_time_seconds{job="prometheus"}"#,
    r#"hour(process_start_time_seconds{job="prometheus"})"#,
    r#"day_of_week(process_start_time_seconds{job="prometheus"}) + day_of_year(process_start_time_seconds{job="prometheus"})"#,
    r#"days_in_month() + month() + year() + minute() + vector(1)"#,
    r#"scalar(up{job="prometheus"}) + 1"#,
    r#"label_replace(up{job="prometheus"}, "host", "$1", "instance", "(.*):.*")"#,
    r#"label_join(up{job="prometheus"}, "both", "-", "job", "instance")"#,
    r#"sort_desc(scrape_samples_scraped{job=~".+"})"#,
    r#"histogram_quantile(0.9, rate(prometheus_http_request_duration_seconds_bucket{job="prometheus",handler="/metrics"}[20s]))"#,
    r#"histogram_quantile(0.5, sum by (le) (prometheus_http_request_duration_seconds_bucket{job="prometheus"}))"#,
    r#"rate(prometheus_http_request_duration_seconds_sum{job="prometheus",handler="/metrics"}[20s]) / rate(prometheus_http_request_duration_seconds_count{job="prometheus",handler="/metrics"}[20s])"#,
    r#"up{job="prometheus"} and on (job) go_goroutines{job="prometheus"}"#,
    r#"up{job="prometheus"} or up{job="luminate"}"#,
    r#"up{job=~".+"} unless up{job="luminate"}"#,
    r#"up{job="prometheus"} * on (instance) group_left (version) prometheus_build_info{job="prometheus"}"#,
    r#"prometheus_http_requests_total{job="prometheus"} / ignoring (handler, code) group_left sum without (handler, code) (prometheus_http_requests_total{job="prometheus"})"#,
    r#"max_over_time(rate(process_cpu_seconds_total{job="prometheus"}[10s])[17s:5s])"#,
    r#"avg_over_time(go_goroutines{job="prometheus"}[17s:2s])"#,
    r#"sum_over_time(up{job="prometheus"}[13s:3s] offset 4s)"#,
    r#"go_goroutines{job="prometheus"} @ end() + 0 * go_goroutines{job="prometheus"}"#,
    r#"1 + 2 * 3 ^ 2 - 4 % 3"#,
];
