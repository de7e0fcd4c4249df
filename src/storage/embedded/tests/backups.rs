//! Backups: whole or none, whatever happens while they are made, kept, restored and removed.

mod cuts;
mod pruning;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use super::*;
use crate::storage::{
    DocumentKind,
    embedded::{
        backup::{
            BackupError, CreateOptions, Directory, Finding, Listed, Made, Progress, RestoreOptions, Restored,
            Target, create, drill, list, prune, restore, verify,
        },
        lock::Lock,
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

/// Restores a backup, the newest unless one is named.
fn restore_to(
    disk: &Arc<dyn Disk>,
    target: &dyn Target,
    name: Option<&str>,
    into: &Path,
) -> Result<Restored, BackupError> {
    let name = name.map(|name| name.parse().unwrap());
    let options = RestoreOptions { name, into: into.to_owned(), skip_damaged: false };
    restore(target, disk, &options, &mut quiet())
}

/// What is wrong with a backup, the newest unless one is named.
fn findings(target: &Arc<dyn Target>, name: Option<&str>) -> Vec<Finding> {
    let name = name.map(|name| name.parse().unwrap());
    verify(target, name.as_ref(), &mut quiet()).unwrap().findings
}

/// The directory of a store, and a place for backups of it.
struct Bench {
    root: tempfile::TempDir,
    data: PathBuf,
    kept: PathBuf,
    target: Arc<dyn Target>,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (data, kept) = (root.path().join("data"), root.path().join("kept"));
        let target = directory(&system(), &kept);
        Self { root, data, kept, target }
    }

    /// One whose store has something, and is closed.
    async fn furnished() -> Self {
        let bench = Self::new();
        let store = open(&bench.data).unwrap();
        furnish(&store, 0).await;
        store.close().await.unwrap();
        bench
    }

    fn beside(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(name)
    }

    /// A backup of the store, which nobody has open.
    fn make(&self, name: &str) -> Result<Made, BackupError> {
        of_stopped(self.target.as_ref(), &self.data, name)
    }

    /// A backup by another clock, which tells how far it is.
    fn make_by(
        &self,
        clock: &Arc<dyn Clock>,
        name: &str,
        told: &mut dyn FnMut(Progress),
    ) -> Result<Made, BackupError> {
        let ask = &mut || panic!("nobody has the store");
        create(self.target.as_ref(), &system(), clock, &options(&self.data, name), ask, told)
    }

    /// A backup of the store, which is open.
    fn make_of(&self, store: &Arc<EmbeddedStore>, name: &str) -> Result<Made, BackupError> {
        of_running(self.target.as_ref(), store, &self.data, name)
    }

    /// Restores a backup, the newest unless one is named.
    fn restore(&self, name: Option<&str>, into: &Path) -> Result<Restored, BackupError> {
        restore_to(&system(), self.target.as_ref(), name, into)
    }

    fn list(&self) -> Vec<Listed> {
        list(self.target.as_ref()).unwrap()
    }
}

async fn content(dir: &Path) -> All {
    let store = open(dir).unwrap();
    assert_eq!(store.status().await.unwrap().quarantined, Vec::<String>::new());
    let all = everything(&store).await;
    store.close().await.unwrap();
    all
}

fn objects(dir: &Path) -> Vec<PathBuf> {
    walk(&dir.join("objects"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_each_backup_comes_back_from_it() {
    let bench = Bench::new();
    let store = open(&bench.data).unwrap();
    furnish(&store, 0).await;
    let first = everything(&store).await;
    let one = bench.make_of(&store, "one").unwrap();
    furnish(&store, 10).await;
    let second = everything(&store).await;
    let two = bench.make_of(&store, "two").unwrap();
    // The third has nothing new but what is written anew each time.
    let three = bench.make_of(&store, "three").unwrap();
    let parts = |made: &Made| made.manifest.files.iter().filter(|file| file.part.is_some()).count();
    assert!(parts(&two) > parts(&one), "{two:?}");
    assert!(
        two.copied_files < two.manifest.files.len() as u64,
        "parts that are there are not copied: {two:?}"
    );
    assert!(three.copied_files <= 1, "{three:?}");
    assert!(
        std::fs::read_dir(bench.data.join("snapshots")).unwrap().next().is_none(),
        "snapshots are removed"
    );
    store.close().await.unwrap();
    // Of a stopped one, too, which is stopped in order afterwards.
    let four = bench.make("four").unwrap();
    assert_eq!(four.manifest.samples, three.manifest.samples);
    std::fs::remove_dir_all(&bench.data).unwrap();

    let names: Vec<String> = bench.list().iter().map(|b| b.name.to_string()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for name in &names {
        assert_eq!(findings(&bench.target, Some(name)), [], "{name}");
        let into = bench.beside(name);
        bench.restore(Some(name), &into).unwrap();
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
    let made = of_stopped(bench.target.as_ref(), &bench.beside("two"), "five").unwrap();
    assert!(made.manifest.samples > two.manifest.samples);
    let scratch = bench.beside("scratch");
    let drilled =
        drill(bench.target.as_ref(), &system(), &clock(), None, &scratch, seed(), &mut quiet()).unwrap();
    assert!(drilled.is_sound(), "{drilled:?}");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_store_that_was_killed_is_in_its_backup() {
    let bench = Bench::new();
    let copy = bench.beside("copy");
    let store = open(&bench.data).unwrap();
    furnish(&store, 0).await;
    let all = everything(&store).await;
    copy_dir(&bench.data, &copy);
    let made = of_stopped(bench.target.as_ref(), &copy, "one").unwrap();
    assert!(made.manifest.samples > 0);
    bench.restore(None, &bench.beside("back")).unwrap();
    assert_eq!(content(&bench.beside("back")).await, all);
    assert_eq!(content(&copy).await, all, "the store is as it was");
    store.close().await.unwrap();
    let nothing = of_stopped(bench.target.as_ref(), bench.root.path(), "two").unwrap_err();
    assert!(nothing.to_string().contains("there is no store in"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_and_never_restored_unless_it_is_left_out() {
    let bench = Bench::furnished().await;
    let made = bench.make("one").unwrap();
    for file in &made.manifest.files {
        let object = bench.kept.join(file.object());
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
            let into = bench.beside("into");
            let found = findings(&bench.target, None);
            assert!(found.len() == 1 && found[0].path == file.path, "{case}: {found:?}");
            let error = bench.restore(None, &into).unwrap_err();
            let told = error.to_string();
            assert!(told.contains("damaged") || told.contains("is not at"), "{case}: {told}");
            let error = open(&into).unwrap_err().to_string();
            assert!(error.contains("half restored"), "{case}: {error}");
            let options = RestoreOptions { name: None, into: into.clone(), skip_damaged: true };
            let rest = restore(bench.target.as_ref(), &system(), &options, &mut quiet()).unwrap();
            assert!(rest.left_out.len() == 1 && rest.left_out[0].path == file.path, "{case}: {rest:?}");
            content(&into).await;
            std::fs::remove_dir_all(&into).unwrap();
        }
        // What is missing or short the next backup brings back; what only reads differently a full one does.
        std::fs::write(&object, &good[1..]).unwrap();
        bench.make("short").unwrap();
        if file.part.is_some() {
            assert_eq!(std::fs::read(&object).unwrap(), good, "{}", file.path);
        }
        std::fs::remove_file(bench.kept.join("backups/short.json")).unwrap();
        std::fs::write(&object, &good).unwrap();
    }
    let object = bench.kept.join(made.manifest.files.last().unwrap().object());
    let good = std::fs::read(&object).unwrap();
    std::fs::write(&object, vec![0; good.len()]).unwrap();
    let full = CreateOptions { full: true, ..options(&bench.data, "full") };
    let ask = &mut || panic!("nobody has the store");
    create(bench.target.as_ref(), &system(), &clock(), &full, ask, &mut quiet()).unwrap();
    assert_eq!(std::fs::read(&object).unwrap(), good);
    assert_eq!(findings(&bench.target, Some("one")), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_damaged_in_the_store_is_told_and_its_good_copy_kept() {
    let bench = Bench::furnished().await;
    let good = bench.make("good").unwrap();
    let part = good.manifest.files.iter().find(|file| file.part.is_some()).unwrap();
    let path = bench.data.join(&part.path);
    let mut bytes = std::fs::read(&path).unwrap();
    // In a page, which is not looked at when a part is opened.
    bytes[40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let next = bench.make("next").unwrap();
    assert!(next.manifest.files.contains(part), "the copy from before the damage is the better one");
    let elsewhere = directory(&system(), &bench.beside("elsewhere"));
    let first = of_stopped(elsewhere.as_ref(), &bench.data, "first").unwrap();
    let damaged: Vec<&str> = first
        .manifest
        .files
        .iter()
        .filter(|file| file.part.as_ref().is_some_and(|part| part.damaged))
        .map(|file| &*file.path)
        .collect();
    assert_eq!(damaged, [&*part.path]);
    let found = findings(&elsewhere, None);
    assert!(found[0].why.contains("damaged already in the store"), "{found:?}");
    // What of it can be read is worth having.
    restore_to(&system(), elsewhere.as_ref(), None, &bench.beside("into")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_leaves_no_half_of_anything() {
    let bench = Bench::furnished().await;
    let faulty = FaultyDisk::over(system());
    let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&faulty);
    let target = directory(&disk, &bench.kept);
    faulty.full.store(true, SeqCst);
    let error = of_stopped(target.as_ref(), &bench.data, "one").unwrap_err().to_string();
    assert!(error.contains("there is no space left"), "{error}");
    faulty.full.store(false, SeqCst);
    assert_eq!(list(target.as_ref()).unwrap().len(), 0);
    of_stopped(target.as_ref(), &bench.data, "one").unwrap();
    faulty.full.store(true, SeqCst);
    let into = bench.beside("into");
    restore_to(&disk, target.as_ref(), None, &into).unwrap_err();
    faulty.full.store(false, SeqCst);
    restore_to(&disk, target.as_ref(), None, &into).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_restored_into_a_directory_of_its_own() {
    let bench = Bench::furnished().await;
    let into = bench.beside("into");
    let nothing = bench.restore(None, &into).unwrap_err().to_string();
    assert!(nothing.contains("there is no backup at file://"), "{nothing}");
    bench.make("one").unwrap();
    bench.make("two").unwrap();
    let unknown = bench.restore(Some("three"), &into).unwrap_err().to_string();
    assert!(unknown.contains("there is no backup three"), "{unknown}");
    let full = bench.restore(None, &bench.data).unwrap_err().to_string();
    assert!(full.contains("is not empty"), "{full}");
    std::fs::create_dir_all(&into).unwrap();
    std::fs::write(into.join("notes.txt"), "x").unwrap();
    let full = bench.restore(None, &into).unwrap_err().to_string();
    assert!(full.contains("is not empty, notes.txt"), "{full}");
    std::fs::remove_file(into.join("notes.txt")).unwrap();
    // Somebody else is at it.
    let lock = Lock::take(&into).unwrap();
    let busy = bench.restore(None, &into).unwrap_err().to_string();
    assert!(busy.contains("is in use"), "{busy}");
    drop(lock);
    std::fs::write(into.join("RESTORING"), "zero 1\n").unwrap();
    let other = bench.restore(None, &into).unwrap_err().to_string();
    assert!(other.contains("another backup is half restored"), "{other}");
    std::fs::remove_file(into.join("RESTORING")).unwrap();
    bench.restore(Some("one"), &into).unwrap();
    let again = bench.restore(Some("one"), &into).unwrap_err().to_string();
    assert!(again.contains("is not empty"), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_a_backup_left_is_removed_by_the_next() {
    let bench = Bench::new();
    let store = open(&bench.data).unwrap();
    furnish(&store, 0).await;
    let left = store.snapshot(false).await.unwrap();
    let mine = store.snapshot(false).await.unwrap();
    std::fs::write(bench.data.join("snapshots").join(&left).join("BACKUP"), "").unwrap();
    bench.make_of(&store, "one").unwrap();
    let there: Vec<String> = std::fs::read_dir(bench.data.join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, [mine], "what somebody asked for stays");
    // The server is of another directory.
    let ask = &mut || Ok("20260101T000000Z-0000000000000001".to_owned());
    let error =
        create(bench.target.as_ref(), &system(), &clock(), &options(&bench.data, "two"), ask, &mut quiet());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the directory of that server?"), "{error}");
    store.close().await.unwrap();
}
