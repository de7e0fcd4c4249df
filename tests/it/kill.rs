//! The server is killed again and again under load. After every start all that it ever acknowledged is there with
//! its value, nothing that was never written, and nothing that was deleted.

use std::{
    cmp,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    server::{Options, Server, now_ms, remote_write},
    torture,
};

/// Kills under load; `LUMINATE_TEST_KILLS` asks for more.
fn kills() -> i64 {
    std::env::var("LUMINATE_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

const WRITERS: usize = 4;
const SERIES_PER_WRITER: usize = 5;
const SERIES: usize = WRITERS * SERIES_PER_WRITER;
/// Each cycle has a second of the samples' time, and a writer writes at most once for each millisecond of it.
const CYCLE: i64 = 1000;
/// Deletes are cleaned up once in so many cycles.
const CLEANED: i64 = 10;

/// What is written and read back, cycle by cycle.
#[derive(Debug)]
struct Load {
    base: i64,
    cycle: i64,
    /// What each writer was told in this cycle: how often it wrote, and which of that was acknowledged.
    writers: Vec<Mutex<(i64, Vec<i64>)>>,
    /// Of the cycles before, how many samples each series has and what they add up to; what was in the air when the
    /// server was killed is there or not, and stays so.
    settled: Vec<(f64, f64)>,
    acknowledged: usize,
    lost: usize,
    phantoms: usize,
    /// What was left behind in cycles before this one is deleted.
    doomed: i64,
    starts: Vec<Duration>,
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let began = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    println!("seed {seed:#x}");
    let options = Options { quiet: true, ..Options::default() };
    let mut load = Load {
        base: now_ms() - 4 * 3_600_000,
        cycle: 0,
        writers: Vec::new(),
        settled: vec![(0.0, 0.0); SERIES],
        acknowledged: 0,
        lost: 0,
        phantoms: 0,
        doomed: 0,
        starts: Vec::new(),
    };
    for _ in 0..kills() {
        let server = load.start(dir.path(), &options);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        load.run_until_killed(&server, Duration::from_millis(seed >> 56));
        load.cycle += 1;
        drop(server);
        keep_two_snapshots(dir.path());
    }
    let server = load.start(dir.path(), &options);
    load.starts.sort_unstable();
    let slowest = load.starts[load.starts.len() * 99 / 100];
    println!(
        "{} kills, {} acknowledged requests of {SERIES_PER_WRITER} samples, {} lost, {} never written; \
         99 of 100 starts within {} ms",
        kills(),
        load.acknowledged,
        load.lost,
        load.phantoms,
        slowest.as_millis()
    );
    torture::tell("kill -9", kills(), load.lost + load.phantoms, 0, began.elapsed());
    assert_eq!((load.lost, load.phantoms), (0, 0));
    assert!(server.terminate().success());
    check_snapshots(dir.path(), &options, load.base);
}

impl Load {
    /// Starts the server, and holds what it has against what it acknowledged.
    fn start(&mut self, dir: &Path, options: &Options) -> Server {
        let before = Instant::now();
        let server = Server::start(dir, options);
        self.starts.push(before.elapsed());
        let status = server.api("/api/v1/status/storage", &[]);
        assert_eq!(status["quarantined"], serde_json::json!([]), "{status}");
        if self.cycle > 0 {
            self.settle(&server);
        }
        if self.cycle % 10 == 0 || self.cycle == kills() {
            self.check_settled(&server);
        }
        self.check_doomed(&server);
        server
    }

    fn end_of(&self, cycle: i64) -> i64 {
        self.base + (cycle + 1) * CYCLE - 1
    }

    /// Looks at the last cycle sample by sample.
    fn settle(&mut self, server: &Server) {
        let last = self.cycle - 1;
        let from = self.base + last * CYCLE;
        let found = query(server, &format!("kill[{CYCLE}ms]"), self.end_of(last));
        let mut all: Vec<Vec<(i64, f64)>> = vec![Vec::new(); SERIES];
        for series in found.as_array().unwrap() {
            let samples = series["values"].as_array().unwrap().iter().map(|pair| {
                let at = (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
                (at - from, pair[1].as_str().unwrap().parse().unwrap())
            });
            all[number_of(series)] = samples.collect();
        }
        for (writer, said) in std::mem::take(&mut self.writers).into_iter().enumerate() {
            let (offered, acknowledged) = said.into_inner().unwrap();
            self.acknowledged += acknowledged.len();
            let of_writer = all.iter().enumerate().skip(writer * SERIES_PER_WRITER).take(SERIES_PER_WRITER);
            for (series, found) in of_writer {
                let lost = |n: &&i64| found.binary_search_by_key(*n, |(at, _)| *at).is_err();
                let lost = acknowledged.iter().filter(lost).count();
                let written = |(n, value): &(i64, f64)| *n < offered && *value == (last * CYCLE + n) as f64;
                let phantoms = found.iter().filter(|sample| !written(sample)).count();
                if lost + phantoms > 0 {
                    println!(
                        "cycle {last}, writer {writer}, series {series}: {lost} lost, {phantoms} phantoms"
                    );
                }
                self.lost += lost;
                self.phantoms += phantoms;
                self.settled[series].0 += found.len() as f64;
                self.settled[series].1 += found.iter().map(|(_, value)| value).sum::<f64>();
            }
        }
    }

    /// Looks at all cycles before by what they add up to.
    fn check_settled(&mut self, server: &Server) {
        let mut found = vec![(0.0, 0.0); SERIES];
        let range = self.cycle.max(1) * CYCLE;
        for (function, of) in [("count_over_time", 0), ("sum_over_time", 1)] {
            let at = self.end_of(self.cycle.max(1) - 1);
            for series in query(server, &format!("{function}(kill[{range}ms])"), at).as_array().unwrap() {
                let value = series["value"][1].as_str().unwrap().parse().unwrap();
                let found = &mut found[number_of(series)];
                *(if of == 0 { &mut found.0 } else { &mut found.1 }) = value;
            }
        }
        for (series, (found, settled)) in found.iter().zip(&self.settled).enumerate() {
            if found != settled {
                println!("before cycle {}, series {series}: {found:?} instead of {settled:?}", self.cycle);
            }
            match found.0.total_cmp(&settled.0) {
                cmp::Ordering::Less => self.lost += 1,
                cmp::Ordering::Greater => self.phantoms += 1,
                cmp::Ordering::Equal => self.lost += usize::from(found.1.total_cmp(&settled.1).is_ne()),
            }
        }
    }

    /// Each cycle leaves a series behind, and deletes what those before have left.
    fn check_doomed(&mut self, server: &Server) {
        let range = (self.cycle + 1) * CYCLE;
        let found = query(server, &format!("count_over_time(doomed[{range}ms])"), self.end_of(self.cycle));
        let left: Vec<i64> = found.as_array().unwrap().iter().map(|s| label(s, "cycle")).collect();
        self.phantoms += left.iter().filter(|cycle| **cycle < self.doomed).count();
        // Nobody has asked to delete the last one.
        self.lost += usize::from(self.cycle > 0 && !left.contains(&(self.cycle - 1)));
        let labels = [("__name__", "doomed".to_owned()), ("cycle", self.cycle.to_string())];
        let labels = labels.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let samples = (0..3).map(|n| (self.base + self.cycle * CYCLE + n, 1.0)).collect();
        let (status, body) = server.try_write(&remote_write(&[(labels, samples)]), None).unwrap();
        assert_eq!(status, 204, "{body}");
    }

    /// Writes, reads, deletes, flushes, and kills the server a while after it has acknowledged something.
    fn run_until_killed(&mut self, server: &Server, wait: Duration) {
        let (stop, acknowledged, doomed) = (AtomicBool::new(false), AtomicI64::new(0), AtomicI64::new(0));
        self.writers = (0..WRITERS).map(|_| Mutex::default()).collect();
        let (load, cycle) = (&*self, self.cycle);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (stop, acknowledged) = (&stop, &acknowledged);
                scope.spawn(move || load.write(server, writer, stop, acknowledged));
            }
            scope.spawn(|| load.read(server, &stop));
            scope.spawn(|| {
                let end = seconds(load.end_of(cycle - 1));
                let path = format!("/api/v1/admin/tsdb/delete_series?match[]=doomed&end={end}");
                if server.try_post(&path).is_ok_and(|(status, _)| status == 204) {
                    doomed.store(cycle, Ordering::SeqCst);
                }
            });
            // Every other kill comes while, or shortly after, the head is flushed, or copied.
            let upkeep = match cycle % 4 {
                1 => "/api/v1/admin/tsdb/flush",
                3 => "/api/v1/admin/tsdb/snapshot",
                _ => "",
            };
            let upkeep =
                if cycle % CLEANED == CLEANED - 1 { "/api/v1/admin/tsdb/clean_tombstones" } else { upkeep };
            if !upkeep.is_empty() {
                let stop = &stop;
                scope.spawn(move || while !stop.load(Ordering::SeqCst) && server.try_post(upkeep).is_ok() {});
            }
            while acknowledged.load(Ordering::SeqCst) < 8 {
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(wait);
            server.kill();
            stop.store(true, Ordering::SeqCst);
        });
        self.doomed = self.doomed.max(doomed.into_inner());
    }

    fn write(&self, server: &Server, writer: usize, stop: &AtomicBool, acknowledged: &AtomicI64) {
        let said = &mut *self.writers[writer].lock().unwrap();
        while !stop.load(Ordering::SeqCst) && said.0 < CYCLE {
            let n = self.cycle * CYCLE + said.0;
            let series: Vec<_> = (0..SERIES_PER_WRITER)
                .map(|s| {
                    let series = (writer * SERIES_PER_WRITER + s).to_string();
                    let labels = [("__name__", "kill".to_owned()), ("series", series)];
                    let labels = labels.map(|(name, value)| (name.to_owned(), value)).to_vec();
                    (labels, vec![(self.base + n, n as f64)])
                })
                .collect();
            said.0 += 1;
            // An error is the kill; the sample may or may not be there, and was not promised.
            if let Ok((status, body)) = server.try_write(&remote_write(&series), None) {
                assert_eq!(status, 204, "{body}");
                said.1.push(said.0 - 1);
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Whoever reads meanwhile never sees less than before.
    fn read(&self, server: &Server, stop: &AtomicBool) {
        let query = format!(
            "/api/v1/query?query=sum(count_over_time(kill[{CYCLE}ms]))&time={}",
            seconds(self.end_of(self.cycle))
        );
        let mut before = 0.0;
        while !stop.load(Ordering::SeqCst) {
            let Ok((status, body)) = server.try_get(&query) else { return };
            assert_eq!(status, 200, "{body}");
            let Ok(answer) = serde_json::from_str::<Value>(&body) else { return };
            let count = answer["data"]["result"][0]["value"][1].as_str().map_or(0.0, |n| n.parse().unwrap());
            assert!(before <= count, "{count} samples after {before}");
            before = count;
        }
    }
}

fn query(server: &Server, query: &str, at: i64) -> Value {
    server.api("/api/v1/query", &[("query", query), ("time", &seconds(at))])["result"].clone()
}

fn label(series: &Value, name: &str) -> i64 {
    series["metric"][name].as_str().unwrap().parse().unwrap()
}

fn number_of(series: &Value) -> usize {
    usize::try_from(label(series, "series")).unwrap()
}

fn snapshots(dir: &Path) -> Vec<std::path::PathBuf> {
    let Ok(all) = std::fs::read_dir(dir.join("snapshots")) else { return Vec::new() };
    let mut all: Vec<_> = all.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// So that thousands of them do not lie there.
fn keep_two_snapshots(dir: &Path) {
    let whole: Vec<_> = snapshots(dir).into_iter().filter(|path| path.extension().is_none()).collect();
    for old in whole.iter().rev().skip(2) {
        std::fs::remove_dir_all(old).unwrap();
    }
}

/// A snapshot that has its name is whole, and others are gone.
fn check_snapshots(dir: &Path, options: &Options, base: i64) {
    let snapshots = snapshots(dir);
    assert!(snapshots.iter().all(|path| path.extension().is_none()), "{snapshots:?}");
    for snapshot in &snapshots {
        let copy = Server::start(snapshot, options);
        let status = copy.api("/api/v1/status/storage", &[]);
        assert_eq!(status["quarantined"], serde_json::json!([]), "{status}");
        let found = query(&copy, "count_over_time(kill[5h])", base + 4 * 3_600_000);
        assert_eq!(found.as_array().unwrap().len(), SERIES, "{found}");
        assert!(copy.terminate().success());
    }
}

/// What the next start says of the end of the last.
fn was_unclean(server: &Server) -> bool {
    server.get("/metrics").1.lines().any(|line| line == "luminate_recovery_unclean 1.0")
}

#[test]
fn only_who_was_killed_ended_unclean() {
    let dir = tempfile::tempdir().unwrap();
    let start = |options: Options| Server::start(dir.path(), &options);
    assert!(start(Options::default()).terminate().success());
    // One that cannot start with its configuration has held the store, too.
    let lame = Options::default().env("LUMINATE_LIMITS__OVERRIDES_FILE", "/nowhere/overrides.yaml");
    assert!(!Server::spawn(dir.path(), &lame).wait().success());
    let server = start(Options::default());
    assert!(!was_unclean(&server));
    server.kill();
    drop(server);
    assert!(was_unclean(&start(Options::default())));
}

fn seconds(millis: i64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}
