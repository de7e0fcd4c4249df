//! Hours of writing, reading, deleting, flushing and merging: memory stays flat, the disk grows by its data only.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{note, tell};
use crate::server::{Options, Server, now_ms, remote_write};

/// So long, in seconds; without it the test does nothing.
const SOAK: &str = "LUMINATE_TEST_SOAK";
const WRITERS: usize = 4;
const SERIES_PER_WRITER: usize = 500;
/// Each writer writes all its series so often; of the samples' time that is fifteen seconds.
const SCRAPE: Duration = Duration::from_millis(250);
/// A generation of series lives so long, and is deleted when the next one is over.
const GENERATION: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Watched {
    /// By the seconds since the start.
    memory_kb: Vec<(f64, f64)>,
    disk: Vec<(f64, f64)>,
    write_ms: Vec<f64>,
    query_ms: Vec<f64>,
}

#[test]
fn memory_and_disk_stay_flat_while_everything_goes_on() {
    let Some(soak) = std::env::var(SOAK).ok().and_then(|n| n.parse().ok()).map(Duration::from_secs) else {
        println!("{SOAK} is not set, nothing is soaked");
        return;
    };
    let began = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options { quiet: true, ..Options::default() });
    let (stop, samples, watched) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::<Watched>::default());
    // The time of samples goes faster than ours, and ends now.
    let scrapes = soak.as_millis() / SCRAPE.as_millis();
    let base = now_ms() - i64::try_from(scrapes).unwrap() * 15_000;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (server, stop, samples, watched) = (&server, &stop, &samples, &watched);
            scope.spawn(move || {
                for scrape in 0.. {
                    let next = began + SCRAPE * scrape;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let body = scrape_of(writer, scrape, base);
                    let before = Instant::now();
                    let (status, body) = server.try_write(&body, None).unwrap();
                    assert_eq!(status, 204, "{body}");
                    watched.lock().unwrap().write_ms.push(before.elapsed().as_secs_f64() * 1000.0);
                    samples.fetch_add(SERIES_PER_WRITER as u64, Ordering::SeqCst);
                }
            });
        }
        scope.spawn(|| read(&server, base, began, &stop, &watched));
        scope.spawn(|| tidy(&server, began, &stop));
        while began.elapsed() < soak {
            std::thread::sleep(Duration::from_secs(1));
            let at = began.elapsed().as_secs_f64();
            let watched = &mut *watched.lock().unwrap();
            watched.memory_kb.push((at, memory_kb(&server)));
            watched.disk.push((at, bytes_in(dir.path())));
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(server.try_post("/api/v1/admin/tsdb/flush").unwrap().0, 204);
    let mut watched = watched.into_inner().unwrap();
    let (memory, disk) = (halves(&watched.memory_kb), halves(&watched.disk));
    let samples = samples.into_inner();
    let slope = slope(&watched.memory_kb) / 1024.0 * 3600.0;
    let (write_p50, write_p99) =
        (quantile(&mut watched.write_ms, 0.5), quantile(&mut watched.write_ms, 0.99));
    let (query_p50, query_p99) =
        (quantile(&mut watched.query_ms, 0.5), quantile(&mut watched.query_ms, 0.99));
    note(
        "soak",
        &format!(
            "{samples} samples; memory {:.0} then {:.0} MiB, {slope:+.1} MiB an hour in the second half; \
             disk {:.1} then {:.1} MiB; writes p50 {write_p50:.1} p99 {write_p99:.1} ms ({:.1} times); \
             queries p50 {query_p50:.1} p99 {query_p99:.1} ms",
            memory.0 / 1024.0,
            memory.1 / 1024.0,
            disk.0 / 1048576.0,
            disk.1 / 1048576.0,
            write_p99 / write_p50,
        ),
    );
    let status = server.api("/api/v1/status/storage", &[]);
    note("soak", &status.to_string());
    assert_eq!(status["quarantined"], serde_json::json!([]));
    tell("soak", i64::try_from(soak.as_secs()).unwrap(), 0, 0, began.elapsed());
    assert!(memory.1 < memory.0 * 1.3, "memory grows: {memory:?} KiB");
    assert!(server.terminate().success());
}

/// All series of a writer at one time; each generation has names of its own.
fn scrape_of(writer: usize, scrape: u32, base: i64) -> Vec<u8> {
    let generation = generation_at(SCRAPE * scrape);
    let at = base + i64::from(scrape) * 15_000;
    let series: Vec<_> = (0..SERIES_PER_WRITER)
        .map(|i| {
            let labels = [
                ("__name__", "soak".to_owned()),
                ("generation", generation.to_string()),
                ("i", i.to_string()),
                ("writer", writer.to_string()),
            ];
            let value = f64::from(scrape) * (i % 7) as f64 + (i % 3) as f64;
            (labels.map(|(name, value)| (name.to_owned(), value)).to_vec(), vec![(at, value)])
        })
        .collect();
    remote_write(&series)
}

fn generation_at(since: Duration) -> u64 {
    since.as_secs() / GENERATION.as_secs()
}

fn read(server: &Server, base: i64, began: Instant, stop: &AtomicBool, watched: &Mutex<Watched>) {
    let queries = ["sum(rate(soak[5m]))", "count(soak)", "quantile_over_time(0.9, soak{i=\"7\"}[30m])"];
    for query in queries.iter().cycle() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let scrape = began.elapsed().as_millis() / SCRAPE.as_millis();
        let end = base / 1000 + i64::try_from(scrape).unwrap() * 15;
        let (start, end) = ((end - 1800).to_string(), end.to_string());
        let before = Instant::now();
        server.api(
            "/api/v1/query_range",
            &[("query", query), ("start", &start), ("end", &end), ("step", "60")],
        );
        watched.lock().unwrap().query_ms.push(before.elapsed().as_secs_f64() * 1000.0);
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Flushes twice in each generation, and deletes the one before the last.
fn tidy(server: &Server, began: Instant, stop: &AtomicBool) {
    let (mut flushed, mut deleted) = (0, 0);
    while !stop.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(100));
        let since = began.elapsed();
        if since.as_secs() / (GENERATION.as_secs() / 2) > flushed {
            flushed += 1;
            assert_eq!(server.try_post("/api/v1/admin/tsdb/flush").unwrap().0, 204);
        }
        if generation_at(since) > deleted + 1 {
            let path = "/api/v1/admin/tsdb/delete_series?match[]=soak%7Bgeneration%3D%22";
            assert_eq!(server.try_post(&format!("{path}{deleted}%22%7D")).unwrap().0, 204);
            assert_eq!(server.try_post("/api/v1/admin/tsdb/clean_tombstones").unwrap().0, 204);
            deleted += 1;
        }
    }
}

fn memory_kb(server: &Server) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What the parts take: the log and what is reserved do not count.
fn bytes_in(dir: &Path) -> f64 {
    let mut bytes = 0;
    let mut left = vec![dir.join("parts")];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => left.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                // Merged away meanwhile.
                Err(_) => {}
            }
        }
    }
    bytes as f64
}

/// The mean of the second quarter, and of the last.
fn halves(all: &[(f64, f64)]) -> (f64, f64) {
    let mean = |part: &[(f64, f64)]| part.iter().map(|(_, n)| n).sum::<f64>() / part.len().max(1) as f64;
    let quarter = all.len() / 4;
    (mean(&all[quarter..2 * quarter]), mean(&all[3 * quarter..]))
}

/// By how much it grows in a second, over the second half.
fn slope(all: &[(f64, f64)]) -> f64 {
    let half = &all[all.len() / 2..];
    let n = half.len() as f64;
    let (x, y) = (half.iter().map(|p| p.0).sum::<f64>() / n, half.iter().map(|p| p.1).sum::<f64>() / n);
    let covariance: f64 = half.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    covariance / half.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}

fn quantile(all: &mut [f64], q: f64) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    let below =
        all.iter().enumerate().take_while(|(place, _)| (*place as f64) < all.len() as f64 * q).count();
    all.get(below).copied().unwrap_or(f64::NAN)
}
