//! Looking at a data directory and mending it: nothing that reads back is lost, and everything else is told.

use std::{collections::BTreeMap, path::PathBuf, sync::atomic::Ordering::SeqCst};

use super::{crashes::furnished, *};
use crate::storage::{
    SeriesSamples,
    embedded::{
        memory_disk::MemoryDisk,
        mend::{Access, Lost, Repair, Report, look, mend},
        part::{Part, mended as part_mended},
    },
};

pub(super) fn looked(dir: &Path) -> Report {
    look(&system(), dir, Access::Alone).unwrap()
}

/// Mends as somebody at a terminal does, which blocks.
pub(super) fn mend_on(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Repair> {
    tokio::task::block_in_place(|| mend(disk, &clock(), dir, false))
}

pub(super) fn mended(dir: &Path) -> Repair {
    let repair = mend_on(&system(), dir).unwrap();
    if let Some(after) = &repair.after {
        assert_eq!(after.findings, [], "{repair:#?}");
    }
    repair
}

/// A copy of a directory as it is now.
pub(super) fn copied(from: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(from, copy.path());
    copy
}

pub(super) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walk(dir).into_iter().map(|path| {
        let bytes = std::fs::read(&path).unwrap();
        (path.strip_prefix(dir).unwrap().to_owned(), bytes)
    });
    files.collect()
}

pub(super) fn parts(dir: &Path) -> Vec<PathBuf> {
    walk(&dir.join("parts"))
}

pub(super) fn change(path: &Path, at: usize, with: impl Fn(u8) -> u8, length: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes.iter_mut().skip(at).take(length).for_each(|byte| *byte = with(*byte));
    std::fs::write(path, bytes).unwrap();
}

pub(super) fn samples(all: &[(Labels, Vec<(i64, u64)>)]) -> usize {
    all.iter().map(|(_, samples)| samples.len()).sum()
}

/// Every sample of `some` is one of `all`.
fn assert_within(some: &[(Labels, Vec<(i64, u64)>)], all: &[(Labels, Vec<(i64, u64)>)], what: &str) {
    for (labels, samples) in some {
        let expect = &all.iter().find(|(l, _)| l == labels).unwrap_or_else(|| panic!("{what}: {labels}")).1;
        assert!(samples.iter().all(|sample| expect.contains(sample)), "{what}: {labels}");
    }
}

/// Opens a store: what it serves, and what it says of damage.
pub(super) async fn served(dir: &Path) -> (Vec<(Labels, Vec<(i64, u64)>)>, Vec<String>) {
    let store = open(dir).unwrap();
    let all = everything(&store).await;
    let told = store.status().await.unwrap().quarantined;
    store.close().await.unwrap();
    (all, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_whole_is_found_whole_and_looking_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    let copy = copied(dir.path());
    let before = files(copy.path());
    let report = looked(copy.path());
    assert_eq!(report.findings, []);
    assert_eq!(report.notes, [""; 0]);
    assert_eq!(usize::try_from(report.samples).unwrap(), samples(&whole), "in parts and in the log");
    assert!(report.parts >= 2 && report.files >= 6, "{report:?}");
    let repair = mend(&system(), &clock(), copy.path(), true).unwrap();
    assert_eq!((repair.steps.len(), repair.after), (0, None));
    assert!(files(copy.path()) == before);
    // Also where nobody can write.
    assert!(look(&system(), &copy.path().join("parts"), Access::Alone).is_err(), "no data directory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_in_use_is_only_read_beside_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    write(&store, &labels(&[("__name__", "a")]), &[(at(1), 1.0)]).await.unwrap();
    store.flush().await.unwrap();
    write(&store, &labels(&[("__name__", "a")]), &[(at(2), 1.0)]).await.unwrap();
    let refused = look(&system(), dir.path(), Access::Alone).unwrap_err().to_string();
    assert!(refused.contains("in use by process"), "{refused}");
    let refused = mend_on(&system(), dir.path()).unwrap_err().to_string();
    assert!(refused.contains("in use by process"), "{refused}");
    let report = look(&system(), dir.path(), Access::Live).unwrap();
    assert_eq!((report.findings, report.samples), (vec![], 2));
    store.close().await.unwrap();
}

/// All samples of a part, with what says whose they are.
fn contents(part: &Part) -> Vec<(TenantId, Labels, SeriesSamples)> {
    let mut all = Vec::new();
    let damage = part.examine(|tenant, labels, samples| {
        all.push((tenant.clone(), labels.clone(), samples.clone()));
        Ok(())
    });
    assert_eq!(damage.unwrap(), []);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turned_bit_in_a_part_is_set_right_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    for part in parts(dir.path()) {
        let name = part.strip_prefix(dir.path()).unwrap();
        let good = std::fs::read(&part).unwrap();
        let before = contents(&Part::open(&system(), &part).unwrap());
        let alone = dir.path().join("alone.part");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(&alone, bad).unwrap();
            let told = || format!("{} at {at}", name.display());
            let set_right = part_mended(&system(), &alone).unwrap_or_else(|e| panic!("{}: {e}", told()));
            assert_eq!((set_right.damage.len(), set_right.bits.len()), (0, 1), "{}", told());
            assert_eq!(set_right.bits[0].offset, at as u64);
            assert!(contents(&set_right.part) == before, "{}", told());
        }
        std::fs::remove_file(&alone).unwrap();
        for at in [17, good.len() / 2, good.len() - 50] {
            let copy = copied(dir.path());
            change(&copy.path().join(name), at, |byte| byte ^ 2, 1);
            let repair = mended(copy.path());
            let told = format!("{} at {at}: {repair:#?}", name.display());
            let [finding] = &repair.before.findings[..] else { panic!("{told}") };
            assert!(finding.lost.is_nothing() && finding.offset == Some(at as u64), "{told}");
            assert!(served(copy.path()).await == (whole.clone(), vec![]), "{told}");
            let kept = format!("quarantine/{}.replaced", part.file_name().unwrap().to_string_lossy());
            assert!(copy.path().join(kept).exists(), "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_read_back_is_told_and_the_rest_is_brought_back() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    let names: Vec<PathBuf> =
        files(dir.path()).into_keys().filter(|f| !f.ends_with("BALLAST") && !f.ends_with("LOCK")).collect();
    for name in names {
        let length = usize::try_from(std::fs::metadata(dir.path().join(&name)).unwrap().len()).unwrap();
        for at in (0..length).step_by((length / 4).max(1)) {
            let copy = copied(dir.path());
            change(&copy.path().join(&name), at, |byte| byte.wrapping_mul(31).wrapping_add(77), 5);
            let changed = std::fs::read(copy.path().join(&name)).unwrap()
                != std::fs::read(dir.path().join(&name)).unwrap();
            let report = looked(copy.path());
            let what = format!("{} at {at}: {report:#?}", name.display());
            // Where the log has ended, and where sled keeps nothing, nothing can be damaged.
            let maybe_nothing = name.starts_with("wal") || name.starts_with(super::super::catalog::CATALOG);
            assert!(!changed || !report.findings.is_empty() || maybe_nothing, "{what}");
            let repair = mended(copy.path());
            let (all, _) = served(copy.path()).await;
            assert_within(&all, &whole, &what);
            let unknown = repair.before.findings.iter().any(|finding| finding.lost.unknown);
            let lost: u64 = repair.before.findings.iter().map(|finding| finding.lost.samples).sum();
            let gone = samples(&whole) - samples(&all);
            assert!(unknown || gone as u64 == lost || name.starts_with("wal"), "{gone} are gone: {what}");
            if !name.starts_with("parts") && !name.starts_with("wal") {
                assert_eq!(gone, 0, "{what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_lost_costs_its_series_and_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let mut all = Vec::new();
    // Noise, so that the pages are many.
    let mut state = 7_u64;
    for s in 0..40 {
        let series = labels(&[("__name__", "m"), ("i", &format!("{s:02}"))]);
        let noise: Vec<(i64, f64)> = (0..800)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (at(i), f64::from_bits(state >> 12 | 0x3ff0_0000_0000_0000))
            })
            .collect();
        write(&store, &series, &noise).await.unwrap();
        all.push(series);
    }
    store.close().await.unwrap();
    drop(store);
    let part = parts(dir.path()).remove(0);
    change(&part, 70_000, |_| 0, 4096);
    let report = looked(dir.path());
    let [finding] = &report.findings[..] else { panic!("{report:#?}") };
    let Lost { unknown: false, series, samples: lost, range: Some(range), examples } = &finding.lost else {
        panic!("{report:#?}")
    };
    assert!((1..=12).contains(series) && *lost == series * 800, "{report:#?}");
    assert_eq!((range.start().0, range.end().0), (at(0), at(799)));
    assert!(examples[0].contains("anonymous") && examples[0].contains("__name__=\"m\""), "{examples:?}");
    mended(dir.path());
    let (left, told) = served(dir.path()).await;
    assert_eq!(samples(&left) as u64, 40 * 800 - lost);
    assert_eq!(told, [""; 0]);
    assert_eq!(looked(dir.path()).notes, ["1 files are in quarantine/, for a person to look at and remove"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_a_start_has_set_aside_is_brought_back() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    let copy = copied(dir.path());
    let part = parts(copy.path()).remove(0);
    let length = usize::try_from(std::fs::metadata(&part).unwrap().len()).unwrap();
    // In the footer: the part does not open.
    change(&part, length - 60, |byte| byte ^ 4, 1);
    let (less, told) = served(copy.path()).await;
    assert!(samples(&less) < samples(&whole) && !told.is_empty(), "{told:?}");
    assert!(!part.exists());
    let repair = mended(copy.path());
    assert!(repair.before.findings[0].what.contains("set aside"), "{repair:#?}");
    assert!(served(copy.path()).await == (whole, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_nothing_is_mended_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    let copy = copied(dir.path());
    change(&parts(copy.path())[0], 40, |byte| byte ^ 1, 1);
    let disk = FaultyDisk::over(system());
    disk.full.store(true, SeqCst);
    let faulty: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&disk);
    let error = mend_on(&faulty, copy.path()).unwrap_err();
    assert!(matches!(error, StorageError::DiskFull { .. }), "{error}");
    disk.full.store(false, SeqCst);
    mend_on(&faulty, copy.path()).unwrap();
    assert!(served(copy.path()).await.0 == whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_may_go_at_any_change_of_a_repair() {
    until_survived(async |cut| {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new(dir.path(), super::super::catalog::CATALOG);
        let plain = FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>);
        let store = open_on(dir.path(), &plain).unwrap();
        for i in 0..3 {
            write(&store, &labels(&[("__name__", "a")]), &[(at(i), 1.0)]).await.unwrap();
            write(&store, &labels(&[("__name__", "b")]), &[(at(i), 2.0)]).await.unwrap();
            if i < 2 {
                store.flush().await.unwrap();
            }
        }
        let whole = everything(&store).await;
        // What the log has is not flushed.
        drop(store);
        let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>;
        let day = disk.list(&dir.path().join("parts")).unwrap().remove(0).name;
        let day = dir.path().join("parts").join(day);
        let part = day.join(disk.list(&day).unwrap().remove(0).name);
        let mut byte = [0];
        disk.open(&part).unwrap().read_exact_at(&mut byte, 30).unwrap();
        let mut file = disk.open_write(&part).unwrap();
        file.write_all_at(&[byte[0] ^ 8], 30).unwrap();
        file.sync_all().unwrap();
        let faulty = FaultyDisk::over(Arc::clone(&disk));
        faulty.power.store(cut, SeqCst);
        let faulty_disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&faulty);
        let outcome = once_free(|| mend_on(&faulty_disk, dir.path()));
        let survived = faulty.power.load(SeqCst) > 1;
        assert!(outcome.is_ok() || !survived, "{outcome:?}");
        memory.lose_power();
        // A start after the cut has everything, and so has a second repair.
        if cut % 2 == 0 {
            let store = open_on(dir.path(), &plain).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
            assert_within(&everything(&store).await, &whole, &format!("cut at {cut}"));
            store.close().await.unwrap();
        }
        let again = mend_on(&disk, dir.path()).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        let left = again.after.map_or_else(Vec::new, |after| after.findings);
        assert_eq!(left, [], "cut at {cut}");
        let store = open_on(dir.path(), &plain).unwrap();
        assert!(everything(&store).await == whole, "cut at {cut}");
        store.close().await.unwrap();
        survived
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_another_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    furnished(dir.path()).await;
    let copy = copied(dir.path());
    let part = parts(copy.path()).remove(0);
    let mut bytes = std::fs::read(&part).unwrap();
    let trailer = bytes.len() - 48;
    bytes[trailer + 28] = 77;
    let crc = crc32c::crc32c(&bytes[trailer..trailer + 36]);
    bytes[trailer + 36..trailer + 40].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&part, bytes).unwrap();
    let before = files(copy.path());
    for error in [
        look(&system(), copy.path(), Access::Alone).unwrap_err(),
        mend_on(&system(), copy.path()).unwrap_err(),
        open(copy.path()).unwrap_err(),
    ] {
        assert!(error.to_string().contains("a format this version does not know"), "{error}");
    }
    for (name, bytes) in before {
        let own = name.starts_with(super::super::catalog::CATALOG) || name.ends_with("LOCK");
        assert!(own || std::fs::read(copy.path().join(&name)).unwrap() == bytes, "{name:?}");
    }
}
