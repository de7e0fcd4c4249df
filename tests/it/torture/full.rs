//! A disk that somebody else fills: writes are refused, reads go on, and when there is room again so do writes.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{note, tell};
use crate::server::{Options, Server, have, now_ms, remote_write};

/// Room for a segment of the log and another one, the reserve and some parts.
const SIZE: &str = "192m";
const WRITERS: usize = 3;

/// A small file system in memory; gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one, which only root may; says so loudly if that cannot be.
    fn mount() -> Option<Self> {
        if !have("mount") || !have("umount") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={SIZE},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "luminate-test"])
            .arg(dir.path())
            .output()
            .unwrap();
        if mounted.status.success() {
            return Some(Self(dir));
        }
        eprintln!(
            "\n=== SKIPPED: a small disk cannot be mounted: {} ===\n",
            String::from_utf8_lossy(&mounted.stderr)
        );
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, since the server may be about to end.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// What is written, and what was acknowledged.
#[derive(Debug, Default)]
struct Said {
    next: i64,
    acknowledged: Vec<i64>,
    /// How long the slowest refusal took.
    slowest: Duration,
}

#[test]
fn a_full_disk_refuses_writes_answers_reads_and_is_left_behind_unaided() {
    let began = Instant::now();
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path().join("data");
    let ballast = "8MiB";
    let options =
        Options { quiet: true, ..Options::default() }.env("LUMINATE_STORAGE__EMBEDDED__BALLAST", ballast);
    let base = now_ms() - 3 * 3_600_000;
    // The last one is ours, to see how the server is.
    let said: Vec<Mutex<Said>> = (0..=WRITERS).map(|_| Mutex::default()).collect();
    let server = Server::start(&data, &options);
    let rounds = 2;
    let mut recovered = Duration::ZERO;
    for _ in 0..rounds {
        let (stop, greedy) = (AtomicBool::new(false), AtomicBool::new(true));
        std::thread::scope(|scope| {
            let _end = End(&stop, &greedy);
            for (writer, said) in said[..WRITERS].iter().enumerate() {
                let (server, stop) = (&server, &stop);
                scope.spawn(move || write(server, writer, &mut said.lock().unwrap(), base, stop));
            }
            let filler = scope.spawn(|| fill(&disk.path().join("filler"), &greedy));
            let probe = || send(&server, WRITERS, &mut said[WRITERS].lock().unwrap(), base);
            // A flush takes a new segment, for which there is no room.
            let full = until(|| {
                let _ = server.try_post("/api/v1/admin/tsdb/flush");
                probe() != 204
            });
            assert!(full, "a full disk makes the server refuse writes");
            let (status, body) = server.get("/api/v1/query?query=count(count_over_time(full[4h]))");
            assert!(status == 200 && body.contains("\"value\""), "{status}: {body}");
            greedy.store(false, Ordering::SeqCst);
            let file = filler.join().unwrap();
            let freed = Instant::now();
            std::fs::remove_file(file).unwrap();
            assert!(until(|| probe() == 204), "with room again the server takes writes again");
            recovered = recovered.max(freed.elapsed());
        });
    }
    let mut lost = missing(&server, &said, base);
    server.kill();
    drop(server);
    let server = Server::start(&data, &options);
    lost += missing(&server, &said, base);
    let slowest = said.iter().map(|said| said.lock().unwrap().slowest).max().unwrap();
    note(
        "disk full",
        &format!(
            "the slowest refusal took {} ms, recovery {} ms",
            slowest.as_millis(),
            recovered.as_millis()
        ),
    );
    tell("disk full", rounds, lost, 0, began.elapsed());
    assert_eq!(lost, 0, "acknowledged samples are gone");
    assert!(server.terminate().success());
}

/// Ends all threads, also when something failed.
struct End<'a>(&'a AtomicBool, &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        self.1.store(false, Ordering::SeqCst);
    }
}

fn until(done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Takes all room there is, and all that is given back, until told to stop: the file that has it.
fn fill(path: &Path, greedy: &AtomicBool) -> PathBuf {
    let mut file = File::create(path).unwrap();
    let block = vec![1; 64 << 10];
    while greedy.load(Ordering::SeqCst) {
        if file.write(&block).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    path.to_owned()
}

fn write(server: &Server, writer: usize, said: &mut Said, base: i64, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        send(server, writer, said, base);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One write, of a number that is its time and its value: what it was answered.
fn send(server: &Server, writer: usize, said: &mut Said, base: i64) -> u16 {
    let n = said.next;
    said.next += 1;
    let labels = [("__name__", "full".to_owned()), ("writer", writer.to_string())];
    let labels = labels.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let before = Instant::now();
    let answer = server.try_write(&remote_write(&[(labels, vec![(base + n, n as f64)])]), None);
    let (status, body) = answer.expect("a full disk closes no connection");
    match status {
        204 => said.acknowledged.push(n),
        503 | 507 => said.slowest = said.slowest.max(before.elapsed()),
        _ => panic!("{status}: {body}"),
    }
    status
}

/// How many acknowledged samples are not there, or are others.
fn missing(server: &Server, said: &[Mutex<Said>], base: i64) -> usize {
    let found = server
        .api("/api/v1/query", &[("query", "full[4h]"), ("time", &((base / 1000 + 14_000).to_string()))]);
    let mut missing = 0;
    for series in found["result"].as_array().unwrap() {
        let writer: usize = series["metric"]["writer"].as_str().unwrap().parse().unwrap();
        let said = said[writer].lock().unwrap();
        let found: std::collections::BTreeMap<i64, f64> = series["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| {
                let at = (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
                (at - base, pair[1].as_str().unwrap().parse().unwrap())
            })
            .collect();
        missing += said.acknowledged.iter().filter(|n| found.get(n) != Some(&(**n as f64))).count();
        missing += found.keys().filter(|n| **n >= said.next).count();
    }
    missing + (said.len() - found["result"].as_array().unwrap().len())
}
