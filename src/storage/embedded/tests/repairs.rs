//! What comes after a repair: the damaged original never counts again, whatever becomes of what stands for it.

use std::sync::atomic::Ordering::SeqCst;

use super::{
    crashes::furnished,
    mending::{change, copied, looked, mended, parts, samples, served},
    *,
};
use crate::{
    model::Matcher,
    storage::{
        Runs, SeriesSamples,
        embedded::{
            memory_disk::MemoryDisk,
            pace::Haste,
            part::{Part, PartFacts, PartId, PartWriter, Section},
        },
    },
};

/// Writes every part anew, alone, as a merge does.
fn rewrite_all(dir: &Path) {
    tokio::task::block_in_place(|| {
        let engine = Engine::open_at(small(dir), system(), clock()).unwrap();
        let rewrites = &mut *engine.rewrites.lock();
        for sealed in &engine.view.load_full().parts {
            if engine.serves(sealed) {
                assert!(engine.rewrite(rewrites, std::slice::from_ref(sealed), Haste::Now).unwrap());
            }
        }
        engine.leaving.store(true, SeqCst);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_repaired_is_no_damage_when_its_replacement_was_merged() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    for set_aside_first in [false, true] {
        let copy = copied(dir.path());
        let part = parts(copy.path()).remove(0);
        let length = usize::try_from(std::fs::metadata(&part).unwrap().len()).unwrap();
        // In the footer a start finds it, in a page only a repair.
        change(&part, if set_aside_first { length - 60 } else { 40 }, |byte| byte ^ 4, 1);
        if set_aside_first {
            assert!(samples(&served(copy.path()).await.0) < samples(&whole));
        }
        mended(copy.path());
        for merged in [false, true, true] {
            if merged {
                rewrite_all(copy.path());
            }
            assert!(served(copy.path()).await == (whole.clone(), vec![]), "merged: {merged}");
            let report = looked(copy.path());
            assert_eq!(report.findings, [], "merged: {merged}");
            assert_eq!(report.notes.len(), 1, "it lies there: {:?}", report.notes);
        }
        let name = format!("{}.replaced", part.file_name().unwrap().to_string_lossy());
        assert!(copy.path().join("quarantine").join(name).exists());
    }
}

/// Writes a part that has all of another and stands for it.
fn stand_in(disk: &Arc<dyn Disk>, dir: &Path, of: &Path, id: PartId, at: i64) -> Result<()> {
    let old = Part::open(disk, of)?;
    let mut writer = PartWriter::create(disk, &id.path(&dir.join("parts"), Timestamp(at)))?;
    old.examine(|tenant, labels, samples| writer.add(tenant, labels, samples))?;
    let facts = PartFacts { id, covers_wal: old.meta().covers_wal, replaces: vec![old.id()], downsampled: 0 };
    writer.finish(facts).map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_part_goes_also_when_it_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    let copy = copied(dir.path());
    let part = parts(copy.path()).remove(0);
    stand_in(&system(), copy.path(), &part, PartId(99), at(0)).unwrap();
    let length = usize::try_from(std::fs::metadata(&part).unwrap().len()).unwrap();
    change(&part, length - 60, |_| 0, 8);
    for _ in 0..2 {
        assert!(served(copy.path()).await == (whole.clone(), vec![]));
        assert!(!part.exists() && !copy.path().join("quarantine").exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_replaced_and_cannot_be_marked_keeps_nobody_from_opening() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    let copy = copied(dir.path());
    let part = parts(copy.path()).remove(0);
    stand_in(&system(), copy.path(), &part, PartId(99), at(0)).unwrap();
    let aside = copy.path().join("quarantine").join(part.file_name().unwrap());
    std::fs::create_dir(aside.parent().unwrap()).unwrap();
    std::fs::copy(&part, &aside).unwrap();
    let disk = FaultyDisk::over(system());
    disk.fail_links.store(true, SeqCst);
    let store = open_on(copy.path(), &disk).unwrap();
    assert!(everything(&store).await == whole);
    assert_eq!(store.status().await.unwrap().quarantined, [""; 0]);
    write(&store, &labels(&[("__name__", "more")]), &[(at(1), 1.0)]).await.unwrap();
    let refused = store.flush().await.unwrap_err();
    assert!(refused.to_string().contains("removing replaced parts"), "{refused}");
    tokio::task::block_in_place(|| {
        let engine = store.engine();
        for sealed in &engine.view.load_full().parts {
            let alone = std::slice::from_ref(sealed);
            assert!(engine.rewrite(&mut engine.rewrites.lock(), alone, Haste::Now).is_err());
        }
    });
    assert!(part.exists() && aside.exists(), "what goes first has not gone");
    disk.fail_links.store(false, SeqCst);
    store.flush().await.unwrap();
    assert!(!part.exists() && !aside.exists());
    let marked = format!("{}.replaced", part.file_name().unwrap().to_string_lossy());
    assert!(copy.path().join("quarantine").join(marked).exists());
    let more = everything(&store).await;
    store.close().await.unwrap();
    drop(store);
    rewrite_all(copy.path());
    assert!(served(copy.path()).await == (more, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_whose_index_is_damaged_stands_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    let copy = copied(dir.path());
    let before = parts(copy.path());
    stand_in(&system(), copy.path(), &before[0], PartId(99), at(0)).unwrap();
    let new = parts(copy.path()).into_iter().find(|path| !before.contains(path)).unwrap();
    let index = Part::open(&system(), &new).unwrap().index_at();
    change(&new, usize::try_from(index).unwrap(), |byte| byte ^ 0x55, 3);
    let (all, told) = served(copy.path()).await;
    assert!(all == whole && before[0].exists());
    assert!(told.iter().any(|told| told.contains("does not stand for others")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_for_a_part_is_durable_before_that_goes() {
    until_survived(async |cut| {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new(dir.path(), super::super::catalog::CATALOG);
        let plain = FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>);
        let store = open_on(dir.path(), &plain).unwrap();
        write(&store, &labels(&[("__name__", "a")]), &[(at(0), 1.0)]).await.unwrap();
        store.flush().await.unwrap();
        let whole = everything(&store).await;
        store.close().await.unwrap();
        drop(store);
        let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(&memory);
        let days = dir.path().join("parts");
        let day = days.join(&disk.list(&days).unwrap()[0].name);
        let part = day.join(&disk.list(&day).unwrap()[0].name);
        // Who writes it is killed, in the directory of another day, whose name is new.
        let faulty = FaultyDisk::over(Arc::clone(&disk));
        faulty.power.store(cut, SeqCst);
        let written = stand_in(&(Arc::<FaultyDisk>::clone(&faulty) as _), dir.path(), &part, PartId(9), 0);
        let survived = faulty.power.load(SeqCst) > 1;
        assert!(written.is_ok() || !survived, "{written:?}");
        // The next start finds it by its name, which the power takes.
        drop(open_on(dir.path(), &plain).unwrap());
        memory.lose_power();
        let store = open_on(dir.path(), &plain).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        assert!(everything(&store).await == whole, "cut at {cut}");
        store.close().await.unwrap();
        survived
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_brought_back_whose_index_has_more_than_one_bad_bit() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    let copy = copied(dir.path());
    let part = parts(copy.path()).remove(0);
    let index = usize::try_from(Part::open(&system(), &part).unwrap().index_at()).unwrap();
    // Where its pages lie.
    change(&part, index, |byte| byte ^ 1, 2);
    assert!(samples(&served(copy.path()).await.0) < samples(&whole));
    let repair = mended(copy.path());
    assert!(repair.before.findings.iter().all(|finding| finding.lost.is_nothing()), "{repair:#?}");
    assert!(served(copy.path()).await == (whole, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_of_any_range_go_around_damage_of_the_index() {
    const SERIES: u32 = 1500;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let series: Vec<Labels> = (0..u64::from(SERIES))
        .map(|i| {
            let pod = format!("{:016x}", (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            labels(&[("__name__", "m"), ("pod", &pod)])
        })
        .collect();
    // Times of their own, so that there is much to be told of them.
    let samples: Vec<(u32, i64, f64)> = (0..SERIES)
        .flat_map(|i| (0..3_u32).map(move |k| (i, at(i64::from(k) * 60) + i64::from(i * 7 + k * i), 1.0)))
        .collect();
    store.append(&tenant(), batch(&series, &samples)).await.unwrap();
    store.flush().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    for section in [Section::Labels, Section::Times, Section::Series] {
        let copy = copied(dir.path());
        let path = parts(copy.path()).remove(0);
        let place = Part::open(&system(), &path).unwrap().place(section);
        change(&path, place.start + place.len() / 2, |byte| byte ^ 5, 2);
        let store = open(copy.path()).unwrap();
        let whole = TimeRange::ALL;
        for range in [whole, TimeRange::new(Timestamp(at(0)), Timestamp(at(60))).unwrap()] {
            let mut request = SelectRequest::new(vec![Matcher::equal("__name__", "m")], range);
            request.values = range != whole;
            let estimate = store.estimate(&tenant(), request.clone()).await.unwrap();
            let selected = store.select(&tenant(), request).await.unwrap();
            let Runs::SeriesMajor(reader) = &selected.runs else { panic!("{:?}", selected.runs) };
            let mut shown = 0;
            for ordinal in 0..selected.series.len() {
                let mut samples = SeriesSamples::default();
                reader.read(ordinal, &mut samples).unwrap();
                shown += u32::from(!samples.is_empty());
            }
            let told = [selected.warnings, reader.warnings()].concat();
            assert!(!told.is_empty(), "{section:?} {range:?}");
            assert!((SERIES / 2..SERIES).contains(&shown), "{section:?} {range:?}: {shown}");
            assert!(estimate.series > u64::from(SERIES / 2), "{section:?} {range:?}: {estimate:?}");
        }
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damaged_ledger_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    furnished(dir.path()).await;
    let copy = copied(dir.path());
    let mut damaged = Vec::new();
    for byte in [30, 31, 32] {
        change(&copy.path().join("LEDGER"), byte, |byte| byte ^ 0x55, 1);
        damaged.push(std::fs::read(copy.path().join("LEDGER")).unwrap());
        mended(copy.path());
    }
    let kept = ["LEDGER", "LEDGER.2", "LEDGER.3"];
    let kept = kept.map(|name| std::fs::read(copy.path().join("quarantine").join(name)).unwrap());
    assert!(kept.as_slice() == damaged);
}
