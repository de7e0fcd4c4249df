//! The server is killed again and again under load; every sample it acknowledged is there afterwards.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::server::{Options, Server, now_ms, remote_write};

/// Kills under load; `LUMINATE_TEST_KILLS` asks for more.
fn kills() -> usize {
    std::env::var("LUMINATE_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(50)
}

const WRITERS: usize = 4;
const SERIES_PER_WRITER: usize = 5;

/// What one writer knows: the next sequence number, and all numbers that were acknowledged.
#[derive(Debug, Default)]
struct Writer {
    next: i64,
    acknowledged: Vec<i64>,
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let base = now_ms() - 3 * 3_600_000;
    let writers: Vec<Arc<Mutex<Writer>>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    println!("seed {seed:#x}");
    let options = Options::default().env("LUMINATE_LOG__LEVEL", "error");
    for round in 0..kills() {
        let server = Server::start(dir.path(), &options);
        let (stop, acknowledged) = (AtomicBool::new(false), AtomicI64::new(0));
        std::thread::scope(|scope| {
            for (number, writer) in writers.iter().enumerate() {
                let (server, stop, acknowledged) = (&server, &stop, &acknowledged);
                scope.spawn(move || {
                    write_until_stopped(server, number, &mut writer.lock().unwrap(), base, stop, acknowledged)
                });
            }
            if round % 3 == 1 {
                // Every third kill comes while, or shortly after, the head is flushed.
                let (server, stop) = (&server, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::SeqCst) && server.try_post("/api/v1/admin/tsdb/flush").is_ok()
                    {
                    }
                });
            }
            if round % 3 == 2 {
                // And every other third while snapshots are made.
                let (server, stop) = (&server, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::SeqCst)
                        && server.try_post("/api/v1/admin/tsdb/snapshot").is_ok()
                    {}
                });
            }
            while acknowledged.load(Ordering::SeqCst) < 8 {
                std::thread::sleep(Duration::from_millis(2));
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis(seed >> 56));
            server.kill();
            stop.store(true, Ordering::SeqCst);
        });
    }
    let server = Server::start(dir.path(), &options);
    let mut total = 0;
    for (number, writer) in writers.iter().enumerate() {
        let writer = writer.lock().unwrap();
        total += writer.acknowledged.len();
        for series in 0..SERIES_PER_WRITER {
            let found = server.api(
                "/api/v1/query",
                &[
                    ("query", &format!(r#"kill{{w="{number}",s="{series}"}}[5h]"#)),
                    ("time", &seconds(base + 4 * 3_600_000)),
                ],
            );
            let values =
                found["result"][0]["values"].as_array().unwrap_or_else(|| panic!("writer {number}: {found}"));
            let found: std::collections::BTreeMap<i64, f64> = values
                .iter()
                .map(|pair| {
                    (
                        (pair[0].as_f64().unwrap() * 1000.0).round() as i64,
                        pair[1].as_str().unwrap().parse().unwrap(),
                    )
                })
                .collect();
            for sequence in &writer.acknowledged {
                assert_eq!(
                    found.get(&(base + sequence)),
                    Some(&(*sequence as f64)),
                    "writer {number}, series {series}: acknowledged sample {sequence} of {} is lost",
                    writer.acknowledged.len()
                );
            }
        }
    }
    println!("{} kills, {total} acknowledged requests of {SERIES_PER_WRITER} samples, 0 lost", kills());
    assert!(server.terminate().success());
    // A snapshot that has its name is whole, and others are gone.
    let mut snapshots: Vec<_> =
        std::fs::read_dir(dir.path().join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    snapshots.sort();
    assert!(snapshots.iter().all(|path| path.extension().is_none()), "{snapshots:?}");
    for snapshot in [snapshots.first().unwrap(), snapshots.last().unwrap()] {
        let copy = Server::start(snapshot, &options);
        let status = copy.api("/api/v1/status/storage", &[]);
        assert_eq!(status["quarantined"], serde_json::json!([]), "{status}");
        let time = seconds(base + 4 * 3_600_000);
        let found = copy.api("/api/v1/query", &[("query", "count_over_time(kill[5h])"), ("time", &time)]);
        let counts: Vec<u64> = found["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(|series| series["value"][1].as_str().unwrap().parse().unwrap())
            .collect();
        assert!(!counts.is_empty() && counts.iter().all(|count| *count > 0), "{found}");
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

fn write_until_stopped(
    server: &Server,
    number: usize,
    writer: &mut Writer,
    base: i64,
    stop: &AtomicBool,
    acknowledged: &AtomicI64,
) {
    while !stop.load(Ordering::SeqCst) {
        let sequence = writer.next;
        writer.next += 1;
        let labels = |series: usize| {
            [("__name__", "kill".to_owned()), ("s", series.to_string()), ("w", number.to_string())]
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec()
        };
        let series: Vec<_> =
            (0..SERIES_PER_WRITER).map(|s| (labels(s), vec![(base + sequence, sequence as f64)])).collect();
        // An error is the kill; the sample may or may not be there, and was not promised.
        if let Ok((status, body)) = server.try_write(&remote_write(&series), None) {
            assert_eq!(status, 204, "{body}");
            writer.acknowledged.push(sequence);
            acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn seconds(millis: i64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}
