//! Backups: whole or none, whatever happens while they are made, kept, restored and removed.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use super::*;
use crate::storage::{
    DocumentKind,
    embedded::{
        backup::{
            self, BackupError, CreateOptions, Directory, Made, Progress, RestoreOptions, Target, create,
            drill, list, prune, restore, verify,
        },
        lock::Lock,
        memory_disk::MemoryDisk,
        part::Part,
    },
};

fn series(i: usize) -> Labels {
    labels(&[("__name__", "m"), ("i", &format!("{i:02}"))])
}

/// Everything that was written, by series.
type All = Vec<(Labels, Vec<(i64, u64)>)>;

async fn furnish(store: &EmbeddedStore, from: i64) {
    for round in from..from + 3 {
        let all: Vec<Labels> = (0..4).map(series).collect();
        let samples: Vec<(u32, i64, f64)> =
            (0..4_u32).map(|s| (s, at(round) - 86_400_000 * i64::from(s % 2), f64::from(s))).collect();
        store.append(&tenant(), batch(&all, &samples)).await.unwrap();
    }
    store.put_document(&tenant(), DocumentKind::Limits, Some(from.to_string())).await.unwrap();
}

fn system() -> Arc<dyn Disk> {
    Arc::new(SystemDisk)
}

fn seed() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, SeqCst)
}

fn directory(disk: &Arc<dyn Disk>, path: &Path) -> Arc<dyn Target> {
    Arc::new(Directory::new(Arc::clone(disk), path, seed()))
}

fn quiet() -> impl FnMut(Progress) {
    |_| {}
}

fn options(data_dir: &Path, name: &str) -> CreateOptions {
    let name = Some(name.parse().unwrap());
    CreateOptions { name, data_dir: data_dir.to_owned(), full: false, seed: seed() }
}

/// A backup of a store that nobody has open.
fn of_stopped(target: &dyn Target, data_dir: &Path, name: &str) -> Result<Made, BackupError> {
    let ask = &mut || panic!("nobody has the store");
    let make = || create(target, &system(), &clock(), &options(data_dir, name), ask, &mut quiet());
    // It waits for the log.
    tokio::task::block_in_place(make)
}

/// A backup of a store that is open.
fn of_running(
    target: &dyn Target,
    store: &Arc<EmbeddedStore>,
    data_dir: &Path,
    name: &str,
) -> Result<Made, BackupError> {
    let runtime = tokio::runtime::Handle::current();
    let ask = &mut || {
        let snapshot = store.snapshot(false);
        Ok(tokio::task::block_in_place(|| runtime.block_on(snapshot))?)
    };
    create(target, &system(), &clock(), &options(data_dir, name), ask, &mut quiet())
}

fn restored(target: &dyn Target, name: Option<&str>, into: &Path) -> Result<backup::Restored, BackupError> {
    let name = name.map(|name| name.parse().unwrap());
    let options = RestoreOptions { name, into: into.to_owned(), skip_damaged: false };
    restore(target, &system(), &options, &mut quiet())
}

async fn content(dir: &Path) -> All {
    let store = open(dir).unwrap();
    assert_eq!(store.status().await.unwrap().quarantined, Vec::<String>::new());
    let all = everything(&store).await;
    store.close().await.unwrap();
    all
}

fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.join("objects")];
    while let Some(dir) = left.pop() {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_each_backup_comes_back_from_it() {
    let root = tempfile::tempdir().unwrap();
    let (data, kept) = (root.path().join("data"), root.path().join("kept"));
    let target = directory(&system(), &kept);
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    let first = everything(&store).await;
    let one = of_running(target.as_ref(), &store, &data, "one").unwrap();
    furnish(&store, 10).await;
    let second = everything(&store).await;
    let two = of_running(target.as_ref(), &store, &data, "two").unwrap();
    // The third has nothing new but what is written anew each time.
    let three = of_running(target.as_ref(), &store, &data, "three").unwrap();
    let parts = |made: &Made| made.manifest.files.iter().filter(|file| file.part.is_some()).count();
    assert!(parts(&two) > parts(&one), "{two:?}");
    assert!(
        two.copied_files < two.manifest.files.len() as u64,
        "parts that are there are not copied: {two:?}"
    );
    assert!(three.copied_files <= 1, "{three:?}");
    assert!(std::fs::read_dir(data.join("snapshots")).unwrap().next().is_none(), "snapshots are removed");
    store.close().await.unwrap();
    // Of a stopped one, too, which is stopped in order afterwards.
    let four = of_stopped(target.as_ref(), &data, "four").unwrap();
    assert_eq!(four.manifest.samples, three.manifest.samples);
    std::fs::remove_dir_all(&data).unwrap();

    let names: Vec<String> = list(target.as_ref()).unwrap().iter().map(|b| b.name.to_string()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for name in &names {
        let found = verify(&target, Some(&name.parse().unwrap()), &mut quiet()).unwrap();
        assert_eq!(found.findings, [], "{name}");
        let into = root.path().join(name);
        restored(target.as_ref(), Some(name), &into).unwrap();
        let expect = if name == "one" { &first } else { &second };
        assert_eq!(&content(&into).await, expect, "{name}");
        let store = open(&into).unwrap();
        let limits = store.documents(DocumentKind::Limits).await.unwrap();
        let expect = if name == "one" { "0" } else { "10" };
        assert_eq!(limits, [(tenant(), expect.to_owned())], "{name}");
        // It is one to work with, and to back up again.
        furnish(&store, 20).await;
        store.close().await.unwrap();
    }
    let made = of_stopped(target.as_ref(), &root.path().join("two"), "five").unwrap();
    assert!(made.manifest.samples > two.manifest.samples);
    let scratch = root.path().join("scratch");
    let drilled = drill(target.as_ref(), &system(), &clock(), None, &scratch, seed(), &mut quiet()).unwrap();
    assert!(drilled.is_sound(), "{drilled:?}");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_store_that_was_killed_is_in_its_backup() {
    let root = tempfile::tempdir().unwrap();
    let (data, copy) = (root.path().join("data"), root.path().join("copy"));
    let target = directory(&system(), &root.path().join("kept"));
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    let all = everything(&store).await;
    copy_dir(&data, &copy);
    let made = of_stopped(target.as_ref(), &copy, "one").unwrap();
    assert!(made.manifest.samples > 0);
    restored(target.as_ref(), None, &root.path().join("back")).unwrap();
    assert_eq!(content(&root.path().join("back")).await, all);
    assert_eq!(content(&copy).await, all, "the store is as it was");
    store.close().await.unwrap();
    let nothing = of_stopped(target.as_ref(), root.path(), "two").unwrap_err();
    assert!(nothing.to_string().contains("there is no store in"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_cut_off_is_none_and_the_next_one_goes_on_from_it() {
    let mut survived = false;
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    let all = everything(&store).await;
    let whole = directory(&system(), &root.path().join("whole"));
    let whole = of_running(whole.as_ref(), &store, &data, "x").unwrap();
    for cut in 2_u64..200 {
        let kept = root.path().join(format!("kept-{cut}"));
        let faulty = FaultyDisk::over(system());
        let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&faulty);
        let target = directory(&disk, &kept);
        faulty.power.store(cut, SeqCst);
        let made = of_running(target.as_ref(), &store, &data, "one");
        survived = faulty.power.load(SeqCst) > 1;
        // Somebody else comes, to whom what was cut off looks like somebody at work.
        let target = directory(&system(), &kept);
        let there = list(target.as_ref()).unwrap();
        assert!(made.is_err() || there.len() == 1, "cut at {cut}");
        for one in &there {
            let found = verify(&target, Some(&one.name), &mut quiet()).unwrap();
            assert_eq!(found.findings, [], "cut at {cut}");
        }
        let before = objects(&kept);
        let next = of_running(target.as_ref(), &store, &data, "two");
        let next = next.unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        let done = before.iter().filter(|path| path.extension().is_none()).count() as u64;
        assert!(
            next.copied_files <= whole.copied_files - done.min(1),
            "cut at {cut}: {done} were done, {next:?}"
        );
        let into = root.path().join(format!("into-{cut}"));
        restored(target.as_ref(), Some("two"), &into).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        assert_eq!(content(&into).await, all, "cut at {cut}");
        std::fs::remove_dir_all(&kept).unwrap();
        std::fs::remove_dir_all(&into).unwrap();
        if survived {
            break;
        }
    }
    assert!(survived, "the last cut is after everything");
    assert_eq!(everything(&store).await, all, "the store is as it was");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_can_be_seen_survives_a_power_cut_whole() {
    let mut survived = false;
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    for cut in 2_u64..200 {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new(dir.path(), "nothing");
        let faulty = FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>);
        let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&faulty);
        let target = directory(&disk, &dir.path().join("kept"));
        faulty.power.store(cut, SeqCst);
        let made = of_running(target.as_ref(), &store, &data, "one");
        survived = faulty.power.load(SeqCst) > 1;
        memory.lose_power();
        let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(&memory);
        let target = directory(&disk, &dir.path().join("kept"));
        let there = list(target.as_ref()).unwrap();
        assert!(made.is_err() || there.len() == 1, "cut at {cut}");
        for one in &there {
            let found = verify(&target, Some(&one.name), &mut quiet()).unwrap();
            assert_eq!(found.findings, [], "cut at {cut}");
        }
        if survived {
            break;
        }
    }
    assert!(survived, "the last cut is after everything");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_half_restored_is_never_opened_and_can_be_finished() {
    let mut survived = false;
    let root = tempfile::tempdir().unwrap();
    let (data, kept) = (root.path().join("data"), root.path().join("kept"));
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    let all = everything(&store).await;
    store.close().await.unwrap();
    let target = directory(&system(), &kept);
    of_stopped(target.as_ref(), &data, "one").unwrap();
    for cut in 2_u64..200 {
        let into = root.path().join(format!("into-{cut}"));
        let faulty = FaultyDisk::over(system());
        let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&faulty);
        faulty.power.store(cut, SeqCst);
        let options = RestoreOptions { name: None, into: into.clone(), skip_damaged: false };
        let tried = restore(target.as_ref(), &disk, &options, &mut quiet());
        survived = faulty.power.load(SeqCst) > 1;
        if tried.is_err() && into.join("parts").exists() {
            match open(&into) {
                Ok(store) => {
                    assert_eq!(everything(&store).await, all, "cut at {cut}: it says that it is whole");
                    store.close().await.unwrap();
                }
                Err(error) => {
                    assert!(error.to_string().contains("half restored"), "cut at {cut}: {error}");
                    restored(target.as_ref(), None, &into).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
                }
            }
        } else if tried.is_err() {
            restored(target.as_ref(), None, &into).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        }
        assert_eq!(content(&into).await, all, "cut at {cut}");
        std::fs::remove_dir_all(&into).unwrap();
        if survived {
            break;
        }
    }
    assert!(survived, "the last cut is after everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_restored_survives_a_power_cut() {
    let mut survived = false;
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    store.close().await.unwrap();
    let target = directory(&system(), &root.path().join("kept"));
    let made = of_stopped(target.as_ref(), &data, "one").unwrap();
    for cut in 2_u64..200 {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("into");
        // The lock is a file of the real disk.
        std::fs::create_dir(&into).unwrap();
        let memory = MemoryDisk::new(dir.path(), "nothing");
        let faulty = FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>);
        let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&faulty);
        faulty.power.store(cut, SeqCst);
        let options = RestoreOptions { name: None, into: into.clone(), skip_damaged: false };
        let tried = restore(target.as_ref(), &disk, &options, &mut quiet());
        survived = faulty.power.load(SeqCst) > 1;
        memory.lose_power();
        let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(&memory);
        let entries = disk.list(&into).unwrap();
        let unfinished = entries.iter().any(|entry| entry.name == "RESTORING");
        assert!(tried.is_err() || !unfinished, "cut at {cut}: {entries:?}");
        // A directory with something in it either says that it is not whole, or is.
        if !unfinished && entries.iter().any(|entry| !entry.name.ends_with(".tmp")) {
            for file in made.manifest.files.iter().filter(|file| file.part.is_some()) {
                let part = Part::open(&disk, &into.join(&file.path));
                part.and_then(|part| part.verify()).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
            }
        }
        if survived {
            assert!(!unfinished && !entries.is_empty(), "{entries:?}");
            break;
        }
    }
    assert!(survived, "the last cut is after everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_and_never_restored_unless_it_is_left_out() {
    let root = tempfile::tempdir().unwrap();
    let (data, kept) = (root.path().join("data"), root.path().join("kept"));
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    store.close().await.unwrap();
    let target = directory(&system(), &kept);
    let made = of_stopped(target.as_ref(), &data, "one").unwrap();
    for file in &made.manifest.files {
        let object = kept.join(file.object());
        let good = std::fs::read(&object).unwrap();
        let step = (good.len() / 7).max(1);
        let mut bad: Vec<Option<Vec<u8>>> = (0..good.len())
            .step_by(step)
            .map(|at| {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                Some(bad)
            })
            .collect();
        bad.push(Some(good[..good.len() - 1].to_vec()));
        bad.push(None);
        for (case, bad) in bad.into_iter().enumerate() {
            match &bad {
                Some(bad) => std::fs::write(&object, bad).unwrap(),
                None => std::fs::remove_file(&object).unwrap(),
            }
            let into = root.path().join("into");
            let found = verify(&target, None, &mut quiet()).unwrap();
            assert!(found.findings.len() == 1 && found.findings[0].path == file.path, "{case}: {found:?}");
            let error = restored(target.as_ref(), None, &into).unwrap_err();
            let told = error.to_string();
            assert!(told.contains("damaged") || told.contains("is not at"), "{case}: {told}");
            let error = open(&into).unwrap_err().to_string();
            assert!(error.contains("half restored"), "{case}: {error}");
            let options = RestoreOptions { name: None, into: into.clone(), skip_damaged: true };
            let rest = restore(target.as_ref(), &system(), &options, &mut quiet()).unwrap();
            assert!(rest.left_out.len() == 1 && rest.left_out[0].path == file.path, "{case}: {rest:?}");
            content(&into).await;
            std::fs::remove_dir_all(&into).unwrap();
        }
        // What is missing or short the next backup brings back; what only reads differently a full one does.
        std::fs::write(&object, &good[1..]).unwrap();
        of_stopped(target.as_ref(), &data, "short").unwrap();
        if file.part.is_some() {
            assert_eq!(std::fs::read(&object).unwrap(), good, "{}", file.path);
        }
        std::fs::remove_file(kept.join("backups/short.json")).unwrap();
        std::fs::write(&object, &good).unwrap();
    }
    let object = kept.join(made.manifest.files.last().unwrap().object());
    let good = std::fs::read(&object).unwrap();
    std::fs::write(&object, vec![0; good.len()]).unwrap();
    let full = CreateOptions { full: true, ..options(&data, "full") };
    let ask = &mut || panic!("nobody has the store");
    create(target.as_ref(), &system(), &clock(), &full, ask, &mut quiet()).unwrap();
    assert_eq!(std::fs::read(&object).unwrap(), good);
    assert_eq!(verify(&target, Some(&"one".parse().unwrap()), &mut quiet()).unwrap().findings, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_damaged_in_the_store_is_told_and_its_good_copy_kept() {
    let root = tempfile::tempdir().unwrap();
    let (data, kept) = (root.path().join("data"), root.path().join("kept"));
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    store.close().await.unwrap();
    let target = directory(&system(), &kept);
    let good = of_stopped(target.as_ref(), &data, "good").unwrap();
    let part = good.manifest.files.iter().find(|file| file.part.is_some()).unwrap();
    let path = data.join(&part.path);
    let mut bytes = std::fs::read(&path).unwrap();
    // In a page, which is not looked at when a part is opened.
    bytes[40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let next = of_stopped(target.as_ref(), &data, "next").unwrap();
    assert!(next.manifest.files.contains(part), "the copy from before the damage is the better one");
    let elsewhere = directory(&system(), &root.path().join("elsewhere"));
    let first = of_stopped(elsewhere.as_ref(), &data, "first").unwrap();
    let damaged: Vec<&str> = first
        .manifest
        .files
        .iter()
        .filter(|file| file.part.as_ref().is_some_and(|part| part.damaged))
        .map(|file| &*file.path)
        .collect();
    assert_eq!(damaged, [&*part.path]);
    let found = verify(&elsewhere, None, &mut quiet()).unwrap();
    assert!(found.findings[0].why.contains("damaged already in the store"), "{found:?}");
    // What of it can be read is worth having.
    restored(elsewhere.as_ref(), None, &root.path().join("into")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_no_backup_needs_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let (data, kept) = (root.path().join("data"), root.path().join("kept"));
    let target = directory(&system(), &kept);
    let clock = HandClock::at(NOW);
    let shared: Arc<dyn Clock> = Arc::<HandClock>::clone(&clock);
    let make = |name: &str| {
        let ask = &mut || panic!("nobody has the store");
        create(target.as_ref(), &system(), &shared, &options(&data, name), ask, &mut quiet()).unwrap()
    };
    let mut all = Vec::new();
    for (i, name) in ["c", "b", "a"].into_iter().enumerate() {
        let store = open(&data).unwrap();
        furnish(&store, i as i64 * 10).await;
        all = everything(&store).await;
        store.close().await.unwrap();
        clock.advance(Duration::from_secs(60));
        make(name);
    }
    // What was cut off leaves objects that no backup has, and files that are not even objects.
    std::fs::create_dir_all(kept.join("objects/00")).unwrap();
    std::fs::write(kept.join("objects/00").join("00".repeat(32)), "x").unwrap();
    std::fs::write(kept.join("objects/00/x.1.tmp"), "x").unwrap();
    let before = objects(&kept).len();
    let pruned = prune(target.as_ref(), &shared, 2, seed()).unwrap();
    assert_eq!((pruned.backups, pruned.left), (vec!["c".to_owned()], 2));
    assert!(objects(&kept).len() < before);
    for name in ["a", "b"] {
        let found = verify(&target, Some(&name.parse().unwrap()), &mut quiet()).unwrap();
        assert_eq!(found.findings, [], "{name}");
    }
    let pruned = prune(target.as_ref(), &shared, 1, seed()).unwrap();
    assert_eq!(pruned.backups, ["b"]);
    restored(target.as_ref(), None, &root.path().join("into")).unwrap();
    assert_eq!(content(&root.path().join("into")).await, all);
    // Nothing is removed where a backup cannot be read, since what it needs cannot be told.
    for other in ["A copy.json", ".a.json", "a.json.bak"] {
        let path = kept.join("backups").join(other);
        std::fs::copy(kept.join("backups/a.json"), &path).unwrap();
        let before = objects(&kept);
        let error = prune(target.as_ref(), &shared, 1, seed()).unwrap_err().to_string();
        assert!(error.contains(other), "{error}");
        assert!(objects(&kept) == before);
        std::fs::remove_file(path).unwrap();
    }
    std::fs::write(kept.join("backups/z.json"), "{}").unwrap();
    let error = prune(target.as_ref(), &shared, 1, seed()).unwrap_err().to_string();
    assert!(error.contains("backups/z.json"), "{error}");
    assert!(list(target.as_ref()).unwrap().last().unwrap().manifest.is_err());
    let found = verify(&target, None, &mut quiet()).unwrap();
    assert_eq!(found.manifest.name, "a", "the newest that can be read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_makes_a_backup_and_who_removes_some_see_each_other() {
    let root = tempfile::tempdir().unwrap();
    let (data, kept) = (root.path().join("data"), root.path().join("kept"));
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    store.close().await.unwrap();
    let target = directory(&system(), &kept);
    let clock = HandClock::at(NOW);
    let shared: Arc<dyn Clock> = Arc::<HandClock>::clone(&clock);
    of_stopped(target.as_ref(), &data, "one").unwrap();
    // In the middle of one, others try.
    let mut tried = Vec::new();
    let told = &mut |progress: Progress| {
        if progress.files == 1 {
            let removed = prune(target.as_ref(), &shared, 1, seed()).unwrap_err().to_string();
            tried.push(removed);
            let other = directory(&system(), &kept);
            of_stopped(other.as_ref(), &data, "meanwhile").unwrap();
        }
    };
    let ask = &mut || panic!("nobody has the store");
    let error = create(target.as_ref(), &system(), &shared, &options(&data, "meanwhile"), ask, told);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("there is a backup meanwhile"), "{error}");
    assert!(tried.len() == 1 && tried[0].contains("a backup is being made"), "{tried:?}");
    assert_eq!(list(target.as_ref()).unwrap().len(), 2);
    assert_eq!(std::fs::read_dir(kept.join("claims")).unwrap().count(), 0);

    // Somebody who was cut off counts for an hour, and then for nothing.
    let claim = format!("{{\"work\":\"create\",\"renewed_ms\":{}}}", NOW.0);
    std::fs::write(kept.join("claims/create-1.json"), &claim).unwrap();
    clock.advance(Duration::from_secs(3590));
    assert!(prune(target.as_ref(), &shared, 1, seed()).is_err());
    clock.advance(Duration::from_secs(20));
    prune(target.as_ref(), &shared, 1, seed()).unwrap();
    assert_eq!(std::fs::read_dir(kept.join("claims")).unwrap().count(), 0);
    // And whoever was taken for dead does not finish.
    let told = &mut |progress: Progress| {
        if progress.files == 1 {
            clock.advance(Duration::from_secs(3610));
            prune(target.as_ref(), &shared, 1, seed()).unwrap();
        }
    };
    let error = create(target.as_ref(), &system(), &shared, &options(&data, "late"), ask, told);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("counted it out"), "{error}");
    // While some are removed, none is made.
    let claim = format!("{{\"work\":\"prune\",\"renewed_ms\":{}}}", clock.now().0);
    std::fs::write(kept.join("claims/prune-1.json"), &claim).unwrap();
    let error = create(target.as_ref(), &system(), &shared, &options(&data, "x"), ask, &mut quiet());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("are being removed"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_leaves_no_half_of_anything() {
    let root = tempfile::tempdir().unwrap();
    let (data, kept) = (root.path().join("data"), root.path().join("kept"));
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    store.close().await.unwrap();
    let faulty = FaultyDisk::over(system());
    let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&faulty);
    let target = directory(&disk, &kept);
    faulty.full.store(true, SeqCst);
    let error = of_stopped(target.as_ref(), &data, "one").unwrap_err().to_string();
    assert!(error.contains("there is no space left"), "{error}");
    faulty.full.store(false, SeqCst);
    assert_eq!(list(target.as_ref()).unwrap().len(), 0);
    of_stopped(target.as_ref(), &data, "one").unwrap();
    faulty.full.store(true, SeqCst);
    let into = root.path().join("into");
    let options = RestoreOptions { name: None, into: into.clone(), skip_damaged: false };
    restore(target.as_ref(), &disk, &options, &mut quiet()).unwrap_err();
    faulty.full.store(false, SeqCst);
    restore(target.as_ref(), &disk, &options, &mut quiet()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_restored_into_a_directory_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let (data, kept, into) = (root.path().join("data"), root.path().join("kept"), root.path().join("into"));
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    store.close().await.unwrap();
    let target = directory(&system(), &kept);
    let nothing = restored(target.as_ref(), None, &into).unwrap_err().to_string();
    assert!(nothing.contains("there is no backup at file://"), "{nothing}");
    of_stopped(target.as_ref(), &data, "one").unwrap();
    of_stopped(target.as_ref(), &data, "two").unwrap();
    let unknown = restored(target.as_ref(), Some("three"), &into).unwrap_err().to_string();
    assert!(unknown.contains("there is no backup three"), "{unknown}");
    let full = restored(target.as_ref(), None, &data).unwrap_err().to_string();
    assert!(full.contains("is not empty"), "{full}");
    std::fs::create_dir_all(&into).unwrap();
    std::fs::write(into.join("notes.txt"), "x").unwrap();
    let full = restored(target.as_ref(), None, &into).unwrap_err().to_string();
    assert!(full.contains("is not empty, notes.txt"), "{full}");
    std::fs::remove_file(into.join("notes.txt")).unwrap();
    // Somebody else is at it.
    let lock = Lock::take(&into).unwrap();
    let busy = restored(target.as_ref(), None, &into).unwrap_err().to_string();
    assert!(busy.contains("is in use"), "{busy}");
    drop(lock);
    std::fs::write(into.join("RESTORING"), "zero 1\n").unwrap();
    let other = restored(target.as_ref(), None, &into).unwrap_err().to_string();
    assert!(other.contains("another backup is half restored"), "{other}");
    std::fs::remove_file(into.join("RESTORING")).unwrap();
    restored(target.as_ref(), Some("one"), &into).unwrap();
    let again = restored(target.as_ref(), Some("one"), &into).unwrap_err().to_string();
    assert!(again.contains("is not empty"), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_a_backup_left_is_removed_by_the_next() {
    let root = tempfile::tempdir().unwrap();
    let (data, kept) = (root.path().join("data"), root.path().join("kept"));
    let target = directory(&system(), &kept);
    let store = open(&data).unwrap();
    furnish(&store, 0).await;
    let left = store.snapshot(false).await.unwrap();
    let mine = store.snapshot(false).await.unwrap();
    std::fs::write(data.join("snapshots").join(&left).join("BACKUP"), "").unwrap();
    of_running(target.as_ref(), &store, &data, "one").unwrap();
    let there: Vec<String> = std::fs::read_dir(data.join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, [mine], "what somebody asked for stays");
    // The server is of another directory.
    let ask = &mut || Ok("20260101T000000Z-0000000000000001".to_owned());
    let error = create(target.as_ref(), &system(), &clock(), &options(&data, "two"), ask, &mut quiet());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the directory of that server?"), "{error}");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_do_not_share_a_place_and_a_restored_one_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (root.path().join("one"), root.path().join("two"));
    for data in [&one, &two] {
        let store = open(data).unwrap();
        furnish(&store, 0).await;
        store.close().await.unwrap();
    }
    let (kept, elsewhere) = (root.path().join("kept"), root.path().join("elsewhere"));
    let (target, other) = (directory(&system(), &kept), directory(&system(), &elsewhere));
    of_stopped(target.as_ref(), &one, "a").unwrap();
    for _ in ["none of its own yet", "with one"] {
        let error = of_stopped(target.as_ref(), &two, "b").unwrap_err().to_string();
        assert!(error.contains("are of another store: a is of"), "{error}");
        assert!(two.join("STOREID").exists() && list(target.as_ref()).unwrap().len() == 1);
        let _ = of_stopped(other.as_ref(), &two, "b");
    }
    // What is restored is the store that was backed up, and so is one whose first restore was cut off.
    let into = root.path().join("into");
    restored(target.as_ref(), None, &into).unwrap();
    let id = |dir: &Path| std::fs::read_to_string(dir.join("STOREID")).unwrap();
    assert_eq!(id(&into), id(&one));
    let made = of_stopped(target.as_ref(), &into, "c").unwrap();
    assert_eq!(format!("{}\n", made.manifest.store), id(&one));
    let error = of_stopped(other.as_ref(), &into, "d").unwrap_err().to_string();
    assert!(error.contains("are of another store"), "{error}");
    // Somebody who wants it to be another store takes its number away.
    std::fs::remove_file(into.join("STOREID")).unwrap();
    let error = of_stopped(target.as_ref(), &into, "d").unwrap_err().to_string();
    assert!(error.contains("are of another store"), "{error}");
    let nothing = of_stopped(target.as_ref(), root.path(), "e").unwrap_err().to_string();
    assert!(nothing.contains("there is no store in") && !root.path().join("STOREID").exists(), "{nothing}");
}
