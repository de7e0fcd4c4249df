//! Luminate beside VictoriaMetrics: the same requests, one after the other, on this machine.
//!
//! `make bench` prints a table for each profile: samples a second, how fast series begin, CPU seconds per million samples,
//! memory, disk, restart. Of a million series there is another table, of queries and lookups of labels.
//! `LUMINATE_BENCH_PROFILES` names those that are wanted (`wide,million,churn,histograms,deep`),
//! `LUMINATE_BENCH_SERIES` and `LUMINATE_BENCH_SCRAPES` change the load of each.
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

mod ask;
mod load;
mod peer;
mod process;

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use ask::{Running, escaped, instant, medians, range};
use load::{INSTANT_QUERIES, Load, QUERIES, Shape};
use peer::Target;
use process::{cpu_seconds, peak_rss_mb, percent, stop};

const CONNECTIONS: usize = 16;

/// What is written: a name, and how many series are scraped how often.
#[derive(Clone, Copy, Debug)]
struct Profile {
    name: &'static str,
    shape: Shape,
    series: usize,
    scrapes: usize,
    /// Whether it is asked for series and values of labels.
    lookups: bool,
}

const PROFILES: &[Profile] = &[
    Profile { name: "wide", shape: Shape::Mix, series: 50_000, scrapes: 240, lookups: false },
    Profile { name: "million", shape: Shape::Mix, series: 1_000_000, scrapes: 20, lookups: true },
    Profile { name: "churn", shape: Shape::Churn, series: 50_000, scrapes: 240, lookups: false },
    Profile { name: "histograms", shape: Shape::Histograms, series: 50_000, scrapes: 240, lookups: false },
    Profile { name: "deep", shape: Shape::Mix, series: 5_000, scrapes: 5_760, lookups: false },
];

/// Selectors whose series are looked up.
const LOOKUPS: &[&str] = &[
    r#"{instance="10.0.1.7:9100"}"#,
    r#"node_load1{namespace="team-7"}"#,
    r#"node_load1{namespace!="team-7"}"#,
    r#"{instance=~"10.0.1.7.*"}"#,
    r#"node_load1{instance=~"10.0.*"}"#,
    r#"{instance=~"10.0.1.7:9100|10.0.2.8:9100|10.0.3.9:9100"}"#,
    r#"{instance=~".*7.77:9100"}"#,
    r#"node_load1{pod=~".*-a.*7"}"#,
    r#"{__name__=~"node_.*", instance="10.0.1.7:9100"}"#,
];

#[derive(Debug)]
struct Figures {
    rows: Vec<(String, f64, usize)>,
    dir: tempfile::TempDir,
}

fn main() {
    // `cargo bench` and `cargo test --benches` pass flags that are not for us.
    let setting = |name: &str| std::env::var(name).ok();
    let number = |name: &str| setting(name).and_then(|v| v.parse().ok());
    let wanted = setting("LUMINATE_BENCH_PROFILES");
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|all| all.split(',').any(|one| one == name));
    let victoria = peer::victoria().program.exists();
    if !victoria {
        eprintln!("\n=== SKIPPED: victoria-metrics is not installed, nothing to compare with ===\n");
    }
    for profile in PROFILES.iter().filter(|profile| is_wanted(profile.name)) {
        let mut profile = *profile;
        profile.series = number("LUMINATE_BENCH_SERIES").unwrap_or(profile.series);
        profile.scrapes = number("LUMINATE_BENCH_SCRAPES").unwrap_or(profile.scrapes);
        compare(profile, victoria);
    }
}

fn compare(profile: Profile, victoria: bool) {
    let Profile { name, shape, series, scrapes, lookups } = profile;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    // The last scrape's targets have times of their own.
    let start = now - (scrapes as i64 + 1) * load::SCRAPE_MS;
    let end = start + scrapes as i64 * load::SCRAPE_MS;
    eprintln!("generating {name}: {series} series × {scrapes} scrapes");
    let loads = load::shaped(shape, series, scrapes, start).first_scrape();
    let mut targets = vec![peer::luminate()];
    targets.extend(victoria.then(peer::victoria));
    let figures: Vec<Figures> = targets.iter().map(|target| measure(target, &loads, series)).collect();
    println!(
        "{name}: {series} series × {scrapes} scrapes, {CONNECTIONS} connections, {} cores\n",
        std::thread::available_parallelism().unwrap()
    );
    println!("{}", table(&figures));
    if lookups {
        drop(loads);
        let over = targets.iter().zip(figures).map(|(target, figures)| Running::over(target, figures.dir));
        ask_all(over.collect(), start, end);
    }
}

fn measure(target: &Target, (first, rest): &(Load, Load), series: usize) -> Figures {
    eprintln!("measuring {}", target.name);
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Vec::new();
    let mut add = |name: &str, value: f64, digits: usize| rows.push((name.to_owned(), value, digits));
    let (mut server, port, _) = target.run(dir.path());
    let (empty, before) = (peak_rss_mb(&server), cpu_seconds(&server));
    let begun = load::send(first, port, CONNECTIONS);
    let sent = load::send(rest, port, CONNECTIONS);
    let samples = (first.samples + rest.samples) as f64;
    let million = samples / 1e6;
    add("RSS without data (MB)", empty, 0);
    add("requests refused", (begun.refused + sent.refused) as f64, 0);
    add("new series/s (thousand)", series as f64 / 1e3 / begun.elapsed.as_secs_f64(), 0);
    add("samples/s (million)", million / (begun.elapsed + sent.elapsed).as_secs_f64(), 3);
    add("CPU-s per million samples", (cpu_seconds(&server) - before) / million, 3);
    let mut latencies = [begun.latencies, sent.latencies].concat();
    latencies.sort();
    add("write p50 (ms)", latencies[latencies.len() / 2].as_secs_f64() * 1e3, 2);
    add("write p99 (ms)", latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e3, 2);
    add("peak RSS while writing (MB)", peak_rss_mb(&server), 0);
    add("of that per series (kB)", (peak_rss_mb(&server) - empty) * 1024.0 / series as f64, 2);
    target.flush(port);
    add("CPU-s per million samples, flushed", (cpu_seconds(&server) - before) / million, 3);
    add("peak RSS, flushed (MB)", peak_rss_mb(&server), 0);
    stop(&mut server);
    let bytes = data_bytes(dir.path(), target.not_data);
    add("bytes per sample on disk", bytes as f64 / samples, 3);
    let (mut server, _, ready) = target.run(dir.path());
    add("restart to ready (ms)", ready.as_secs_f64() * 1e3, 0);
    stop(&mut server);
    Figures { rows, dir }
}

/// Queries, and lookups of series and of values, by turns.
fn ask_all(mut all: Vec<Running>, start: i64, end: i64) {
    println!("| ms | Luminate | VictoriaMetrics | ratio |\n|---|---:|---:|---:|");
    let times = format!("start={}&end={}", start / 1000, end / 1000);
    let mut ask = |name: String, path: String| ask::print(&name, &medians(&mut all, &path, 5));
    for query in INSTANT_QUERIES {
        ask(format!("instant `{}`", escaped(query)), instant(query, end));
    }
    for query in QUERIES {
        ask(format!("`{}`", escaped(query)), range(query, start, end));
    }
    for selector in LOOKUPS {
        let matching = format!("match%5B%5D={}&{times}", percent(selector));
        ask(format!("series `{}`", escaped(selector)), format!("/api/v1/series?{matching}"));
        let values = format!("/api/v1/label/job/values?{matching}");
        ask(format!("values of job, `{}`", escaped(selector)), values);
    }
    ask("names of metrics".to_owned(), format!("/api/v1/label/__name__/values?{times}"));
    ask("names of labels".to_owned(), format!("/api/v1/labels?{times}"));
    ask("values of instance".to_owned(), format!("/api/v1/label/instance/values?{times}"));
    let peaks: Vec<f64> = all.iter().map(|target| peak_rss_mb(&target.server)).collect();
    ask::print("peak RSS (MB)", &peaks);
    println!();
    all.into_iter().for_each(|mut target| stop(&mut target.server));
}

fn data_bytes(dir: &Path, leave_out: &[&str]) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    let counted = entries.filter(|e| !leave_out.iter().any(|name| e.file_name() == *name));
    counted
        .map(|e| if e.path().is_dir() { data_bytes(&e.path(), &[]) } else { e.metadata().unwrap().len() })
        .sum()
}

fn table(all: &[Figures]) -> String {
    let mut out = String::from("| | Luminate | VictoriaMetrics | ratio |\n|---|---:|---:|---:|\n");
    for (i, (name, value, digits)) in all[0].rows.iter().enumerate() {
        let their = all.get(1).map(|figures| figures.rows[i].1);
        let show = |v: Option<f64>, digits: usize| v.map_or("–".to_owned(), |v| format!("{v:.digits$}"));
        let ratio = their.filter(|t| *t > 0.0).map(|t| value / t);
        let _ =
            writeln!(out, "| {name} | {value:.digits$} | {} | {} |", show(their, *digits), show(ratio, 2));
    }
    out
}
