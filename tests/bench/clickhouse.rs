//! Luminate over ClickHouse, on this machine: one gateway on one core, the engine and the loader on the other.
//!
//! The engine is the tests' front, ClickHouse in a Python process. `make bench` prints a table: samples a
//! second and how long an acknowledgement takes by the number of writers, bytes on disk, the gateway's memory
//! with many series, each query with what the servers may compute of it and what of its time was theirs, and
//! how soon it is well again after trouble. `LUMINATE_BENCH_SERIES`, `LUMINATE_BENCH_SCRAPES` and
//! `LUMINATE_BENCH_MANY_SERIES` change the load.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    dead_code,
    unreachable_pub,
    reason = "a measuring program, which uses some of the tests' parts"
)]

#[path = "../it/clickhouse/front.rs"]
mod front;
mod load;
#[path = "../it/patience.rs"]
mod patience;
mod process;
#[path = "../it/server.rs"]
mod server;

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use front::Front;
use load::{Load, QUERIES};
use process::{cpu_seconds, peak_rss_mb, percent, stop};

const RUNS: usize = 3;

/// Which core is whose.
const GATEWAY_CORE: &str = "0";
const ENGINE_CORE: &str = "1";

fn main() {
    // `cargo bench` and `cargo test --benches` pass flags that are not for us.
    let setting =
        |name: &str, default: usize| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (series, scrapes) =
        (setting("LUMINATE_BENCH_SERIES", 50_000), setting("LUMINATE_BENCH_SCRAPES", 240));
    let Some(mut front) = Front::start_own() else { return };
    let applied = server::luminate()
        .args(["schema", "apply", "--address", &front.url, "--database", &front.database])
        .status()
        .unwrap();
    assert!(applied.success(), "the schema is applied");
    let start = now_ms() - scrapes as i64 * load::SCRAPE_MS;
    let end = start + (scrapes as i64 - 1) * load::SCRAPE_MS;
    println!(
        "{series} series × {scrapes} scrapes; {} cores\n",
        std::thread::available_parallelism().unwrap()
    );
    println!("| | Luminate over ClickHouse |\n|---|---:|");
    eprintln!("generating {series} series × {scrapes} scrapes");
    let all = load::generate(series, scrapes, start);
    pin(front.pid(), ENGINE_CORE);
    writes(&front, &all);
    unpin(front.pid());
    disk(&front, all.samples);
    drop(all);
    queries(&front, start, end);
    recoveries(&mut front);
    pin(front.pid(), ENGINE_CORE);
    many_series(&front, setting("LUMINATE_BENCH_MANY_SERIES", 1_000_000));
}

/// Prints as it comes: the whole takes long.
fn row(name: &str, value: f64, digits: usize) {
    println!("| {name} | {value:.digits$} |");
}

/// Runs a gateway, on one core if asked; gives its port when it is ready.
fn gateway(front: &Front, core: Option<&str>, pushdown: &str) -> (Child, u16) {
    let (child, port) = spawn_gateway(front, core, pushdown);
    wait(|| is_ready(port));
    (child, port)
}

fn spawn_gateway(front: &Front, core: Option<&str>, pushdown: &str) -> (Child, u16) {
    let (binary, port) = (env!("CARGO_BIN_EXE_luminate"), server::free_port());
    let mut command = Command::new(if core.is_some() { "taskset" } else { binary });
    if let Some(core) = core {
        command.args(["-c", core, binary]);
    }
    let child = command
        .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--log.level", "error"])
        .env("LUMINATE_STORAGE__BACKEND", "clickhouse")
        .env("LUMINATE_STORAGE__CLICKHOUSE__ADDRESSES", &front.url)
        .env("LUMINATE_STORAGE__CLICKHOUSE__DATABASE", &front.database)
        .env("LUMINATE_STORAGE__CLICKHOUSE__PUSHDOWN", pushdown)
        .env("LUMINATE_SELF_SCRAPE__ENABLED", "false")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (child, port)
}

fn is_ready(port: u16) -> bool {
    load::get(port, "GET", "/-/ready").is_ok_and(|(status, _)| status == 200)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Waits for a condition, and says for how long.
fn wait(mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited two minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}

fn pin(pid: u32, core: &str) {
    let set =
        Command::new("taskset").args(["-a", "-cp", core, &pid.to_string()]).stdout(Stdio::null()).status();
    assert!(set.unwrap().success(), "taskset works");
}

fn unpin(pid: u32) {
    let cores = std::thread::available_parallelism().unwrap().get();
    pin(pid, &format!("0-{}", cores - 1));
}

/// Writes everything, by one writer, by 16 and by 64.
fn writes(front: &Front, all: &Load) {
    let per_request = all.samples / all.requests.len();
    let count = all.requests.len();
    let parts = [(1, 0..count / 20), (16, count / 20..count * 2 / 5), (64, count * 2 / 5..count)];
    for (writers, part) in parts {
        let requests = all.requests[part].to_vec();
        let part = Load { samples: requests.len() * per_request, of_a_scrape: requests.len(), requests };
        let (mut server, port) = gateway(front, Some(GATEWAY_CORE), "auto");
        let before = cpu_seconds(&server);
        let sent = load::send(&part, port, writers);
        let (cpu, million) = (cpu_seconds(&server) - before, part.samples as f64 / 1e6);
        assert_eq!(sent.refused, 0, "writes that were refused");
        let mut latencies = sent.latencies;
        latencies.sort();
        let at = |percent: usize| latencies[latencies.len() * percent / 100].as_secs_f64() * 1e3;
        row(&format!("{writers} writers: samples/s (million)"), million / sent.elapsed.as_secs_f64(), 3);
        row(&format!("{writers} writers: acknowledged, p50 (ms)"), at(50), 1);
        row(&format!("{writers} writers: acknowledged, p99 (ms)"), at(99), 1);
        row(&format!("{writers} writers: gateway's CPU-s per million samples"), cpu / million, 3);
        row(&format!("{writers} writers: gateway's peak RSS (MB)"), peak_rss_mb(&server), 0);
        stop(&mut server);
    }
}

/// Asks the engine what the tables take.
fn disk(front: &Front, samples: usize) {
    let bytes = |tables: &str| -> f64 {
        let of = format!(
            "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = '{}' AND table {tables}",
            front.database
        );
        front.sql(&of).trim().parse().unwrap()
    };
    let per_sample = |tables: &str| bytes(tables) / samples as f64;
    row("bytes per sample on disk, as written", per_sample("= 'samples'"), 3);
    front.sql(&format!("OPTIMIZE TABLE {}.samples FINAL", front.database));
    row("bytes per sample on disk, merged", per_sample("= 'samples'"), 3);
    row("of all tables, per sample", per_sample("!= ''"), 3);
    let rows = front.sql(&format!("SELECT count() FROM {}.samples", front.database));
    assert_eq!(rows.trim().parse(), Ok(samples), "every sample is there, once");
}

/// Time the engine spent on statements so far, and how many there were.
fn engine(front: &Front) -> (f64, u64) {
    let port = front.url.rsplit(':').next().unwrap().parse().unwrap();
    let (_, body) = load::get(port, "GET", "/__front/stats").unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&body).unwrap();
    (stats["elapsed_ns"].as_f64().unwrap() / 1e6, stats["requests"].as_u64().unwrap())
}

/// Asks each query, with the servers computing more and more of it.
fn queries(front: &Front, start: i64, end: i64) {
    println!("\n| query (ms; of that the engine's) | off | auto | force |\n|---|---:|---:|---:|");
    let mut columns: Vec<Vec<String>> = Vec::new();
    let instants = ["count(up)", "count(node_load1)", "sum by (job) (rate(http_requests_total[5m]))"];
    let all = instants.iter().map(|query| (*query, true)).chain(QUERIES.iter().map(|query| (*query, false)));
    let mut peaks = Vec::new();
    for pushdown in ["off", "auto", "force"] {
        let (mut server, port) = gateway(front, None, pushdown);
        let column = all.clone().map(|(query, instant)| ask(front, port, query, instant, start, end));
        columns.push(column.collect());
        peaks.push(format!("{:.0}", peak_rss_mb(&server)));
        stop(&mut server);
    }
    for (number, (query, instant)) in all.enumerate() {
        let of = columns.iter().map(|column| column[number].as_str()).collect::<Vec<_>>().join(" | ");
        let kind = if instant { "instant " } else { "" };
        println!("| {kind}`{}` | {of} |", query.replace('|', "\\|"));
    }
    println!("| gateway's peak RSS (MB) | {} |", peaks.join(" | "));
    println!("\n| | |\n|---|---:|");
}

/// The median of some runs of a query, and the engine's time in that run.
fn ask(front: &Front, port: u16, query: &str, instant: bool, start: i64, end: i64) -> String {
    let path = if instant {
        format!("/api/v1/query?query={}&time={}&nocache=1", percent(query), end / 1000)
    } else {
        let range = format!("start={}&end={}&step=60", start / 1000, end / 1000);
        format!("/api/v1/query_range?query={}&{range}&nocache=1", percent(query))
    };
    let mut runs: Vec<(f64, f64)> = (0..RUNS)
        .map(|_| {
            let (before, at) = (engine(front).0, Instant::now());
            let (status, body) = load::get(port, "GET", &path).unwrap();
            let took = at.elapsed().as_secs_f64() * 1e3;
            assert_eq!(status, 200, "{query}: {}", String::from_utf8_lossy(&body));
            (took, engine(front).0 - before)
        })
        .collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    format!("{:.0} ({:.0})", runs[RUNS / 2].0, runs[RUNS / 2].1)
}

/// Lets the engine go and come, and says how soon a write is taken again.
fn recoveries(front: &mut Front) {
    let (mut server, port) = gateway(front, None, "auto");
    let one = load::generate(1, 1, now_ms());
    let taken = || {
        let write = ureq::post(format!("http://127.0.0.1:{port}/api/v1/write"))
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy");
        write.send(&one.requests[0][..]).is_ok()
    };
    wait(taken);
    for away in [1, 10] {
        front.kill();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(away) {
            assert!(!taken(), "nobody can keep it");
            std::thread::sleep(Duration::from_millis(100));
        }
        front.start_again(&[]);
        let name = format!("a write is taken after a ClickHouse that was away for {away} s is back (s)");
        row(&name, wait(taken).as_secs_f64(), 2);
    }
    stop(&mut server);
    front.kill();
    let (mut server, port) = spawn_gateway(front, None, "auto");
    std::thread::sleep(Duration::from_secs(5));
    assert!(!is_ready(port), "there is nothing to be ready for");
    front.start_again(&[]);
    let name = "a gateway started 5 s before ClickHouse is ready (s)";
    row(name, wait(|| is_ready(port)).as_secs_f64(), 2);
    stop(&mut server);
}

/// Writes 100,000 samples a second of very many series.
fn many_series(front: &Front, series: usize) {
    eprintln!("generating {series} series");
    let scrapes = 4;
    let load = load::generate(series, scrapes, now_ms() - scrapes as i64 * load::SCRAPE_MS);
    let per_request = load.samples / load.requests.len();
    let pace = Duration::from_secs_f64(per_request as f64 / 100_000.0);
    let (mut server, port) = gateway(front, Some(GATEWAY_CORE), "auto");
    let sent = load::send_paced(&load, port, 16, pace);
    let rate = load.samples as f64 / sent.elapsed.as_secs_f64();
    let mut latencies = sent.latencies;
    latencies.sort();
    let name = |what: &str| format!("{series} series, asked for 100,000 samples/s: {what}");
    row(&name("samples/s"), rate, 0);
    row(&name("refused"), sent.refused as f64, 0);
    row(&name("acknowledged, p99 (ms)"), latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e3, 1);
    row(&name("gateway's peak RSS (MB)"), peak_rss_mb(&server), 0);
    stop(&mut server);
}
