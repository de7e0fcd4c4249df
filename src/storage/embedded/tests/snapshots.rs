//! Snapshots: whole or not there, whatever happens meanwhile.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicI64, Ordering::SeqCst},
};

use super::*;
use crate::storage::{
    BatchExemplar, DocumentKind,
    embedded::{
        catalog::ledger::{self, LEDGER},
        memory_disk::MemoryDisk,
        part::Part,
    },
};

fn series(i: usize) -> Labels {
    labels(&[("__name__", "m"), ("i", &format!("{i:02}"))])
}

/// Something of everything, part of it flushed.
async fn furnish(store: &EmbeddedStore) {
    for round in 0..2_i64 {
        let mut batch = batch(&[series(1), series(2)], &[(0, at(round), 1.0), (1, at(round), 2.0)]);
        batch.metadata = vec![crate::model::Metadata {
            metric: "m".to_owned(),
            kind: crate::model::MetricType::Gauge,
            help: round.to_string(),
            unit: String::new(),
        }];
        batch.exemplars = vec![BatchExemplar {
            series: 0,
            exemplar: crate::model::Exemplar {
                labels: labels(&[("trace_id", &round.to_string())]),
                value: 1.0,
                timestamp: Timestamp(at(round)),
            },
        }];
        store.append(&tenant(), batch).await.unwrap();
        if round == 0 {
            store.flush().await.unwrap();
        }
    }
    store.put_document(&tenant(), DocumentKind::Limits, Some("{}".to_owned())).await.unwrap();
    let sets = vec![vec![crate::model::Matcher::equal("i", "02")]];
    store.delete(&tenant(), sets, TimeRange::ALL).await.unwrap();
}

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let Ok(all) = std::fs::read_dir(dir.join("snapshots")) else { return Vec::new() };
    let mut all: Vec<PathBuf> = all.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_a_store_that_has_everything_written_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    furnish(&store).await;
    let without_head = store.snapshot(true).await.unwrap();
    let whole = store.snapshot(false).await.unwrap();
    assert_eq!(snapshots(dir.path()).len(), 2);
    let shared = store.status().await.unwrap().disk_bytes;
    let of = |bytes: &[(&str, u64)], kind: &str| bytes.iter().find(|(k, _)| *k == kind).unwrap().1;
    assert!(of(&shared, "snapshots") < 4096, "parts have two names and take their space once: {shared:?}");
    // What happens afterwards is not in it.
    write(&store, &series(3), &[(at(9), 1.0)]).await.unwrap();
    store.clean_tombstones(&tenant()).await.unwrap();
    store.delete(&tenant(), vec![], TimeRange::ALL).await.unwrap();
    store.flush().await.unwrap();
    store.clean_tombstones(&tenant()).await.unwrap();
    let held = store.status().await.unwrap().disk_bytes;
    assert!(of(&held, "snapshots") > of(&shared, "snapshots"), "{held:?}");
    for (name, samples) in [(whole, 2), (without_head, 1)] {
        let copy = open(&dir.path().join("snapshots").join(&name)).unwrap();
        let all = everything(&copy).await;
        assert_eq!(all.len(), 1, "{name}: what was deleted is hidden");
        let expect: Vec<(i64, u64)> = (0..samples).map(|i| (at(i), 1.0_f64.to_bits())).collect();
        assert_eq!(all[0], (series(1), expect), "{name}");
        assert_eq!(copy.metadata(&tenant(), None).await.unwrap()[0].help, "1", "{name}");
        assert_eq!(copy.exemplars(&tenant(), vec![], TimeRange::ALL).await.unwrap()[0].exemplars.len(), 2);
        let documents = copy.documents(DocumentKind::Limits).await.unwrap();
        assert_eq!(documents, [(tenant(), "{}".to_owned())], "{name}");
        assert_eq!(copy.status().await.unwrap().quarantined, Vec::<String>::new(), "{name}");
        // It is one to work with.
        write(&copy, &series(4), &[(at(11), 1.0)]).await.unwrap();
        copy.flush().await.unwrap();
        copy.clean_tombstones(&tenant()).await.unwrap();
        assert_eq!(everything(&copy).await.len(), 2, "{name}");
        copy.close().await.unwrap();
    }
    assert_eq!(everything(&store).await.len(), 0);
    store.close().await.unwrap();
    let closed = store.snapshot(false).await.unwrap_err();
    assert!(closed.to_string().contains("closed"), "{closed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_before_is_in_a_snapshot_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let acknowledged: Arc<Vec<AtomicI64>> = Arc::new((0..3).map(|_| AtomicI64::new(-1)).collect());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|i| {
            let (store, acknowledged, stop) =
                (Arc::clone(&store), Arc::clone(&acknowledged), Arc::clone(&stop));
            crate::task::spawn("snapshot-writer", async move {
                for k in 0.. {
                    if stop.load(SeqCst) {
                        break;
                    }
                    write(&store, &series(i), &[(at(k), 1.0)]).await.unwrap();
                    acknowledged[i].store(k, SeqCst);
                }
            })
        })
        .collect();
    let mut made = Vec::new();
    for round in 0..6 {
        // Some of it is there in each.
        while acknowledged.iter().any(|last| last.load(SeqCst) < round * 5) {
            tokio::task::yield_now().await;
        }
        let before: Vec<i64> = acknowledged.iter().map(|last| last.load(SeqCst)).collect();
        made.push((store.snapshot(false).await.unwrap(), before));
    }
    stop.store(true, SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    for (name, before) in made {
        let copy = open(&dir.path().join("snapshots").join(&name)).unwrap();
        let all = everything(&copy).await;
        for (i, last) in before.into_iter().enumerate() {
            let (_, samples) = all.iter().find(|(labels, _)| *labels == series(i)).unwrap();
            assert!(
                i64::try_from(samples.len()).unwrap() > last,
                "{name}: {} of {last} samples",
                samples.len()
            );
            let times: Vec<i64> = samples.iter().map(|(t, _)| *t).collect();
            let expect: Vec<i64> = (0..).take(times.len()).map(at).collect();
            assert_eq!(times, expect, "{name}: none is missing in between");
        }
        copy.close().await.unwrap();
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_cut_off_leaves_no_half_of_it() {
    until_survived(async |cut| {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::over(Arc::new(SystemDisk));
        let store = open_on(dir.path(), &disk).unwrap();
        furnish(&store).await;
        let all = everything(&store).await;
        disk.power.store(cut, SeqCst);
        let made = store.snapshot(false).await;
        let survived = disk.power.load(SeqCst) > 1;
        disk.power.store(1, SeqCst);
        drop(store);
        let store = open(dir.path()).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        assert_eq!(everything(&store).await, all, "cut at {cut}");
        let found = snapshots(dir.path());
        assert!(made.is_err() || found.len() == 1, "cut at {cut}: {found:?}");
        for snapshot in found {
            let copy =
                open(&snapshot).unwrap_or_else(|e| panic!("cut at {cut}: {}: {e}", snapshot.display()));
            assert_eq!(everything(&copy).await, all, "cut at {cut}: {}", snapshot.display());
            copy.close().await.unwrap();
        }
        store.close().await.unwrap();
        survived
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_has_its_name_survives_a_power_cut_whole() {
    until_survived(async |cut| {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new(dir.path(), super::super::catalog::CATALOG);
        let disk = FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>);
        let store = open_on(dir.path(), &disk).unwrap();
        furnish(&store).await;
        disk.power.store(cut, SeqCst);
        let made = store.snapshot(false).await;
        let survived = disk.power.load(SeqCst) > 1;
        disk.power.store(1, SeqCst);
        drop(store);
        memory.lose_power();
        let store =
            open_on(dir.path(), &FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>));
        let store = store.unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        let disk: Arc<dyn Disk> = Arc::clone(&memory) as Arc<dyn Disk>;
        let found = disk.list(&dir.path().join("snapshots")).unwrap();
        assert!(made.is_err() || found.len() == 1, "cut at {cut}: {found:?}");
        for snapshot in found {
            let snapshot = dir.path().join("snapshots").join(snapshot.name);
            let mut samples = 0;
            for day in disk.list(&snapshot.join("parts")).unwrap() {
                for file in disk.list(&snapshot.join("parts").join(&day.name)).unwrap() {
                    let part = Part::open(&disk, &snapshot.join("parts").join(&day.name).join(file.name));
                    let part = part.unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
                    assert_eq!(part.examine(|_, _, _| Ok(())).unwrap(), [], "cut at {cut}");
                    samples += part.meta().samples;
                }
            }
            assert!(samples >= 4, "cut at {cut}: {samples} samples");
            let read = ledger::read(&disk, &snapshot.join(LEDGER)).unwrap().expect("there is a ledger");
            assert!(read.damage.is_empty() && read.ledger.tombstones.len() == 1, "cut at {cut}");
        }
        store.close().await.unwrap();
        survived
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_no_snapshot_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::over(Arc::new(SystemDisk));
    let store = open_on(dir.path(), &disk).unwrap();
    furnish(&store).await;
    store.flush().await.unwrap();
    disk.full.store(true, SeqCst);
    for skip_head in [true, false] {
        let error = store.snapshot(skip_head).await.unwrap_err();
        assert!(matches!(error, StorageError::DiskFull { .. }), "{error}");
    }
    assert_eq!(snapshots(dir.path()), Vec::<PathBuf>::new());
    disk.full.store(false, SeqCst);
    store.snapshot(true).await.unwrap();
    assert_eq!(snapshots(dir.path()).len(), 1);
    store.close().await.unwrap();
}
