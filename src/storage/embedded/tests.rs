//! The whole engine: the contract, crashes at any place, damage in any file, and a model.

mod active;
mod backups;
mod crashes;
mod downsampling;
mod keeping;
mod lookups;
mod memory;
mod mending;
mod merges;
mod model;
mod passing;
mod power;
mod repairs;
mod replays;
mod snapshots;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    EmbeddedConfig, EmbeddedStore, disk::Disk, engine::Engine, faults::FaultyDisk, head::append::Begin,
};
use crate::{
    clock::{Clock, HandClock},
    model::{Labels, TenantId, TimeRange, Timestamp},
    storage::{
        BatchSample, Result, SelectHere, SelectRequest, Storage, StorageError, WriteBatch,
        conformance::{self, Backend, NOW, Settles, Upheaval, read_all},
        embedded::disk::SystemDisk,
    },
};

/// A small store: everything that happens at some size happens soon.
fn small(dir: &Path) -> EmbeddedConfig {
    EmbeddedConfig {
        segment_bytes: 1 << 16,
        ballast_bytes: 1 << 16,
        merge_at: 4,
        retention: Some(Duration::from_secs(30 * 86_400)),
        ..EmbeddedConfig::new(dir)
    }
}

fn clock() -> Arc<dyn Clock> {
    HandClock::at(NOW)
}

fn system() -> Arc<dyn Disk> {
    Arc::new(SystemDisk)
}

/// Opens a store that nobody has open.
fn open(dir: &Path) -> Result<Arc<EmbeddedStore>> {
    once_free(|| EmbeddedStore::open(small(dir), system(), clock()))
}

fn open_on(dir: &Path, disk: &Arc<FaultyDisk>) -> Result<Arc<EmbeddedStore>> {
    let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(disk);
    once_free(|| EmbeddedStore::open(small(dir), Arc::clone(&disk), clock()))
}

/// Does something with a directory as soon as it is free: a store that was dropped there without being closed may still
/// be at its last piece of upkeep.
fn once_free<T>(mut act: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..60_000 {
        match act() {
            Err(e) if e.to_string().contains("in use") => std::thread::sleep(Duration::from_millis(1)),
            other => return other,
        }
    }
    act()
}

/// Does something again and again, and each time the power goes, or the disk fails, one change later, until it gets through:
/// `life` is told after how many changes (2 is before the first), and says whether it did.
async fn until_survived(mut life: impl AsyncFnMut(u64) -> bool) {
    for cut in 2..400 {
        if life(cut).await {
            return;
        }
    }
    panic!("the last cut is after everything");
}

/// One line of the table of `make torture`: what was tried how often, what was lost, and what did not open.
#[expect(clippy::print_stdout, reason = "tests/torture reads it")]
fn tell(test: &str, tried: usize, lost: usize, failed: usize, took: Duration) {
    println!("torture\t{test}\t{tried}\t{lost}\t{failed}\t{} s", took.as_secs());
}

/// Copies a directory as a process that dies at this moment leaves it.
pub(super) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else if let Err(e) = std::fs::copy(entry.path(), &target) {
            // A file that is removed at this moment may be missing, as after a crash.
            assert_eq!(e.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn tenant() -> TenantId {
    TenantId::anonymous()
}

/// A time shortly before now.
fn at(seconds: i64) -> i64 {
    NOW.0 - 3_600_000 + seconds * 1000
}

fn batch(series: &[Labels], samples: &[(u32, i64, f64)]) -> WriteBatch {
    let mut batch = WriteBatch::over(series.to_vec());
    batch.samples = samples
        .iter()
        .map(|(s, t, v)| BatchSample { series: *s, timestamp: Timestamp(*t), value: *v, start: 0 })
        .collect();
    batch
}

async fn write(store: &EmbeddedStore, series: &Labels, samples: &[(i64, f64)]) -> Result<()> {
    let samples: Vec<(u32, i64, f64)> = samples.iter().map(|(t, v)| (0, *t, *v)).collect();
    store.append(&tenant(), batch(std::slice::from_ref(series), &samples)).await.map(|_| ())
}

async fn everything(store: &EmbeddedStore) -> Vec<(Labels, Vec<(i64, u64)>)> {
    let all = read_all(store, &tenant(), SelectRequest::new(vec![], TimeRange::ALL)).await;
    all.into_iter()
        .map(|(l, s)| (l, s.timestamps.iter().zip(&s.values).map(|(t, v)| (*t, v.to_bits())).collect()))
        .collect()
}

/// The engine as the contract's suite opens it.
#[derive(Debug)]
struct Embedded {
    merge_at: usize,
    dirs: parking_lot::Mutex<Vec<tempfile::TempDir>>,
}

#[async_trait]
impl Backend for Embedded {
    async fn open(&self) -> Arc<dyn Storage> {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { merge_at: self.merge_at, ..small(dir.path()) };
        self.dirs.lock().push(dir);
        EmbeddedStore::open(config, Arc::new(SystemDisk), clock()).unwrap()
    }

    fn upheavals(&self) -> &[Upheaval] {
        &[Upheaval::None, Upheaval::Flush, Upheaval::Restart, Upheaval::Kill]
    }

    async fn upheave(&self, store: Arc<dyn Storage>, upheaval: Upheaval) -> Arc<dyn Storage> {
        let dir = self.dirs.lock().last().unwrap().path().to_owned();
        match upheaval {
            Upheaval::None => return store,
            Upheaval::Flush => {
                store.flush().await.unwrap();
                return store;
            }
            Upheaval::Restart => {
                store.close().await.unwrap();
                drop(store);
                let config = EmbeddedConfig { merge_at: self.merge_at, ..small(&dir) };
                return EmbeddedStore::open(config, Arc::new(SystemDisk), clock()).unwrap();
            }
            Upheaval::Kill => {}
        }
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&dir, copy.path());
        let config = EmbeddedConfig { merge_at: self.merge_at, ..small(copy.path()) };
        self.dirs.lock().push(copy);
        EmbeddedStore::open(config, Arc::new(SystemDisk), clock()).unwrap()
    }

    fn settles(&self) -> Settles {
        Settles::Last
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_keeps_the_contract() {
    for merge_at in [2, 8] {
        conformance::check(&Embedded { merge_at, dirs: parking_lot::Mutex::default() }).await;
    }
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_a_closed_store_answers_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let error = EmbeddedStore::open(small(dir.path()), system(), clock()).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    store.close().await.unwrap();
    assert!(write(&store, &labels(&[("a", "b")]), &[(at(0), 1.0)]).await.is_err());
    assert!(store.select(&tenant(), SelectRequest::new(vec![], TimeRange::ALL)).await.is_err());
    assert!(store.flush().await.is_err());
    store.close().await.unwrap();
    drop(store);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_start_tells_whether_the_last_stop_was_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let was_unclean = |store: &EmbeddedStore| store.counters().unclean_start.load(Ordering::Relaxed) == 1;
    let first = open(dir.path()).unwrap();
    assert!(!was_unclean(&first), "nobody was there before");
    // What a process leaves that is killed now.
    let killed = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), killed.path());
    first.close().await.unwrap();
    drop(first);
    assert!(!was_unclean(&open(dir.path()).unwrap()));
    assert!(was_unclean(&open(killed.path()).unwrap()));
}

#[tokio::test]
async fn fsyncs_are_counted_by_how_long_they_took() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    write(&store, &labels(&[("__name__", "a")]), &[(at(0), 1.0)]).await.unwrap();
    let counters = store.counters();
    let fsyncs = counters.wal_fsyncs.load(Ordering::Relaxed);
    assert!(fsyncs > 0);
    assert_eq!(counters.wal_fsync_latency.counts().iter().sum::<u64>(), fsyncs);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_batch_that_names_a_series_it_does_not_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let error = store.append(&tenant(), batch(&[labels(&[("a", "b")])], &[(1, at(0), 1.0)])).await;
    assert_eq!(error.unwrap_err().to_string(), "a batch of 1 series names series number 1");
}

#[tokio::test]
async fn samples_anywhere_in_time_are_kept_without_a_part_for_each_day() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { retention: None, ..small(dir.path()) };
    let store = EmbeddedStore::open(config, Arc::new(SystemDisk), clock()).unwrap();
    let series = labels(&[("a", "b")]);
    let mut times = vec![i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    times.extend((0..1000).map(|i| i * 400 * 86_400_000));
    times.sort_unstable();
    times.dedup();
    let samples: Vec<(i64, f64)> = times.iter().map(|t| (*t, 1.0)).collect();
    write(&store, &series, &samples).await.unwrap();
    for _ in 0..2 {
        let all = everything(&store).await;
        assert_eq!(all[0].1.iter().map(|(t, _)| *t).collect::<Vec<_>>(), times);
        store.flush().await.unwrap();
    }
    assert!(store.status().await.unwrap().parts <= 64);
}

#[tokio::test]
async fn retention_removes_parts_and_hides_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let clock: Arc<dyn Clock> = Arc::<HandClock>::clone(&hand);
    let store = EmbeddedStore::open(small(dir.path()), Arc::new(SystemDisk), clock).unwrap();
    let series = labels(&[("a", "b")]);
    let day = 86_400_000;
    write(&store, &series, &[(NOW.0 - 20 * day, 1.0), (NOW.0 - day, 2.0), (NOW.0 - day + 5000, 3.0)])
        .await
        .unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.status().await.unwrap().parts, 2);
    hand.advance(Duration::from_millis(29 * day.cast_unsigned() + 1));
    store.enforce_retention().await.unwrap();
    assert_eq!(store.status().await.unwrap().parts, 1);
    assert_eq!(everything(&store).await[0].1, [(NOW.0 - day + 5000, 3.0_f64.to_bits())]);
    drop(store);
    let clock: Arc<dyn Clock> = Arc::<HandClock>::clone(&hand);
    let store = EmbeddedStore::open(small(dir.path()), Arc::new(SystemDisk), clock).unwrap();
    assert_eq!(everything(&store).await[0].1, [(NOW.0 - day + 5000, 3.0_f64.to_bits())]);
    assert_eq!(store.status().await.unwrap().quarantined, Vec::<String>::new());
}

#[tokio::test]
async fn active_series_stay_known_after_a_flush_and_idle_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let (active, idle) = (labels(&[("a", "1")]), labels(&[("a", "2")]));
    write(&store, &active, &[(at(3600), 1.0)]).await.unwrap();
    write(&store, &idle, &[(at(0), 1.0)]).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.status().await.unwrap().active_series, 1);
    write(&store, &active, &[(at(3601), 2.0)]).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    let again = open(copy.path()).unwrap();
    assert_eq!(everything(&again).await[0].1.len(), 2, "a series that stayed known is in the new log");
    store.flush().await.unwrap();
    store.flush().await.unwrap();
    write(&store, &idle, &[(at(7200), 1.0)]).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.status().await.unwrap().active_series, 1);
}

#[tokio::test]
async fn parts_of_a_day_are_merged_and_the_newest_value_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let series: Vec<Labels> = (0..10).map(|i| labels(&[("i", &i.to_string())])).collect();
    for round in 0..20_u32 {
        let samples: Vec<(u32, i64, f64)> = (0..10)
            .flat_map(|s| [(s, at(7), f64::from(round)), (s, at(100 + i64::from(round)), 1.0)])
            .collect();
        store.append(&tenant(), batch(&series, &samples)).await.unwrap();
        store.flush().await.unwrap();
    }
    let status = store.status().await.unwrap();
    assert!(status.parts < 8, "{}", status.parts);
    let files = walk(&dir.path().join("parts"));
    assert_eq!(files.len() as u64, status.parts, "what was merged is removed: {files:?}");
    let check = async |store: &EmbeddedStore| {
        let all = everything(store).await;
        assert_eq!(all.len(), 10);
        for (_, samples) in all {
            assert_eq!(samples.len(), 21);
            assert_eq!(samples[0], (at(7), 19.0_f64.to_bits()));
        }
    };
    check(&store).await;
    drop(store);
    check(open(dir.path()).unwrap().as_ref()).await;
}

/// Every file below a directory.
fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(walk(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

fn append_now(engine: &Engine, batch: WriteBatch) -> Result<()> {
    engine.append(&tenant(), batch, Begin::All)?.1.block()
}

#[test]
fn series_that_stay_known_do_not_call_for_one_flush_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { head_bytes: 1 << 20, ..small(dir.path()) };
    let engine = Engine::open_at(config, Arc::new(SystemDisk), clock()).unwrap();
    let series: Vec<Labels> = (0..4500).map(|i| labels(&[("i", &i.to_string())])).collect();
    let scrape = |from: i64| (0..4500).map(|i| (i, at(from), 1.0)).collect::<Vec<_>>();
    append_now(&engine, batch(&series, &scrape(0))).unwrap();
    assert!(engine.flush_is_due());
    engine.flush().unwrap();
    append_now(&engine, batch(&series, &scrape(1))).unwrap();
    assert!(engine.gate.read().bytes() > 1 << 20, "the series alone fill the head");
    assert!(!engine.flush_is_due());
    // So many new ones that nothing is taken any more: then those that are idle have to go.
    let more: Vec<Labels> = (0..4500).map(|i| labels(&[("j", &i.to_string())])).collect();
    append_now(&engine, batch(&more, &scrape(2))).unwrap();
    let error = append_now(&engine, batch(&series, &scrape(3))).unwrap_err();
    assert!(matches!(error, StorageError::Overloaded { .. }), "{error}");
    for _ in 0..2 {
        assert!(engine.flush_is_due());
        engine.flush().unwrap();
    }
    append_now(&engine, batch(&series, &scrape(4))).unwrap();
    engine.close().unwrap();
}

#[test]
fn a_full_disk_calls_for_a_flush_and_one_that_failed_waits() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::over(Arc::new(SystemDisk));
    let hand = HandClock::at(NOW);
    let clock: Arc<dyn Clock> = Arc::<HandClock>::clone(&hand);
    let engine =
        Engine::open_at(small(dir.path()), Arc::<FaultyDisk>::clone(&disk) as Arc<dyn Disk>, clock).unwrap();
    let one = |i: i64| batch(&[labels(&[("a", "b")])], &[(0, at(i), 1.0)]);
    append_now(&engine, one(0)).unwrap();
    assert!(!engine.flush_is_due());
    disk.full.store(true, std::sync::atomic::Ordering::SeqCst);
    let refused = (1..100_000).find_map(|i| append_now(&engine, one(i)).err()).unwrap();
    assert!(matches!(refused, StorageError::DiskFull { .. }), "{refused}");
    assert!(engine.flush_is_due());
    assert!(engine.flush().is_err());
    assert!(!engine.flush_is_due());
    hand.advance(Duration::from_secs(5));
    assert!(engine.flush_is_due());
    engine.close().unwrap();
}

#[tokio::test]
async fn who_does_not_wait_any_more_stops_a_select() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let series: Vec<Labels> = (0..2_000)
        .map(|i| Labels::from_pairs([("__name__", "m"), ("i", format!("{i:04}").as_str())]).unwrap())
        .collect();
    let samples: Vec<(u32, i64, f64)> = (0..2_000).map(|i| (i, at(0), 1.0)).collect();
    store.append(&tenant(), batch(&series, &samples)).await.unwrap();
    let request = SelectRequest::new(vec![], TimeRange::ALL);
    for _ in ["in the head", "in a part"] {
        let looks = std::sync::atomic::AtomicUsize::new(0);
        let on_the_third = || looks.fetch_add(1, Ordering::Relaxed) == 2;
        let stopped = store.select_here(&tenant(), &request, &on_the_third);
        assert!(matches!(stopped, Err(StorageError::Stopped)), "{stopped:?}");
        assert_eq!(looks.into_inner(), 3);
        assert_eq!(store.select_here(&tenant(), &request, &|| false).unwrap().series.len(), 2_000);
        store.flush().await.unwrap();
    }
}
