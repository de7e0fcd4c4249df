//! Damage: the power goes at any write, any byte of any file flips, files are gone, the disk is full.

use std::{path::PathBuf, sync::atomic::Ordering::SeqCst};

use super::*;
use crate::clock::SystemClock;
use crate::storage::Health;
use crate::storage::embedded::memory_disk::MemoryDisk;

/// In how many places of each file a bit flips.
fn flips() -> u64 {
    std::env::var("LUMINATE_TEST_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(23)
}

fn series(i: usize) -> Labels {
    labels(&[("__name__", "m"), ("i", &format!("{i:02}"))])
}

/// A store with parts of two days, a ledger, a catalog and a log, and what it holds.
pub(super) async fn furnished(dir: &Path) -> Vec<(Labels, Vec<(i64, u64)>)> {
    let store = open(dir).unwrap();
    for round in 0..3_i64 {
        let all: Vec<Labels> = (0..5).map(series).collect();
        let samples: Vec<(u32, i64, f64)> = (0..5_u32)
            .flat_map(|s| {
                (0..4_i64).map(move |i| (s, at(round * 40 + i * 10 - 86_400 * (i % 2)), f64::from(s)))
            })
            .collect();
        let mut batch = batch(&all, &samples);
        batch.metadata = vec![crate::model::Metadata {
            metric: "m".to_owned(),
            kind: crate::model::MetricType::Gauge,
            help: round.to_string(),
            unit: String::new(),
        }];
        store.append(&tenant(), batch).await.unwrap();
        if round < 2 {
            store.flush().await.unwrap();
        }
    }
    let limits = Some("{}".to_owned());
    store.put_document(&tenant(), crate::storage::DocumentKind::Limits, limits).await.unwrap();
    let hide = TimeRange::new(Timestamp(0), Timestamp(1)).unwrap();
    store.delete(&tenant(), vec![], hide).await.unwrap();
    everything(&store).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_file_is_damaged_the_store_opens_and_tells_and_serves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    let samples: usize = whole.iter().map(|(_, s)| s.len()).sum();
    let files: Vec<PathBuf> =
        walk(dir.path()).into_iter().filter(|f| !f.ends_with("BALLAST") && !f.ends_with("LOCK")).collect();
    assert!(files.len() >= 6, "{files:?}");
    let (clock, mut tried) = (SystemClock::start(), 0);
    for file in files {
        let length = std::fs::metadata(&file).unwrap().len();
        let name = file.strip_prefix(dir.path()).unwrap().to_owned();
        let step = (length / flips()).max(1);
        let mut places: Vec<u64> = (0..length).step_by(usize::try_from(step).unwrap()).collect();
        places.push(length.saturating_sub(1));
        for place in places {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let mut bytes = std::fs::read(copy.path().join(&name)).unwrap();
            let Some(byte) = bytes.get_mut(usize::try_from(place).unwrap()) else { continue };
            *byte ^= 1 << (place / step % 8);
            tried += 1;
            std::fs::write(copy.path().join(&name), bytes).unwrap();
            let store = open(copy.path()).unwrap_or_else(|e| panic!("{name:?} at {place}: {e}"));
            let request = || SelectRequest::new(vec![], TimeRange::ALL);
            for _ in 0..2 {
                let selected = store.select(&tenant(), request()).await.unwrap();
                let crate::storage::Runs::SeriesMajor(reader) = selected.runs else { panic!("series major") };
                let mut found = 0;
                for (i, labels) in selected.series.iter().enumerate() {
                    let mut samples = crate::storage::SeriesSamples::default();
                    reader.read(i, &mut samples).unwrap_or_else(|e| panic!("{name:?} at {place}: {e}"));
                    found += samples.len();
                    let expect = &whole.iter().find(|(l, _)| l == labels).unwrap().1;
                    for (t, v) in samples.timestamps.iter().zip(&samples.values) {
                        assert!(expect.contains(&(*t, v.to_bits())), "{name:?} at {place}: {labels} {t} {v}");
                    }
                }
                // The first to meet a bad page is told after reading, those after him before.
                let told = !reader.warnings().is_empty() || !selected.warnings.is_empty();
                assert!(found == samples || told, "{name:?} at {place}: {found} of {samples}");
                if name.starts_with(super::super::catalog::CATALOG)
                    || name.ends_with("LEDGER")
                    || name.ends_with("SUPERBLOCK")
                {
                    assert_eq!(found, samples, "{name:?} at {place}");
                    let metadata = store.metadata(&tenant(), None).await.unwrap();
                    assert_eq!(metadata[0].help, "2", "{name:?} at {place}");
                }
            }
            let kept = store.documents(crate::storage::DocumentKind::Limits).await.unwrap()
                == [(tenant(), "{}".to_owned())];
            let told = !store.status().await.unwrap().quarantined.is_empty();
            assert!(kept || told && name.ends_with("DOCUMENTS"), "{name:?} at {place}");
            store.flush().await.unwrap();
            store.close().await.unwrap();
        }
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        std::fs::remove_file(copy.path().join(&name)).unwrap();
        let store = open(copy.path()).unwrap_or_else(|e| panic!("{name:?} removed: {e}"));
        let found: usize = everything(&store).await.iter().map(|(_, s)| s.len()).sum();
        let told = !store.status().await.unwrap().quarantined.is_empty();
        assert!(
            found == samples || told || name.starts_with("wal") || name.ends_with("DOCUMENTS"),
            "{name:?} removed"
        );
    }
    tell("flipped bits", tried, 0, 0, clock.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_old_catalog_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    write(&store, &series(1), &[(at(1), 1.0)]).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let kv = super::super::catalog::CATALOG;
    copy_dir(&dir.path().join(kv), &old.path().join(kv));
    let whole = furnished(dir.path()).await;
    for case in ["gone", "old", "superblock gone", "ledger gone"] {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        match case {
            "superblock gone" => std::fs::remove_file(copy.path().join("SUPERBLOCK")).unwrap(),
            "ledger gone" => std::fs::remove_file(copy.path().join("LEDGER")).unwrap(),
            _ => {
                std::fs::remove_dir_all(copy.path().join(kv)).unwrap();
                if case == "old" {
                    copy_dir(&old.path().join(kv), &copy.path().join(kv));
                }
            }
        }
        for round in 0..3 {
            let store = open(copy.path()).unwrap();
            assert!(everything(&store).await == whole, "{case}, round {round}");
            assert_eq!(store.metadata(&tenant(), None).await.unwrap()[0].help, "2");
            assert_eq!(store.status().await.unwrap().quarantined, Vec::<String>::new(), "{case}");
            store.flush().await.unwrap();
            store.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_may_go_at_any_change_of_the_disk() {
    until_survived(async |cut| {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::over(Arc::new(SystemDisk));
        let mut acked = Vec::new();
        disk.power.store(cut, SeqCst);
        if let Ok(store) = open_on(dir.path(), &disk) {
            for i in 0..12_i64 {
                let which = series(usize::try_from(i % 3).unwrap());
                if write(&store, &which, &[(at(i), i as f64)]).await.is_ok() {
                    acked.push((which, at(i)));
                }
                if i % 4 == 3 {
                    let _ = store.flush().await;
                }
            }
            if cut % 3 == 0 {
                let _ = store.close().await;
            }
            drop(store);
        }
        let survived_all = disk.power.load(SeqCst) > 1;
        let store = open(dir.path()).unwrap_or_else(|e| panic!("power cut at {cut}: {e}"));
        let all = everything(&store).await;
        for (labels, t) in &acked {
            let found = all.iter().any(|(l, s)| l == labels && s.iter().any(|(at, _)| at == t));
            assert!(found, "power cut at {cut}: {labels} at {t} was acknowledged and is gone");
        }
        for (labels, samples) in &all {
            assert!(samples.is_sorted_by(|a, b| a.0 < b.0), "power cut at {cut}: {labels}");
        }
        write(&store, &series(7), &[(at(500), 1.0)]).await.unwrap();
        store.flush().await.unwrap();
        assert_eq!(everything(&store).await.len(), all.len() + 1);
        survived_all
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_synced_may_be_lost_and_nothing_acknowledged_is() {
    until_survived(async |cut| {
        let mut survived_all = false;
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new(dir.path(), super::super::catalog::CATALOG);
        let (mut acked, mut deleted) = (Vec::new(), false);
        // Twice, so that what a start after a power cut leaves behind is cut too.
        for life in 0..2_i64 {
            let disk = FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>);
            disk.power.store(cut, SeqCst);
            let opened = open_on(dir.path(), &disk);
            if let Ok(store) = &opened {
                for i in life * 100..life * 100 + 10 {
                    let which = series(usize::try_from(i % 3).unwrap());
                    let exemplar = crate::model::Exemplar {
                        labels: labels(&[("trace_id", &i.to_string())]),
                        value: 1.0,
                        timestamp: Timestamp(at(i)),
                    };
                    let mut batch = batch(std::slice::from_ref(&which), &[(0, at(i), i as f64)]);
                    batch.exemplars = vec![crate::storage::BatchExemplar { series: 0, exemplar }];
                    if store.append(&tenant(), batch).await.is_ok() {
                        acked.push((which, at(i)));
                    }
                    if i % 4 == 3 {
                        let _ = store.flush().await;
                    }
                }
                let sets = vec![vec![crate::model::Matcher::equal("i", "02")]];
                deleted |= store.delete(&tenant(), sets, TimeRange::ALL).await.is_ok();
                if cut % 2 == 0 {
                    let _ = store.close().await;
                }
            }
            drop(opened);
            survived_all = disk.power.load(SeqCst) > 1;
            memory.lose_power();
        }
        let disk = FaultyDisk::over(memory);
        let store = open_on(dir.path(), &disk).unwrap_or_else(|e| panic!("power cut at {cut}: {e}"));
        let all = everything(&store).await;
        let exemplars = store.exemplars(&tenant(), vec![], TimeRange::ALL).await.unwrap();
        for (labels, t) in &acked {
            if *labels == series(2) {
                continue;
            }
            let found = all.iter().any(|(l, s)| l == labels && s.iter().any(|(at, _)| at == t));
            assert!(found, "power cut at {cut}: {labels} at {t} was acknowledged and is gone");
            let exemplar = |e: &crate::model::Exemplar| e.timestamp.0 == *t;
            let found = exemplars.iter().any(|s| s.series == *labels && s.exemplars.iter().any(exemplar));
            assert!(found, "power cut at {cut}: the exemplar of {labels} at {t} is gone");
        }
        if deleted {
            assert!(all.iter().all(|(l, _)| *l != series(2)), "power cut at {cut}: a delete is undone");
        }
        assert_eq!(store.status().await.unwrap().quarantined, Vec::<String>::new(), "power cut at {cut}");
        survived_all
    })
    .await;
}

/// Waits until the log has found out by itself that the disk works again.
async fn becomes_ready(store: &EmbeddedStore) {
    for _ in 0..6_000 {
        if store.health() == Health::Ready {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("after a minute it is {:?}", store.health());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_answers_reads_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::over(Arc::new(SystemDisk));
    let store = open_on(dir.path(), &disk).unwrap();
    write(&store, &series(1), &[(at(0), 0.0)]).await.unwrap();
    disk.full.store(true, SeqCst);
    let mut acked = 1;
    for i in 1..100_000_i64 {
        let many: Vec<(i64, f64)> = (0..50).map(|k| (at(i * 50 + k), 0.1 * k as f64)).collect();
        match write(&store, &series(1), &many).await {
            Ok(()) => acked += 50,
            Err(StorageError::DiskFull { .. }) => break,
            Err(e) => panic!("{e}"),
        }
    }
    assert!(matches!(store.health(), Health::ReadOnly { .. }), "{:?}", store.health());
    assert!(everything(&store).await[0].1.len() >= acked);
    assert!(matches!(write(&store, &series(2), &[(at(0), 1.0)]).await, Err(StorageError::DiskFull { .. })));
    assert!(store.flush().await.is_err());
    assert!(everything(&store).await[0].1.len() >= acked, "a failed flush hides nothing");
    disk.full.store(false, SeqCst);
    becomes_ready(&store).await;
    // What was refused is in the frozen head, and in no log: it lasts from the flush on.
    store.flush().await.unwrap();
    write(&store, &series(2), &[(at(0), 1.0)]).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    let again = open(copy.path()).unwrap();
    let all = everything(&again).await;
    assert!(all.len() == 2 && all[0].1.len() >= acked, "{}", all.len());
    store.flush().await.unwrap();
    assert!(everything(&store).await == all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_disk_refuses_writes_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::over(Arc::new(SystemDisk));
    let store = open_on(dir.path(), &disk).unwrap();
    write(&store, &series(1), &[(at(0), 0.0)]).await.unwrap();
    disk.broken.store(true, SeqCst);
    assert!(matches!(
        write(&store, &series(1), &[(at(1), 0.0)]).await,
        Err(StorageError::Unavailable { .. })
    ));
    assert!(matches!(store.health(), Health::ReadOnly { .. }));
    assert!(store.flush().await.is_err());
    disk.broken.store(false, SeqCst);
    becomes_ready(&store).await;
    // Sent again after an error, it is a duplicate in the head: and must be durable all the same.
    write(&store, &series(1), &[(at(1), 0.0)]).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    assert_eq!(everything(&open(copy.path()).unwrap()).await[0].1.len(), 2);
    store.flush().await.unwrap();
    assert_eq!(everything(&store).await[0].1.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_cleaned_stays_gone_whatever_failed_before() {
    let mut failed = 0;
    for cut in 2_u64..200 {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::over(Arc::new(SystemDisk));
        let store = open_on(dir.path(), &disk).unwrap();
        for i in 0..5_i64 {
            write(&store, &series(1), &[(at(i), 1.0)]).await.unwrap();
            write(&store, &series(2), &[(at(i), 1.0)]).await.unwrap();
            if i == 4 {
                // The disk fails at this place of a flush that also merges, and works again afterwards.
                disk.power.store(cut, SeqCst);
            }
            let _ = store.flush().await;
        }
        let survived = disk.power.load(SeqCst) > 1;
        disk.power.store(0, SeqCst);
        failed += u64::from(!survived);
        let sets = vec![vec![crate::model::Matcher::equal("i", "02")]];
        let mut deleted = store.delete(&tenant(), sets.clone(), TimeRange::ALL).await;
        for _ in 0..6_000 {
            if deleted.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            deleted = store.delete(&tenant(), sets.clone(), TimeRange::ALL).await;
        }
        deleted.unwrap();
        store.clean_tombstones(&tenant()).await.unwrap();
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let again = open(copy.path()).unwrap();
        let all = everything(&again).await;
        assert!(all.len() == 1 && all[0].0 == series(1) && all[0].1.len() == 5, "failed at {cut}: {all:?}");
        if survived {
            break;
        }
    }
    assert!(failed > 10, "{failed}");
}
