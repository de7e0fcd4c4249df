use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::{
    model::{TenantId, Timestamp},
    storage::embedded::disk::SystemDisk,
};

fn config(dir: &TempDir) -> CatalogConfig {
    CatalogConfig { data_dir: dir.path().to_owned(), min_free_bytes: 0 }
}

fn system() -> Arc<dyn Disk> {
    Arc::new(SystemDisk)
}

fn tenant(i: u32) -> TenantRow {
    TenantRow { tenant: TenantId::new(&format!("tenant-{i:05}")).unwrap(), created: Timestamp(i64::from(i)) }
}

fn put(rows: impl IntoIterator<Item = u32>) -> Change {
    let mut change = Change::new();
    for i in rows {
        change.put(&tenant(i));
    }
    change
}

fn open(dir: &TempDir) -> Catalog {
    match Catalog::open(&system(), &config(dir)).unwrap() {
        CatalogState::Ready { catalog, .. } => catalog,
        other => panic!("{other:?}"),
    }
}

fn reason(dir: &TempDir) -> String {
    match Catalog::open(&system(), &config(dir)).unwrap() {
        CatalogState::Rebuild { reason } => reason,
        other => panic!("{other:?}"),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn rows_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Catalog::open(&system(), &config(&dir)).unwrap(), CatalogState::Absent));
    let catalog = Catalog::create(&system(), &config(&dir), put(0..3)).unwrap();
    let mut change = put([7]);
    change.remove(&tenant(1)).put(&Cursor { name: "next".into(), value: 4 });
    assert_eq!(catalog.commit(change).unwrap(), 2);
    // Dropped as a kill would, without closing.
    drop(catalog);
    let catalog = open(&dir);
    assert_eq!(catalog.rows::<TenantRow>().unwrap(), [tenant(0), tenant(2), tenant(7)]);
    assert_eq!(catalog.rows::<Cursor>().unwrap(), [Cursor { name: "next".into(), value: 4 }]);
    assert_eq!(catalog.rows::<PartRow>().unwrap(), []);
    assert_eq!(catalog.generation().unwrap(), 2);
    catalog.close().unwrap();
    let CatalogState::Ready { catalog, clean } = Catalog::open(&system(), &config(&dir)).unwrap() else {
        panic!("it was closed in order");
    };
    assert!(clean);
    catalog.commit(put([8])).unwrap();
    drop(catalog);
    assert!(matches!(
        Catalog::open(&system(), &config(&dir)).unwrap(),
        CatalogState::Ready { clean: false, .. }
    ));
}

#[test]
fn an_older_copy_of_the_catalog_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::create(&system(), &config(&dir), put(0..3)).unwrap();
    drop(catalog);
    let old = dir.path().join("old");
    copy(&dir.path().join(CATALOG), &old);
    let catalog = open(&dir);
    catalog.commit(put([9])).unwrap();
    drop(catalog);
    fs::remove_dir_all(dir.path().join(CATALOG)).unwrap();
    fs::rename(&old, dir.path().join(CATALOG)).unwrap();
    assert!(reason(&dir).contains("generation 1, 2 was promised"));
    // A new one goes on from the generation that was promised.
    let catalog = Catalog::create(&system(), &config(&dir), put(0..4)).unwrap();
    assert_eq!(catalog.generation().unwrap(), 3);
    drop(catalog);
    assert_eq!(open(&dir).rows::<TenantRow>().unwrap().len(), 4);
}

#[test]
fn a_superblock_behind_the_catalog_is_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::create(&system(), &config(&dir), put(0..3)).unwrap();
    let old = fs::read(dir.path().join(SUPERBLOCK)).unwrap();
    catalog.commit(put([9])).unwrap();
    drop(catalog);
    // As if the power went between the flush and the superblock.
    fs::write(dir.path().join(SUPERBLOCK), old).unwrap();
    assert_eq!(open(&dir).rows::<TenantRow>().unwrap().len(), 4);
}

#[test]
fn what_is_missing_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    drop(Catalog::create(&system(), &config(&dir), put(0..3)).unwrap());
    let superblock = fs::read(dir.path().join(SUPERBLOCK)).unwrap();
    fs::remove_file(dir.path().join(SUPERBLOCK)).unwrap();
    assert!(reason(&dir).contains("superblock is missing"));
    fs::write(dir.path().join(SUPERBLOCK), b"nonsense").unwrap();
    assert!(reason(&dir).contains("superblock is damaged"));
    fs::write(dir.path().join(SUPERBLOCK), superblock).unwrap();
    fs::remove_dir_all(dir.path().join(CATALOG)).unwrap();
    assert!(reason(&dir).contains("catalog is missing"));
    drop(Catalog::create(&system(), &config(&dir), Change::new()).unwrap());
    assert_eq!(open(&dir).rows::<TenantRow>().unwrap(), []);
}

/// Whatever file of sled's is damaged: the same rows, or a rebuild; never a panic, never other rows.
#[test]
fn a_damaged_catalog_is_rebuilt_or_right() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::create(&system(), &config(&dir), put(0..200)).unwrap();
    for i in 200..220 {
        catalog.commit(put([i])).unwrap();
    }
    drop(catalog);
    let expect: Vec<TenantRow> = (0..220).map(tenant).collect();
    let good = dir.path().join("good");
    copy(&dir.path().join(CATALOG), &good);
    let mut rebuilt = 0;
    for file in files(&good) {
        let bytes = fs::read(&file).unwrap();
        let name = file.strip_prefix(&good).unwrap().to_owned();
        for at in (0..bytes.len()).step_by((bytes.len() / 6).max(1)).chain(bytes.len().checked_sub(1)) {
            fs::remove_dir_all(dir.path().join(CATALOG)).unwrap();
            copy(&good, &dir.path().join(CATALOG));
            let mut bad = bytes.clone();
            bad[at] ^= 0x20;
            fs::write(dir.path().join(CATALOG).join(&name), bad).unwrap();
            match Catalog::open(&system(), &config(&dir)).unwrap() {
                CatalogState::Ready { catalog, .. } => {
                    assert_eq!(catalog.rows::<TenantRow>().unwrap(), expect)
                }
                CatalogState::Rebuild { .. } => rebuilt += 1,
                CatalogState::Absent => panic!("it is there"),
            }
        }
    }
    assert!(rebuilt > 0, "a flip in what is in use is noticed");
    drop(Catalog::create(&system(), &config(&dir), put(0..220)).unwrap());
    assert_eq!(open(&dir).rows::<TenantRow>().unwrap(), expect);
}

#[test]
fn many_callers_share_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::create(&system(), &config(&dir), Change::new()).unwrap();
    thread::scope(|scope| {
        for caller in 0..4 {
            let catalog = &catalog;
            scope.spawn(move || {
                for i in 0..25 {
                    // Puts and removes together, which hangs sled when done from several threads.
                    let mut change = put([caller * 1000 + i, caller * 1000 + 500]);
                    if i > 0 && i % 5 == 0 {
                        change.remove(&tenant(caller * 1000 + i - 1));
                    }
                    catalog.commit(change).unwrap();
                    assert!(!catalog.rows::<TenantRow>().unwrap().is_empty());
                }
            });
        }
    });
    let generation = catalog.generation().unwrap();
    assert!(generation <= 101, "{generation}");
    let rows = catalog.rows::<TenantRow>().unwrap();
    assert_eq!(rows.len(), 4 * (25 + 1 - 4));
    drop(catalog);
    assert_eq!(open(&dir).rows::<TenantRow>().unwrap(), rows);
}

#[test]
fn without_room_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    drop(Catalog::create(&system(), &config(&dir), put(0..3)).unwrap());
    let full = CatalogConfig { min_free_bytes: u64::MAX, ..config(&dir) };
    let CatalogState::Ready { catalog, .. } = Catalog::open(&system(), &full).unwrap() else {
        panic!("reading needs no room");
    };
    assert!(matches!(catalog.commit(put([4])), Err(StorageError::DiskFull { .. })));
    assert_eq!(catalog.rows::<TenantRow>().unwrap().len(), 3);
    drop(catalog);
    open(&dir).commit(put([4])).unwrap();
}

#[test]
fn after_an_error_the_catalog_is_dead_and_can_be_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::create(&system(), &config(&dir), put(0..3)).unwrap();
    // A directory where the superblock should be written.
    fs::remove_file(dir.path().join(SUPERBLOCK)).unwrap();
    fs::create_dir(dir.path().join(SUPERBLOCK)).unwrap();
    assert!(catalog.commit(put([4])).is_err());
    assert!(matches!(catalog.commit(put([5])), Err(StorageError::Unavailable { .. })));
    assert!(matches!(catalog.rows::<TenantRow>(), Err(StorageError::Unavailable { .. })));
    drop(catalog);
    fs::remove_dir(dir.path().join(SUPERBLOCK)).unwrap();
    drop(Catalog::create(&system(), &config(&dir), put(0..2)).unwrap());
    assert_eq!(open(&dir).rows::<TenantRow>().unwrap().len(), 2);
}

#[test]
fn much_writing_gives_its_memory_back() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::create(&system(), &config(&dir), Change::new()).unwrap();
    let big = |i: u32| Cursor { name: format!("{i:04}{}", "x".repeat(3000)), value: u64::from(i) };
    for batch in 0..12 {
        let mut change = Change::new();
        for i in 0..1000 {
            change.put(&big(batch % 3 * 1000 + i));
        }
        catalog.commit(change).unwrap();
    }
    // 36 MB were written, so it was opened anew on the way.
    assert_eq!(catalog.rows::<Cursor>().unwrap().len(), 3000);
    drop(catalog);
    assert_eq!(open(&dir).rows::<Cursor>().unwrap().len(), 3000);
}
