//! Queries beside VictoriaMetrics': the same questions to both, by turns, so that both see the same machine.
//!
//! `make bench` prints two tables. The first has the time of each query over many series and an hour; results
//! are cached by neither (`nocache=1`), and both have read their data back from disk. The second has window
//! functions over half a day at a step of a minute, with windows of five minutes, an hour and six hours: what
//! a window costs should not depend on how long it is. `LUMINATE_BENCH_SERIES` and `LUMINATE_BENCH_SCRAPES`
//! change the load of the first, `LUMINATE_BENCH_DEEP_SERIES` and `LUMINATE_BENCH_DEEP_SCRAPES` that of the
//! second, `LUMINATE_BENCH_RUNS` how often each is asked.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
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

use std::time::{SystemTime, UNIX_EPOCH};

use ask::{Running, cell, escaped, instant, medians, print, range};
use load::{INSTANT_QUERIES, QUERIES, SCRAPE_MS};
use peer::Target;
use process::{peak_rss_mb, stop};

const CONNECTIONS: usize = 16;

/// How much longer the windows of the second table are than its step.
const WINDOWS: [&str; 3] = ["5m", "1h", "6h"];

/// The functions of the second table; `$` is where the range stands.
const FUNCTIONS: &[&str] = &[
    "rate(http_requests_total[$])",
    "increase(http_requests_total[$])",
    "delta(node_load1[$])",
    "changes(node_load1[$])",
    "resets(http_requests_total[$])",
    "count_over_time(node_load1[$])",
    "sum_over_time(node_load1[$])",
    "avg_over_time(temperature_celsius[$])",
    "min_over_time(node_load1[$])",
    "max_over_time(node_load1[$])",
    "stddev_over_time(node_load1[$])",
    "quantile_over_time(0.95, node_load1[$])",
    "deriv(node_load1[$])",
    "last_over_time(node_load1[$])",
    "present_over_time(node_load1[$])",
];

fn main() {
    // `cargo bench` and `cargo test --benches` pass flags that are not for us.
    let setting =
        |name: &str, default: usize| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let runs = setting("LUMINATE_BENCH_RUNS", 9);
    let (luminate, victoria) = (peer::luminate(), peer::victoria());
    let mut targets = vec![luminate];
    if victoria.program.exists() {
        targets.push(victoria);
    } else {
        eprintln!("\n=== SKIPPED: victoria-metrics is not installed, nothing to compare with ===\n");
    }
    let wide = (setting("LUMINATE_BENCH_SERIES", 50_000), setting("LUMINATE_BENCH_SCRAPES", 240));
    let deep = (setting("LUMINATE_BENCH_DEEP_SERIES", 2_000), setting("LUMINATE_BENCH_DEEP_SCRAPES", 2_880));
    many_series(&targets, wide, runs);
    long_windows(&targets, deep, runs);
}

fn many_series(targets: &[Target], (series, scrapes): (usize, usize), runs: usize) {
    println!("{series} series × {scrapes} scrapes, {runs} runs each\n");
    println!("| query (ms) | Luminate | VictoriaMetrics | ratio |\n|---|---:|---:|---:|");
    let (mut all, start, end) = loaded(targets, series, scrapes);
    for query in INSTANT_QUERIES {
        // These are over in no time.
        print(&format!("instant `{}`", escaped(query)), &medians(&mut all, &instant(query, end), 10 * runs));
    }
    for query in QUERIES {
        print(&format!("`{}`", escaped(query)), &medians(&mut all, &range(query, start, end), runs));
    }
    let peaks: Vec<f64> = all.iter().map(|target| peak_rss_mb(&target.server)).collect();
    print("peak RSS while querying (MB)", &peaks);
    all.into_iter().for_each(|mut target| stop(&mut target.server));
}

fn long_windows(targets: &[Target], (series, scrapes): (usize, usize), runs: usize) {
    println!(
        "\n{series} series × {scrapes} scrapes, the later half at a step of a minute, {runs} runs each\n"
    );
    println!(
        "| function (ms) | Luminate: {} | VictoriaMetrics: {} |\n|---|---:|---:|---:|---:|---:|---:|",
        WINDOWS.join(" | "),
        WINDOWS.join(" | ")
    );
    let (mut all, start, end) = loaded(targets, series, scrapes);
    let middle = (start + end) / 2;
    for function in FUNCTIONS {
        // The sum keeps the writing of answers out of what is measured.
        let of = |window| format!("sum({})", function.replace('$', window));
        let by_window = WINDOWS.map(|window| medians(&mut all, &range(&of(window), middle, end), runs));
        let of_target = |number: usize| by_window.iter().map(move |times| times.get(number).copied());
        let cells: Vec<String> = (0..2).flat_map(of_target).map(|time| cell(time, 1)).collect();
        println!("| `{}` | {} |", function.replace('$', "…"), cells.join(" | "));
    }
    all.into_iter().for_each(|mut target| stop(&mut target.server));
}

/// Fills each target, and starts it again over what it has written.
fn loaded(targets: &[Target], series: usize, scrapes: usize) -> (Vec<Running>, i64, i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let start = now - scrapes as i64 * SCRAPE_MS;
    let load = load::generate(series, scrapes, start);
    let fill = |target: &Target| {
        let dir = tempfile::tempdir().unwrap();
        let (mut server, port, _) = target.run(dir.path());
        assert_eq!(load::send(&load, port, CONNECTIONS).refused, 0, "{} takes all", target.name);
        target.flush(port);
        stop(&mut server);
        Running::over(target, dir)
    };
    (targets.iter().map(fill).collect(), start, start + (scrapes as i64 - 1) * SCRAPE_MS)
}
