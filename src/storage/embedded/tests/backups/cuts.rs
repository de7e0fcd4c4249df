//! The process or the power ends at any change that making a backup and restoring one bring about.

use super::*;
use crate::storage::embedded::{memory_disk::MemoryDisk, part::Part};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_cut_off_is_none_and_the_next_one_goes_on_from_it() {
    let bench = Bench::new();
    let store = open(&bench.data).unwrap();
    furnish(&store, 0).await;
    let all = everything(&store).await;
    let whole = directory(&system(), &bench.beside("whole"));
    let whole = of_running(whole.as_ref(), &store, &bench.data, "x").unwrap();
    until_survived(async |cut| {
        let kept = bench.beside(format!("kept-{cut}"));
        let faulty = FaultyDisk::over(system());
        let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&faulty);
        let target = directory(&disk, &kept);
        faulty.power.store(cut, SeqCst);
        let made = of_running(target.as_ref(), &store, &bench.data, "one");
        let survived = faulty.power.load(SeqCst) > 1;
        // Somebody else comes, to whom what was cut off looks like somebody at work.
        let target = directory(&system(), &kept);
        let there = list(target.as_ref()).unwrap();
        assert!(made.is_err() || there.len() == 1, "cut at {cut}");
        for one in &there {
            assert_eq!(findings(&target, Some(&one.name.to_string())), [], "cut at {cut}");
        }
        let before = objects(&kept);
        let next = of_running(target.as_ref(), &store, &bench.data, "two");
        let next = next.unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        let done = before.iter().filter(|path| path.extension().is_none()).count() as u64;
        assert!(
            next.copied_files <= whole.copied_files - done.min(1),
            "cut at {cut}: {done} were done, {next:?}"
        );
        let into = bench.beside(format!("into-{cut}"));
        restore_to(&system(), target.as_ref(), Some("two"), &into)
            .unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        assert_eq!(content(&into).await, all, "cut at {cut}");
        std::fs::remove_dir_all(&kept).unwrap();
        std::fs::remove_dir_all(&into).unwrap();
        survived
    })
    .await;
    assert_eq!(everything(&store).await, all, "the store is as it was");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_can_be_seen_survives_a_power_cut_whole() {
    let bench = Bench::new();
    let store = open(&bench.data).unwrap();
    furnish(&store, 0).await;
    until_survived(async |cut| {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new(dir.path(), "nothing");
        let faulty = FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>);
        let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&faulty);
        let target = directory(&disk, &dir.path().join("kept"));
        faulty.power.store(cut, SeqCst);
        let made = of_running(target.as_ref(), &store, &bench.data, "one");
        let survived = faulty.power.load(SeqCst) > 1;
        memory.lose_power();
        let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(&memory);
        let target = directory(&disk, &dir.path().join("kept"));
        let there = list(target.as_ref()).unwrap();
        assert!(made.is_err() || there.len() == 1, "cut at {cut}");
        for one in &there {
            assert_eq!(findings(&target, Some(&one.name.to_string())), [], "cut at {cut}");
        }
        survived
    })
    .await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_half_restored_is_never_opened_and_can_be_finished() {
    let bench = Bench::furnished().await;
    let all = content(&bench.data).await;
    bench.make("one").unwrap();
    until_survived(async |cut| {
        let into = bench.beside(format!("into-{cut}"));
        let faulty = FaultyDisk::over(system());
        let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&faulty);
        faulty.power.store(cut, SeqCst);
        let tried = restore_to(&disk, bench.target.as_ref(), None, &into);
        let survived = faulty.power.load(SeqCst) > 1;
        if tried.is_err() && into.join("parts").exists() {
            match open(&into) {
                Ok(store) => {
                    assert_eq!(everything(&store).await, all, "cut at {cut}: it says that it is whole");
                    store.close().await.unwrap();
                }
                Err(error) => {
                    assert!(error.to_string().contains("half restored"), "cut at {cut}: {error}");
                    bench.restore(None, &into).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
                }
            }
        } else if tried.is_err() {
            bench.restore(None, &into).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        }
        assert_eq!(content(&into).await, all, "cut at {cut}");
        std::fs::remove_dir_all(&into).unwrap();
        survived
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_restored_survives_a_power_cut() {
    let bench = Bench::furnished().await;
    let made = bench.make("one").unwrap();
    until_survived(async |cut| {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("into");
        // The lock is a file of the real disk.
        std::fs::create_dir(&into).unwrap();
        let memory = MemoryDisk::new(dir.path(), "nothing");
        let faulty = FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>);
        let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&faulty);
        faulty.power.store(cut, SeqCst);
        let tried = restore_to(&disk, bench.target.as_ref(), None, &into);
        let survived = faulty.power.load(SeqCst) > 1;
        memory.lose_power();
        let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(&memory);
        let entries = disk.list(&into).unwrap();
        let unfinished = entries.iter().any(|entry| entry.name == "RESTORING");
        assert!(tried.is_err() || !unfinished, "cut at {cut}: {entries:?}");
        // A directory with something in it either says that it is not whole, or is.
        if !unfinished && entries.iter().any(|entry| !entry.name.ends_with(".tmp")) {
            for file in made.manifest.files.iter().filter(|file| file.part.is_some()) {
                let part = Part::open(&disk, &into.join(&file.path));
                let damage = part.and_then(|part| part.examine(|_, _, _| Ok(())));
                let damage = damage.unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
                assert_eq!(damage, [], "cut at {cut}");
            }
        }
        assert!(!survived || !unfinished && !entries.is_empty(), "{entries:?}");
        survived
    })
    .await;
}
