//! The same questions to several databases, by turns, so that all of them see the same machine.

use std::{
    process::Child,
    time::{Duration, Instant},
};

use super::{load::Client, peer::Target, process::percent};

/// A database that runs and holds data.
#[derive(Debug)]
pub struct Running {
    pub server: Child,
    client: Client,
    /// Its data lie here.
    _dir: tempfile::TempDir,
}

impl Running {
    /// Starts a database over what it has written.
    pub fn over(target: &Target, dir: tempfile::TempDir) -> Self {
        let (server, port, _) = target.run(dir.path());
        Self { server, client: Client::to(port), _dir: dir }
    }
}

/// The path of a query at one instant that nothing is kept for.
pub fn instant(query: &str, at: i64) -> String {
    format!("/api/v1/query?query={}&time={}&nocache=1", percent(query), at / 1000)
}

/// The path of a query over a range that nothing is kept for.
pub fn range(query: &str, start: i64, end: i64) -> String {
    let times = format!("start={}&end={}&step=60", start / 1000, end / 1000);
    format!("/api/v1/query_range?query={}&{times}&nocache=1", percent(query))
}

/// What is over sooner is asked again, for a tenth of a millisecond more or less is soon due to something else.
const AT_LEAST: Duration = Duration::from_millis(500);

/// The median time that each target takes, in milliseconds; they are asked by turns, after once for nothing, so many times
/// at least, and twenty times as often at most.
pub fn medians(all: &mut [Running], path: &str, runs: usize) -> Vec<f64> {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
    let begun = Instant::now();
    for run in 0..=20 * runs {
        if run > runs && begun.elapsed() > AT_LEAST {
            break;
        }
        for (target, times) in all.iter_mut().zip(&mut times) {
            let (status, body, took) = target.client.get(path);
            assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
            if run > 0 {
                times.push(took.as_secs_f64() * 1e3);
            }
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    times.iter_mut().map(median).collect()
}

pub fn print(name: &str, of_targets: &[f64]) {
    let (ours, theirs) = (of_targets.first().copied(), of_targets.get(1).copied());
    let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
    println!("| {name} | {} | {} | {} |", cell(ours, 2), cell(theirs, 2), cell(ratio, 2));
}

pub fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
}

pub fn escaped(query: &str) -> String {
    query.replace('|', "\\|")
}
