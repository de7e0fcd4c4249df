//! Queries of death: what one tenant's cost another, and how soon one that nobody waits for is gone.
//!
//! Two tables:
//!
//! * the time of a dashboard's query of one tenant, alone, and while another tenant asks one monster after the other, over
//!   one connection and over many; what becomes of those stands below. A busy virtual machine may be stopped by its host
//!   for tens of milliseconds: a real-time thread on each processor tells when, and what was asked then is left out;
//! * for heavy queries of every kind, how long it takes until place and memory are free again, after somebody ended it
//!   and after its caller left.
//!
//! Who asks for monsters has a machine of their own elsewhere: here their threads have the lowest priority, so that what is
//! measured is the server and not the reading of its large answers.
//!
//! Takes about six minutes. `LUMINATE_BENCH_SERIES`, `LUMINATE_BENCH_SECONDS` and `LUMINATE_BENCH_MONSTERS` change the
//! load.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    dead_code,
    unreachable_pub,
    reason = "a measuring program, which uses some of the others' parts"
)]

mod load;
mod process;

use std::{
    collections::BTreeMap,
    io::Write,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use process::{peak_rss_mb, percent, stop};
use serde_json::Value;

const SCRAPES: usize = 120;

/// How often it asks: hundreds of times in all, so that not three of them decide what one in a hundred takes.
const PACE: Duration = Duration::from_millis(75);

/// What the dashboard asks.
const DASHBOARD: &str = "sum by (code) (rate(http_requests_total[5m]))";

/// What nobody should ask: its kind, the PromQL, and its step in seconds.
const MONSTERS: &[(&str, &str, f64)] = &[
    ("select everything", r#"{__name__=~".+"}"#, 1.0),
    ("regex over everything", r#"count({__name__=~".*(e|o)+.*", instance=~".*[0-9]+.*[0-9]+.*:9100"})"#, 1.0),
    ("window function", "quantile_over_time(0.9, http_requests_total[30m])", 1.0),
    ("aggregation", r#"quantile by (job) (0.9, {__name__=~"http.*"})"#, 1.0),
    ("values as labels", r#"count_values("v", rate({__name__=~"http.*"}[5m]))"#, 1.0),
    ("subquery", "max_over_time(sum(rate(http_requests_total[5m]))[30m:1s])", 1.0),
    ("subquery of subqueries", "sum_over_time(sum_over_time(vector(time() % 7)[1h:1s])[1h:1s])", 1.0),
    ("matching", r#"{__name__=~"http.*"} * on(instance) group_left() node_load1"#, 1.0),
    (
        "labels rewritten",
        r#"sort(label_replace(label_replace({__name__=~"http.*"}, "a", "$1$1$1$1", "pod", "(.*)"), "b", "$1$1$1$1", "a", "(.*)"))"#,
        1.0,
    ),
    ("a large answer", "http_request_duration_seconds_bucket * 2", 5.0),
];

struct Server {
    child: Child,
    port: u16,
    agent: ureq::Agent,
    end: i64,
    _dir: tempfile::TempDir,
}

fn main() {
    // `cargo bench` and `cargo test --benches` pass flags that are not for us.
    let setting =
        |name: &str, default: usize| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let series = setting("LUMINATE_BENCH_SERIES", 20_000);
    let time = Duration::from_secs(setting("LUMINATE_BENCH_SECONDS", 60) as u64);
    let monsters = setting("LUMINATE_BENCH_MONSTERS", 16);
    let server = Server::start();
    eprintln!("writing {series} series × {SCRAPES} scrapes of one tenant, a tenth of that of another");
    let start = server.end - SCRAPES as i64 * load::SCRAPE_MS;
    for (tenant, series) in [("a", series), ("b", series / 10)] {
        for body in load::generate(series, SCRAPES, start).requests {
            server.write(tenant, &body);
        }
    }
    println!("{} cores, shared with whoever asks\n", std::thread::available_parallelism().unwrap());
    fairness(&server, time, &[1, monsters]);
    endings(&server);
    println!("\npeak RSS: {:.0} MB", peak_rss_mb(&server.child));
    server.stop();
}

/// When the host stopped a processor of this machine for longer than [`STOP`].
struct Stops(Vec<(Instant, Instant)>);

/// No thread of real time waits that long on a processor that runs.
const STOP: Duration = Duration::from_millis(5);

impl Stops {
    /// Those while something is done; none are seen by who may have no thread of real time.
    fn watched(work: impl FnOnce()) -> Self {
        let (over, stops) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for processor in 0..std::thread::available_parallelism().unwrap().get() {
                let (over, stops) = (&over, &stops);
                scope.spawn(move || {
                    let thread = std::fs::read_link("/proc/thread-self").unwrap();
                    let thread = thread.file_name().unwrap().to_str().unwrap().to_owned();
                    let set = |program: &str, how: &[&str]| {
                        let set = Command::new(program).args(how).arg(&thread).stdout(Stdio::null()).status();
                        set.is_ok_and(|status| status.success())
                    };
                    if !set("taskset", &["-p", "-c", &processor.to_string()])
                        || !set("chrt", &["-f", "-p", "50"])
                    {
                        eprintln!(
                            "nobody may have a thread of real time here: stops of the machine are not seen"
                        );
                        return;
                    }
                    while !over.load(Ordering::Relaxed) {
                        let at = Instant::now();
                        std::thread::sleep(Duration::from_millis(1));
                        if at.elapsed() > STOP {
                            stops.lock().unwrap().push((at, Instant::now()));
                        }
                    }
                });
            }
            work();
            over.store(true, Ordering::Relaxed);
        });
        Self(stops.into_inner().unwrap())
    }

    fn during(&self, begun: Instant, ended: Instant) -> bool {
        self.0.iter().any(|(from, to)| *from < ended && begun < *to)
    }
}

impl std::fmt::Display for Stops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lengths = self.0.iter().map(|(from, to)| to.duration_since(*from).as_secs_f64() * 1e3);
        let longest = lengths.clone().fold(0.0, f64::max);
        write!(
            f,
            "the host stopped a processor {} times, {:.0} ms in all and {longest:.0} ms at most",
            self.0.len(),
            lengths.sum::<f64>()
        )
    }
}

fn fairness(server: &Server, time: Duration, monsters: &[usize]) {
    let measure = || {
        let mut times = Vec::new();
        let began = Instant::now();
        let stops = Stops::watched(|| {
            while began.elapsed() < time {
                let at = Instant::now();
                let (status, _) = server.range("b", DASHBOARD, 3600, 60.0);
                assert_eq!(status, 200);
                times.push((at, at.elapsed()));
                std::thread::sleep(PACE.saturating_sub(at.elapsed()));
            }
        });
        let asked = times.len();
        times.retain(|(at, took)| !stops.during(*at, *at + *took));
        assert!(!times.is_empty(), "{stops}: nothing can be measured here");
        eprintln!("{stops}; {} of {asked} queries are left out", asked - times.len());
        let mut times: Vec<Duration> = times.into_iter().map(|(_, took)| took).collect();
        times.sort();
        [50, 90, 99].map(|part| times[times.len() * part / 100].as_secs_f64() * 1e3)
    };
    measure();
    let alone = measure();
    let ended: Mutex<BTreeMap<(&str, String), usize>> = Mutex::default();
    let next = AtomicUsize::new(0);
    let beside = |monsters: usize| {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..monsters {
                let (over, next, ended) = (&over, &next, &ended);
                scope.spawn(move || {
                    rustix::process::setpriority_process(None, 19).unwrap();
                    while !over.load(Ordering::Relaxed) {
                        let (kind, text, step) =
                            MONSTERS[next.fetch_add(1, Ordering::Relaxed) % MONSTERS.len()];
                        let (status, body) = server.range("a", text, 3600, step);
                        let told = match status {
                            200 => "answered".to_owned(),
                            0 => "left".to_owned(),
                            _ => format!("{status} {}", body["error"].as_str().unwrap_or_default()),
                        };
                        *ended.lock().unwrap().entry((kind, told)).or_default() += 1;
                    }
                });
            }
            std::thread::sleep(Duration::from_secs(2));
            let beside = measure();
            over.store(true, Ordering::Relaxed);
            server.end_all();
            beside
        })
    };
    let beside: Vec<[f64; 3]> = monsters.iter().map(|monsters| beside(*monsters)).collect();
    let columns = monsters.iter().map(|monsters| format!(" beside {monsters} of death | ratio |"));
    println!("| dashboard query, ms | alone |{}", columns.collect::<String>());
    println!("|---|---:|{}", "---:|---:|".repeat(monsters.len()));
    for (row, what) in ["p50", "p90", "p99"].iter().enumerate() {
        let cells =
            beside.iter().map(|beside| format!(" {:.1} | {:.2} |", beside[row], beside[row] / alone[row]));
        println!("| {what} | {:.1} |{}", alone[row], cells.collect::<String>());
    }
    println!("\n| what became of them | | times |\n|---|---|---:|");
    for ((kind, told), times) in ended.into_inner().unwrap() {
        println!("| {kind} | {told} | {times} |");
    }
}

fn endings(server: &Server) {
    println!(
        "\n| until place and memory are free, ms (at most 100) | ended | caller left |\n|---|---:|---:|"
    );
    for (kind, text, step) in MONSTERS {
        let mut told = Vec::new();
        for leave in [false, true] {
            let stream = server.ask("a", text, *step);
            let begun = Instant::now();
            while server.active().is_empty() && begun.elapsed() < Duration::from_secs(1) {}
            std::thread::sleep(Duration::from_millis(150));
            let active = server.active();
            let at = Instant::now();
            let Some(id) = active.first() else {
                told.push("was over".to_owned());
                continue;
            };
            if leave {
                drop(stream);
            } else {
                server.end(id);
            }
            while !server.is_idle() {
                assert!(at.elapsed() < Duration::from_secs(60), "{kind} does not end");
            }
            told.push(format!("{:.0}", at.elapsed().as_secs_f64() * 1e3));
        }
        println!("| {kind} | {} |", told.join(" | "));
    }
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = std::env::var_os("LUMINATE_BENCH_PROGRAM");
        let program = program.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_luminate")), PathBuf::from);
        let child = Command::new(program)
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--log.level", "error", "--data-dir"])
            .arg(dir.path())
            .env("LUMINATE_SELF_SCRAPE__ENABLED", "false")
            .env("LUMINATE_STORAGE__EMBEDDED__WAL__SYNC", "os")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let agent =
            ureq::Agent::config_builder().http_status_as_error(false).max_idle_connections(64).build();
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let server = Self { child, port, agent: agent.into(), end, _dir: dir };
        let begun = Instant::now();
        while server.agent.get(server.url("/-/ready")).call().is_ok_and(|answer| answer.status() != 200)
            || server.agent.get(server.url("/-/ready")).call().is_err()
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server is not ready after a minute");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn write(&self, tenant: &str, body: &[u8]) {
        let request = self.agent.post(self.url("/api/v1/write")).header("X-Scope-OrgID", tenant);
        let request = request
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0");
        assert_eq!(request.send(body).unwrap().status(), 204);
    }

    fn path(&self, text: &str, seconds: i64, step: f64) -> String {
        let end = self.end / 1000;
        format!(
            "/api/v1/query_range?query={}&start={}&end={end}&step={step}&nocache=1",
            percent(text),
            end - seconds
        )
    }

    /// The status, 0 if there was no answer, and what a failure says.
    fn range(&self, tenant: &str, text: &str, seconds: i64, step: f64) -> (u16, Value) {
        let url = self.url(&self.path(text, seconds, step));
        let Ok(mut answer) = self.agent.get(url).header("X-Scope-OrgID", tenant).call() else {
            return (0, Value::Null);
        };
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(u64::MAX).read_to_vec().unwrap_or_default();
        let body =
            if status == 200 { Value::Null } else { serde_json::from_slice(&body).unwrap_or(Value::Null) };
        (status, body)
    }

    /// Asks, and does not wait for the answer.
    fn ask(&self, tenant: &str, text: &str, step: f64) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let path = self.path(text, 3600, step);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Scope-OrgID: {tenant}\r\n\r\n").unwrap();
        stream
    }

    fn active(&self) -> Vec<String> {
        let listed = self.agent.get(self.url("/api/v1/admin/active_queries")).call().unwrap();
        let listed: Value = serde_json::from_slice(&listed.into_body().read_to_vec().unwrap()).unwrap();
        listed["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|query| query["id"].as_str().unwrap().to_owned())
            .collect()
    }

    fn end(&self, id: &str) {
        self.agent.delete(self.url(&format!("/api/v1/admin/active_queries/{id}"))).call().unwrap();
    }

    fn end_all(&self) {
        self.active().iter().for_each(|id| self.end(id));
    }

    /// Whether no query has a place or memory.
    fn is_idle(&self) -> bool {
        let figures = self.agent.get(self.url("/metrics")).call().unwrap();
        let figures = figures.into_body().read_to_string().unwrap();
        ["luminate_query_running", "luminate_query_memory_bytes"].iter().all(|name| {
            let line = figures.lines().find(|line| line.split([' ', '{']).next() == Some(*name)).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() == 0.0
        })
    }

    fn stop(mut self) {
        stop(&mut self.child);
    }
}
