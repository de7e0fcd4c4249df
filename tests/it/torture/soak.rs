//! Hours of writing, reading, deleting, flushing and merging: memory stays flat, the disk grows by its data only, and no
//! write takes long.
//!
//! Series come and go one by one, as pods do: each has a generation of its own, which it leaves at a time of its own,
//! and what a generation has left behind is deleted a generation later. So the store has about as much of everything at any
//! time, but for what merges are still to do. The samples' time goes sixty times as fast as ours: in an hour of it days end,
//! and are merged. The retention goes by our time, and is left to other tests.
//!
//! What is judged, after the first quarter, in which everything warms up:
//!
//! * memory: its mean in the last quarter is at most a tenth, or 16 MiB, above that in the second. Heads grow and are flushed
//!   twice a minute, and what a generation needs goes with it.
//! * disk: a sample in parts takes at most a fifth more in the end than in the second quarter, and what is neither
//!   part nor log has not grown by more than 4 MiB.
//! * writes: the 99th percentile is at most five times the median. What went on beside the slowest of them is told.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{note, tell};
use crate::server::{Options, Server, agent, now_ms, remote_write};

/// So long, in seconds; without it the test does nothing.
const SOAK: &str = "LUMINATE_TEST_SOAK";
const WRITERS: usize = 4;
const SERIES_PER_WRITER: u32 = 500;
/// Each writer writes all its series so often; of the samples' time that is fifteen seconds.
const SCRAPE: Duration = Duration::from_millis(250);
/// A series lives so long.
const GENERATION: Duration = Duration::from_secs(60);
const MIB: f64 = 1_048_576.0;

/// Something measured, and how many seconds after the start.
type Seen = (f64, f64);

#[derive(Debug, Default)]
struct Watched {
    memory: Vec<Seen>,
    /// Bytes of parts for each sample in them, and bytes of what is neither part nor log.
    per_sample: Vec<Seen>,
    besides: Vec<Seen>,
    /// Milliseconds, by when they began.
    writes: Vec<Seen>,
    queries: Vec<Seen>,
    /// What else was done, and from when to when.
    work: Vec<(&'static str, f64, f64)>,
}

/// What is shared by all threads.
struct Soak {
    server: Server,
    began: Instant,
    base: i64,
    stop: AtomicBool,
    samples: AtomicU64,
    watched: Mutex<Watched>,
}

#[test]
fn memory_and_disk_stay_flat_while_everything_goes_on() {
    let Some(length) = std::env::var(SOAK).ok().and_then(|n| n.parse().ok()).map(Duration::from_secs) else {
        println!("{SOAK} is not set, nothing is soaked");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &Options { quiet: true, ..Options::default() });
    // The time of samples goes faster than ours, and ends now.
    let scrapes = length.as_millis() / SCRAPE.as_millis();
    let soak = Soak {
        server,
        began: Instant::now(),
        base: now_ms() - i64::try_from(scrapes).unwrap() * 15_000,
        stop: AtomicBool::new(false),
        samples: AtomicU64::new(0),
        watched: Mutex::default(),
    };
    std::thread::scope(|scope| {
        (0..WRITERS).for_each(|writer| {
            let soak = &soak;
            scope.spawn(move || soak.write(writer));
        });
        scope.spawn(|| soak.read());
        scope.spawn(|| soak.tidy());
        let _end = End(&soak.stop);
        while soak.began.elapsed() < length {
            std::thread::sleep(Duration::from_secs(1));
            soak.look(dir.path());
        }
    });
    assert_eq!(soak.server.try_post("/api/v1/admin/tsdb/flush").unwrap().0, 204);
    soak.look(dir.path());
    let verdicts = soak.watched.into_inner().unwrap().judge(length.as_secs_f64());
    let failed = verdicts.iter().filter(|(holds, _)| !holds).count();
    for (holds, text) in &verdicts {
        note("soak", &format!("{} {text}", if *holds { "ok    " } else { "FAILED" }));
    }
    note("soak", &format!("{} samples were written", soak.samples.into_inner()));
    let status = soak.server.api("/api/v1/status/storage", &[]);
    tell("soak", i64::try_from(length.as_secs()).unwrap(), 0, 0, soak.began.elapsed());
    assert_eq!(status["quarantined"], serde_json::json!([]));
    assert_eq!(failed, 0, "{verdicts:#?}");
    assert!(soak.server.terminate().success());
}

/// Ends all threads, also when something failed.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Soak {
    fn at(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    fn write(&self, writer: usize) {
        let agent = agent();
        for scrape in 0.. {
            let body = scrape_of(writer, scrape, self.base);
            let next = self.began + SCRAPE * scrape;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if !self.goes_on() {
                return;
            }
            let before = Instant::now();
            let (status, answer) = self.server.try_write_over(&agent, &body, None).unwrap();
            let took = before.elapsed().as_secs_f64();
            assert_eq!(status, 204, "{answer}");
            self.watched.lock().unwrap().writes.push((self.at() - took, took * 1000.0));
            self.samples.fetch_add(u64::from(SERIES_PER_WRITER), Ordering::SeqCst);
        }
    }

    fn read(&self) {
        let queries = ["sum(rate(soak[5m]))", "count(soak)", "quantile_over_time(0.9, soak{i=\"7\"}[30m])"];
        for query in queries.iter().cycle() {
            if !self.goes_on() {
                return;
            }
            let scrape = self.began.elapsed().as_millis() / SCRAPE.as_millis();
            let end = self.base / 1000 + i64::try_from(scrape).unwrap() * 15;
            let (start, end) = ((end - 1800).to_string(), end.to_string());
            let before = Instant::now();
            let asked = [("query", *query), ("start", &start), ("end", &end), ("step", "60")];
            self.server.api("/api/v1/query_range", &asked);
            let took = before.elapsed().as_secs_f64();
            self.watched.lock().unwrap().queries.push((self.at() - took, took * 1000.0));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Flushes twice in each generation, and deletes what the one before the last has left.
    fn tidy(&self) {
        let (mut flushed, mut deleted) = (0, 0);
        while self.goes_on() {
            std::thread::sleep(Duration::from_millis(100));
            let since = self.began.elapsed();
            if since.as_secs() / (GENERATION.as_secs() / 2) > flushed {
                flushed += 1;
                self.ask("flush", "/api/v1/admin/tsdb/flush");
            }
            // The last of its series goes when the next one's first does.
            if since.as_secs() / GENERATION.as_secs() > deleted + 1 {
                let path = "/api/v1/admin/tsdb/delete_series?match[]=soak%7Bgeneration%3D%22";
                self.ask("delete", &format!("{path}{deleted}%22%7D"));
                self.ask("clean", "/api/v1/admin/tsdb/clean_tombstones");
                deleted += 1;
            }
        }
    }

    fn ask(&self, what: &'static str, path: &str) {
        let from = self.at();
        assert_eq!(self.server.try_post(path).unwrap().0, 204, "{what}");
        let to = self.at();
        self.watched.lock().unwrap().work.push((what, from, to));
    }

    fn look(&self, dir: &Path) {
        let samples = self.server.api("/api/v1/status/storage", &[])["partSamples"].as_f64().unwrap();
        let (parts, all) = (bytes_in(&dir.join("parts")), bytes_in(dir));
        let (log, reserve) = (bytes_in(&dir.join("wal")), bytes_of(&dir.join("BALLAST")));
        let (memory, at) = (memory(&self.server), self.at());
        let watched = &mut *self.watched.lock().unwrap();
        watched.memory.push((at, memory));
        if samples > 0.0 {
            watched.per_sample.push((at, parts / samples));
        }
        watched.besides.push((at, all - parts - log - reserve));
    }
}

impl Watched {
    /// What holds and what does not, and the figures.
    fn judge(mut self, length: f64) -> Vec<(bool, String)> {
        let quarter = |n: f64| n * length / 4.0;
        let mean = |all: &[Seen], from: f64| {
            let part: Vec<f64> = within(all, quarter(from), quarter(from + 1.0)).map(|(_, n)| n).collect();
            part.iter().sum::<f64>() / part.len().max(1) as f64
        };
        let last = |all: &[Seen]| all.last().map_or(f64::NAN, |(_, n)| *n);
        let (then, now) = (mean(&self.memory, 1.0), mean(&self.memory, 3.0));
        let slope = slope(&self.memory[self.memory.len() / 4..]) * 3600.0;
        let memory = (
            now <= then + (then / 10.0).max(16.0 * MIB),
            format!(
                "memory: {:.1} MiB in the second quarter, {:.1} in the last; {:+.1} MiB an hour",
                then / MIB,
                now / MIB,
                slope / MIB
            ),
        );
        let (then, now) = (mean(&self.per_sample, 1.0), last(&self.per_sample));
        let (besides_then, besides) = (mean(&self.besides, 1.0), last(&self.besides));
        let disk = (
            now <= then * 1.2 && besides <= besides_then + 4.0 * MIB,
            format!(
                "disk: {then:.2} bytes a sample in the second quarter, {now:.2} in the end; besides parts and log {:.1} \
                 MiB, then {:.1}",
                besides_then / MIB,
                besides / MIB
            ),
        );
        self.writes.retain(|(at, _)| *at >= quarter(1.0));
        self.queries.retain(|(at, _)| *at >= quarter(1.0));
        let (p50, p99) = (quantile(&mut self.writes, 0.5), quantile(&mut self.writes, 0.99));
        let writes = (
            p99 <= p50 * 5.0,
            format!(
                "writes: p50 {p50:.1} ms, p99 {p99:.1} ms, {:.1} times; beside the slowest of a hundred went on: {}",
                p99 / p50,
                self.beside_slow(p99)
            ),
        );
        let (p50, p99) = (quantile(&mut self.queries, 0.5), quantile(&mut self.queries, 0.99));
        let queries = (true, format!("queries: p50 {p50:.1} ms, p99 {p99:.1} ms; listed, not judged"));
        vec![memory, disk, writes, queries]
    }

    /// How many of the writes that took so long, and of all, were beside what.
    fn beside_slow(&self, slow: f64) -> String {
        let beside = |what: &str, (at, took): &Seen| {
            let end = at + took / 1000.0;
            self.work.iter().any(|(work, from, to)| *work == what && *from < end && *at < *to)
        };
        let share = |what: &str, all: &[&Seen]| {
            100.0 * all.iter().filter(|seen| beside(what, seen)).count() as f64 / all.len().max(1) as f64
        };
        let all: Vec<&Seen> = self.writes.iter().collect();
        let slow: Vec<&Seen> = self.writes.iter().filter(|(_, took)| *took >= slow).collect();
        let each = ["flush", "delete", "clean"].map(|what| {
            let (of_slow, of_all) = (share(what, &slow), share(what, &all));
            format!("{what} {of_slow:.0} % (of all {of_all:.0} %)")
        });
        each.join(", ")
    }
}

/// All series of a writer at one time.
fn scrape_of(writer: usize, scrape: u32, base: i64) -> Vec<u8> {
    let at = base + i64::from(scrape) * 15_000;
    let series: Vec<_> = (0..SERIES_PER_WRITER)
        .map(|i| {
            let generation =
                (SCRAPE * scrape + GENERATION / SERIES_PER_WRITER * i).as_millis() / GENERATION.as_millis();
            let labels = [
                ("__name__", "soak".to_owned()),
                ("generation", generation.to_string()),
                ("i", i.to_string()),
                ("writer", writer.to_string()),
            ];
            let value = f64::from(scrape) * f64::from(i % 7) + f64::from(i % 3);
            (labels.map(|(name, value)| (name.to_owned(), value)).to_vec(), vec![(at, value)])
        })
        .collect();
    remote_write(&series)
}

fn memory(server: &Server) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

/// The bytes of a file, none if it is not there.
fn bytes_of(path: &Path) -> f64 {
    std::fs::metadata(path).map_or(0.0, |meta| meta.len() as f64)
}

/// The bytes of all files below a directory.
fn bytes_in(dir: &Path) -> f64 {
    let mut bytes = 0.0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes += bytes_in(&entry.path()),
            Ok(meta) => bytes += meta.len() as f64,
            // Merged away meanwhile.
            Err(_) => {}
        }
    }
    bytes
}

fn within(all: &[Seen], from: f64, to: f64) -> impl Iterator<Item = Seen> {
    all.iter().copied().filter(move |(at, _)| from <= *at && *at < to)
}

/// By how much it grows in a second.
fn slope(all: &[Seen]) -> f64 {
    let n = all.len() as f64;
    let (x, y) = (all.iter().map(|p| p.0).sum::<f64>() / n, all.iter().map(|p| p.1).sum::<f64>() / n);
    let covariance: f64 = all.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    covariance / all.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}

fn quantile(all: &mut [Seen], q: f64) -> f64 {
    all.sort_unstable_by(|a, b| a.1.total_cmp(&b.1));
    let place =
        all.iter().enumerate().take_while(|(place, _)| (*place as f64) < all.len() as f64 * q).count();
    all.get(place).map_or(f64::NAN, |(_, n)| *n)
}
