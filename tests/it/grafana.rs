//! What Grafana asks (`tests/api/grafana_requests.txt`), asked of Luminate and of Debian's Prometheus.
//!
//! Prometheus scrapes a target of the test's own and writes all of it to Luminate, exemplars and metadata too. The
//! times asked for lie where every sample has arrived, and off each window's edge, where 2.42's closed windows and our
//! left-open ones agree.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use serde_json::Value;

use crate::{
    patience::wait_for,
    prometheus::{Prometheus, phases},
    server::{Options, Server, agent, api, have, now_ms},
};

/// The list.
const REQUESTS: &str = include_str!("../api/grafana_requests.txt");

/// How far apart two numbers may be that were added up in another order.
const RELATIVE: f64 = 1e-12;

/// As many panels of a page ask at a time.
const PANELS: usize = 24;

/// A line of the list.
#[derive(Clone, Debug)]
pub struct Request {
    pub name: &'static str,
    pub method: &'static str,
    pub path: &'static str,
    pub params: &'static str,
    pub verdict: Verdict,
}

/// How our answer compares with that of Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    Shape,
    Statuses { ours: u16, theirs: u16 },
}

/// The list, read.
pub fn requests() -> Vec<Request> {
    let lines = REQUESTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| read(line).unwrap_or_else(|| panic!("no request: {line}"))).collect()
}

fn read(line: &'static str) -> Option<Request> {
    let (line, reason) = line.split_once(" # ").unwrap_or((line, ""));
    let mut columns = line.split_whitespace();
    let (name, method, path) = (columns.next()?, columns.next()?, columns.next()?);
    let params = columns.next().map(|params| if params == "-" { "" } else { params })?;
    let verdict = match columns.next()? {
        "same" => Verdict::Same,
        "shape" => Verdict::Shape,
        statuses => {
            let (ours, theirs) = statuses.split_once('/')?;
            Verdict::Statuses { ours: ours.parse().ok()?, theirs: theirs.parse().ok()? }
        }
    };
    assert!(verdict == Verdict::Same || !reason.is_empty(), "no reason for a difference: {line}");
    columns.next().is_none().then_some(Request { name, method, path, params, verdict })
}

/// What the braces in parameters stand for.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The end of what is asked for, in milliseconds.
    pub end: i64,
    /// How long before that it starts.
    pub length: i64,
}

impl Times {
    pub fn fill(self, params: &str) -> String {
        let start = self.end - self.length;
        let whole = |millis: i64| (millis / 1000).to_string();
        let seconds = |millis: i64| format!("{}.{:03}", millis / 1000, millis % 1000);
        params
            .replace("{start_ms}", &start.to_string())
            .replace("{end_ms}", &self.end.to_string())
            .replace("{start}", &seconds(start))
            .replace("{end}", &seconds(self.end))
            .replace("{time}", &seconds(self.end))
            .replace("{from}", &whole(self.end - 3_600_000))
            .replace("{to}", &whole(self.end + 60_000))
    }
}

/// An answer, as a client sees it.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    content_type: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

fn ask(base: &str, method: &str, path: &str, params: &str) -> Answer {
    // What Grafana sends with every request.
    let headers = [
        ("User-Agent", "Grafana/13.2.3"),
        ("X-Grafana-Org-Id", "1"),
        ("X-Dashboard-Uid", "dashboard"),
        ("X-Panel-Id", "1"),
    ];
    let answer = if method == "POST" {
        let mut request = agent().post(format!("{base}{path}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.header("Content-Type", "application/x-www-form-urlencoded").send(params)
    } else {
        let mark = if params.is_empty() { "" } else { "?" };
        let mut request = agent().get(format!("{base}{path}{mark}{params}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.call()
    };
    let mut answer = answer.unwrap_or_else(|error| panic!("{method} {base}{path}?{params}: {error}"));
    let content_type = answer.headers().get("Content-Type").map(|v| v.to_str().unwrap().to_owned());
    Answer {
        status: answer.status().as_u16(),
        content_type: content_type.unwrap_or_default(),
        body: answer.body_mut().read_to_string().unwrap(),
    }
}

/// Where two answers differ, if they do.
fn difference(verdict: Verdict, ours: &Answer, theirs: &Answer) -> Option<String> {
    let wanted = match verdict {
        Verdict::Statuses { ours, theirs } => (ours, theirs),
        Verdict::Same | Verdict::Shape => (theirs.status, theirs.status),
    };
    if (ours.status, theirs.status) != wanted {
        return Some(format!("status {}, not {}", ours.status, wanted.0));
    }
    if matches!(verdict, Verdict::Statuses { .. }) {
        let wanted = if ours.body.contains("has_more") { "application/x-ndjson" } else { "application/json" };
        let is_json = ours.content_type.starts_with(wanted);
        return (!is_json).then(|| format!("content type {}", ours.content_type));
    }
    if ours.content_type != theirs.content_type {
        return Some(format!("content type {}, not {}", ours.content_type, theirs.content_type));
    }
    let (ours, theirs) = (ours.json(), theirs.json());
    let agree = match verdict {
        Verdict::Same => same(&sorted(&ours), &sorted(&theirs)),
        Verdict::Shape => covers(&ours, &theirs),
        Verdict::Statuses { .. } => true,
    };
    (!agree).then(|| "another body".to_owned())
}

/// The same with lists of objects in the order of their texts.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(sorted).collect();
            if items.iter().all(Value::is_object) {
                items.sort_by_cached_key(|item| {
                    // What is compared with some tolerance is no good to sort by.
                    item.get("metric").or_else(|| item.get("seriesLabels")).unwrap_or(item).to_string()
                });
            }
            Value::Array(items)
        }
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), sorted(member))).collect()
        }
        other => other.clone(),
    }
}

/// Whether two values are the same, samples to a relative [`RELATIVE`].
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) => match (&a[..], &b[..]) {
            ([Value::Number(t), Value::String(v)], [Value::Number(u), Value::String(w)]) => {
                t.as_f64() == u.as_f64() && (v == w || is_close(v, w))
            }
            _ => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        },
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn is_close(v: &str, w: &str) -> bool {
    match (v.parse::<f64>(), w.parse::<f64>()) {
        (Ok(v), Ok(w)) => (v - w).abs() <= RELATIVE * v.abs().max(w.abs()),
        _ => false,
    }
}

/// Whether ours has whatever theirs has, of the same types.
fn covers(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) => b.iter().all(|b| a.iter().any(|a| covers(a, b))),
        (Value::Object(a), Value::Object(b)) => {
            b.iter().all(|(name, b)| a.get(name).is_some_and(|a| covers(a, b)))
        }
        (Value::Null, Value::Null) | (Value::Bool(_), Value::Bool(_)) => true,
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => true,
        _ => false,
    }
}

/// What Prometheus scrapes.
struct Target {
    port: u16,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Target {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            for (scrape, stream) in (0_u32..).zip(listener.incoming()) {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                // A scrape that fails is one less.
                let _ = stream.and_then(|stream| expose(stream, scrape));
            }
        });
        Self { port, stopped, thread: Some(thread) }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // So that it looks.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn expose(mut stream: TcpStream, scrape: u32) -> std::io::Result<()> {
    let mut head: Vec<u8> = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            length => head.extend(&part[..length]),
        }
    }
    let body = exposition(scrape);
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Counters that begin far from zero, what JSON writes in a way of its own, and exemplars.
fn exposition(scrape: u32) -> String {
    let n = f64::from(scrape);
    format!(
        "# HELP go_goroutines Number of goroutines that currently exist.\n\
         # TYPE go_goroutines gauge\n\
         go_goroutines {goroutines}\n\
         # HELP node_cpu_seconds Seconds the CPUs spent in each mode.\n\
         # TYPE node_cpu_seconds counter\n\
         # UNIT node_cpu_seconds seconds\n\
         node_cpu_seconds_total{{cpu=\"0\",mode=\"idle\"}} {}\n\
         node_cpu_seconds_total{{cpu=\"0\",mode=\"user\"}} {}\n\
         node_cpu_seconds_total{{cpu=\"1\",mode=\"idle\"}} {}\n\
         # HELP node_filesystem_avail_bytes \"Space\" of <all> kinds & more.\n\
         # TYPE node_filesystem_avail_bytes gauge\n\
         node_filesystem_avail_bytes{{mountpoint=\"/\"}} 1.5e21\n\
         node_filesystem_avail_bytes{{mountpoint=\"/a \\\"b\\\" \\\\ <é>\"}} NaN\n\
         node_filesystem_avail_bytes{{mountpoint=\"/most\"}} +Inf\n\
         node_filesystem_avail_bytes{{mountpoint=\"/least\"}} 2.5e-07\n\
         node_filesystem_avail_bytes{{mountpoint=\"/none\"}} -0\n\
         # HELP http_request_duration_seconds How long requests took.\n\
         # TYPE http_request_duration_seconds histogram\n\
         http_request_duration_seconds_bucket{{le=\"0.1\"}} {} # {{trace_id=\"fast{scrape}\"}} 0.05\n\
         http_request_duration_seconds_bucket{{le=\"0.5\"}} {} # {{trace_id=\"slow{scrape}\",span_id=\"s\"}} 0.3\n\
         http_request_duration_seconds_bucket{{le=\"+Inf\"}} {}\n\
         http_request_duration_seconds_count {}\n\
         http_request_duration_seconds_sum {}\n\
         # HELP prometheus_build What is built.\n\
         # TYPE prometheus_build info\n\
         prometheus_build_info{{version=\"2.42.0\"}} 1\n\
         # EOF\n",
        1000.0 + n,
        500.0 + n / 4.0,
        1200.0 + n * 1.1,
        300.0 + n,
        400.0 + 2.0 * n,
        500.0 + 3.0 * n,
        500.0 + 3.0 * n,
        1e4 + n * 0.7,
        goroutines = 3 + scrape % 5,
    )
}

/// A millisecond of half a second that is as far as can be from those that samples fall on.
fn off(seen: &[i64]) -> i64 {
    let distance = |a: i64, b: i64| {
        let d = (a - b).rem_euclid(500);
        d.min(500 - d)
    };
    (0..500).max_by_key(|p| seen.iter().map(|s| distance(*s, *p)).min()).unwrap()
}

#[test]
fn grafana_is_answered_as_prometheus_answers_it() {
    if !have("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let luminate = Server::start(&dir.path().join("data"), &Options::default());
    let target = Target::start();
    let prometheus = Prometheus::with_config(dir.path(), 0, |_| {
        let (target, write) = (target.port, luminate.url("/api/v1/write"));
        format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs:\n\
             - job_name: node\n  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n\
             - job_name: prometheus\n  static_configs: [{{targets: ['localhost:{target}']}}]\n\
             remote_write:\n- url: {write}\n  send_exemplars: true\n  metadata_config: {{send_interval: 1s}}\n  \
               queue_config: {{max_shards: 1, batch_send_deadline: 100ms}}\n"
        )
    });
    let (ours, theirs) = (luminate.url(""), prometheus.base.clone());
    let instant = |query: &str| api(&ours, "/api/v1/query", &[("query", query)])["result"].clone();
    wait_for("scrapes of both targets", || {
        instant("count(count_over_time(up[5m]) > 14) == 2")[0].is_object()
    });
    wait_for("metadata", || {
        let [a, b] = [&ours, &theirs].map(|base| api(base, "/api/v1/metadata", &[]));
        b["go_goroutines"].is_array() && a == b
    });
    let second = now_ms() / 1000 * 1000;
    let times = Times { end: second + off(&phases(&theirs)), length: 8_000 };
    wait_for("a later scrape of both targets", || {
        instant(&format!("count(timestamp(up) > {}) == 2", times.end / 1000 + 1))[0].is_object()
    });

    let mut differences = Vec::new();
    let mut asked = 0;
    for request in requests() {
        let params = times.fill(request.params);
        let methods: &[&str] = if request.method == "POST" { &["POST", "GET"] } else { &["GET"] };
        for method in methods {
            asked += 1;
            let [our, their] = [&ours, &theirs].map(|base| ask(base, method, request.path, &params));
            if let Some(found) = difference(request.verdict, &our, &their) {
                differences.push(format!(
                    "{} {method} {}?{params}: {found}\n  ours   {:.500}\n  theirs {:.500}",
                    request.name, request.path, our.body, their.body
                ));
            }
            if our.status == 404 {
                assert!(our.body.contains("page not found"), "{}: {}", request.name, our.body);
            }
        }
    }
    assert!(differences.is_empty(), "{} of {asked}:\n{}", differences.len(), differences.join("\n"));
    let built = api(&ours, "/api/v1/status/buildinfo", &[]);
    assert!(built.get("features").is_none(), "with features Grafana takes us for a Mimir: {built}");

    // A page full of panels.
    let panels: Vec<Request> = requests().into_iter().filter(|r| r.path == "/api/v1/query_range").collect();
    let panels: Vec<&Request> = panels.iter().cycle().take(PANELS).collect();
    std::thread::scope(|scope| {
        for request in panels {
            let (ours, theirs) = (&ours, &theirs);
            scope.spawn(move || {
                let params = times.fill(request.params);
                let [our, their] = [ours, theirs].map(|base| ask(base, "POST", request.path, &params));
                let found = difference(request.verdict, &our, &their);
                assert!(found.is_none(), "{}: {found:?} {} {}", request.name, our.body, their.body);
            });
        }
    });
    eprintln!("{asked} requests, and {PANELS} at once: the same answers");
}

#[test]
fn the_list_names_each_request_once() {
    let all = requests();
    let names: BTreeSet<&str> = all.iter().map(|request| request.name).collect();
    assert_eq!(names.len(), all.len());
    for group in ["G1", "G2", "G3a", "G4a", "G5", "F1", "F13", "A1", "D2"] {
        assert!(names.contains(group), "{group}");
    }
}
