//! Luminate beside VictoriaMetrics: the same requests, one after the other, on this machine.
//!
//! `make bench` prints a table: samples a second, CPU seconds per million samples, memory, disk, restart.
//! `LUMINATE_BENCH_SERIES` and `LUMINATE_BENCH_SCRAPES` change the load.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measuring program"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    dead_code,
    unreachable_pub,
    reason = "a measuring program"
)]

mod load;
mod peer;
mod process;

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use peer::Target;
use process::{cpu_seconds, peak_rss_mb, stop};

const CONNECTIONS: usize = 16;

#[derive(Debug)]
struct Figures {
    rows: Vec<(String, f64, usize)>,
}

fn main() {
    // `cargo bench` and `cargo test --benches` pass flags that are not for us.
    let setting =
        |name: &str, default: usize| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (series, scrapes) =
        (setting("LUMINATE_BENCH_SERIES", 50_000), setting("LUMINATE_BENCH_SCRAPES", 240));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let start = now - scrapes as i64 * load::SCRAPE_MS;
    eprintln!("generating {series} series × {scrapes} scrapes");
    let requests = load::generate(series, scrapes, start);
    let (luminate, victoria) = (peer::luminate(), peer::victoria());
    let ours = measure(&luminate, &requests);
    let theirs = victoria.program.exists().then(|| measure(&victoria, &requests));
    if theirs.is_none() {
        eprintln!("\n=== SKIPPED: victoria-metrics is not installed, nothing to compare with ===\n");
    }
    println!(
        "{series} series × {scrapes} scrapes, {CONNECTIONS} connections, {} cores\n",
        std::thread::available_parallelism().unwrap()
    );
    println!("{}", table(&ours, theirs.as_ref()));
}

fn measure(target: &Target, requests: &load::Load) -> Figures {
    eprintln!("measuring {}", target.name);
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Vec::new();
    let mut add = |name: &str, value: f64, digits: usize| rows.push((name.to_owned(), value, digits));
    let (mut server, port, _) = target.run(dir.path());
    let before = cpu_seconds(&server);
    let sent = load::send(requests, port, CONNECTIONS);
    let million = requests.samples as f64 / 1e6;
    add("requests refused", sent.refused as f64, 0);
    add("samples/s (million)", million / sent.elapsed.as_secs_f64(), 3);
    add("CPU-s per million samples", (cpu_seconds(&server) - before) / million, 3);
    let mut latencies = sent.latencies;
    latencies.sort();
    add("write p50 (ms)", latencies[latencies.len() / 2].as_secs_f64() * 1e3, 2);
    add("write p99 (ms)", latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e3, 2);
    add("peak RSS while writing (MB)", peak_rss_mb(&server), 0);
    target.flush(port);
    add("CPU-s per million samples, flushed", (cpu_seconds(&server) - before) / million, 3);
    stop(&mut server);
    let bytes = data_bytes(dir.path(), target.not_data);
    add("bytes per sample on disk", bytes as f64 / requests.samples as f64, 3);
    let (mut server, _, ready) = target.run(dir.path());
    add("restart to ready (ms)", ready.as_secs_f64() * 1e3, 0);
    stop(&mut server);
    Figures { rows }
}

fn data_bytes(dir: &Path, leave_out: &[&str]) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    let counted = entries.filter(|e| !leave_out.iter().any(|name| e.file_name() == *name));
    counted
        .map(|e| if e.path().is_dir() { data_bytes(&e.path(), &[]) } else { e.metadata().unwrap().len() })
        .sum()
}

fn table(ours: &Figures, theirs: Option<&Figures>) -> String {
    let mut out = String::from("| | Luminate | VictoriaMetrics | ratio |\n|---|---:|---:|---:|\n");
    for (i, (name, value, digits)) in ours.rows.iter().enumerate() {
        let their = theirs.map(|t| t.rows[i].1);
        let show = |v: Option<f64>, digits: usize| v.map_or("–".to_owned(), |v| format!("{v:.digits$}"));
        let ratio = their.filter(|t| *t > 0.0).map(|t| value / t);
        let _ =
            writeln!(out, "| {name} | {value:.digits$} | {} | {} |", show(their, *digits), show(ratio, 2));
    }
    out
}
