//! Merges beside all else: flushes, retention, deletes, and the end of the power.

use std::{collections::BTreeMap, sync::atomic::Ordering::SeqCst};

use super::*;
use crate::storage::embedded::{
    memory_disk::MemoryDisk,
    pace::Haste,
    part::{PartFacts, PartId, PartWriter},
    view::Sealed,
};

const DAY: i64 = 86_400_000;

fn series(i: u32) -> Labels {
    labels(&[("i", &i.to_string())])
}

/// A time of the day before yesterday.
fn then(millis: i64) -> i64 {
    NOW.0 - NOW.0.rem_euclid(DAY) - 2 * DAY + millis
}

fn put(engine: &Engine, of: u32, at: i64, value: f64) -> Result<()> {
    append_now(engine, batch(&[series(of)], &[(0, at, value)]))
}

type Seen = BTreeMap<(Labels, i64), u64>;

fn seen(engine: &Engine) -> Seen {
    let selected = engine.select(&tenant(), &SelectRequest::new(vec![], TimeRange::ALL), &|| false).unwrap();
    let crate::storage::Runs::SeriesMajor(reader) = selected.runs else { panic!("series major") };
    let mut all = Seen::new();
    for (i, labels) in selected.series.iter().enumerate() {
        let mut samples = crate::storage::SeriesSamples::default();
        reader.read(i, &mut samples).unwrap();
        let times = samples.timestamps.iter().zip(&samples.values);
        all.extend(times.map(|(t, v)| ((labels.clone(), *t), v.to_bits())));
    }
    all
}

fn open_with(dir: &Path, disk: Arc<dyn Disk>) -> Result<Engine> {
    Engine::open_at(small(dir), disk, clock())
}

/// Parts of the day before yesterday, which are not merged yet.
fn with_parts(dir: &Path, parts: u32) -> Engine {
    let engine = open_with(dir, Arc::new(SystemDisk)).unwrap();
    for i in 0..parts {
        put(&engine, i, then(i64::from(i)), 1.0).unwrap();
        put(&engine, 99, then(7), f64::from(i)).unwrap();
        engine.flush_head().unwrap();
    }
    engine
}

fn parts(engine: &Engine) -> Vec<Arc<Sealed>> {
    engine.view.load().parts.clone()
}

#[test]
fn a_day_that_is_over_becomes_one_part() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_parts(dir.path(), 3);
    let before = seen(&engine);
    assert_eq!(parts(&engine).len(), 3);
    engine.merge_days(Haste::Paced);
    assert_eq!(parts(&engine).len(), 1);
    assert_eq!(seen(&engine), before);
    assert_eq!(before[&(series(99), then(7))], 2.0_f64.to_bits(), "the newest stays");
    assert_eq!(walk(&dir.path().join("parts")).len(), 1);
    engine.close().unwrap();
}

#[test]
fn a_flush_does_not_wait_for_a_merge() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_parts(dir.path(), 2);
    let merging = engine.rewrites.lock();
    put(&engine, 5, then(500), 1.0).unwrap();
    engine.flush_head().unwrap();
    engine.enforce_retention().unwrap();
    engine.snapshot(false).unwrap();
    drop(merging);
    assert_eq!(parts(&engine).len(), 3);
    engine.close().unwrap();
}

#[test]
fn parts_that_come_while_others_are_merged_stay_the_newer_ones() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_parts(dir.path(), 3);
    let inputs = parts(&engine);
    put(&engine, 99, then(7), 50.0).unwrap();
    engine.flush_head().unwrap();
    assert!(engine.rewrite(&mut engine.rewrites.lock(), &inputs, Haste::Now).unwrap());
    assert_eq!(parts(&engine).len(), 2);
    let whole = seen(&engine);
    assert_eq!(whole[&(series(99), then(7))], 50.0_f64.to_bits());
    drop(engine);
    let again = open_with(dir.path(), Arc::new(SystemDisk)).unwrap();
    assert_eq!(seen(&again), whole);
    again.close().unwrap();
}

#[test]
fn where_an_input_has_gone_the_others_serve_on() {
    for file_too in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let engine = with_parts(dir.path(), 3);
        let inputs = parts(&engine);
        let view = engine.view.load_full();
        engine.view.store(Arc::new(view.with_parts(inputs[1..].to_vec())));
        if file_too {
            std::fs::remove_file(inputs[0].path()).unwrap();
        }
        let left = seen(&engine);
        assert!(!engine.rewrite(&mut engine.rewrites.lock(), &inputs, Haste::Now).unwrap());
        assert_eq!(seen(&engine), left);
        let files = walk(&dir.path().join("parts"));
        assert_eq!(files.len(), 3 - usize::from(file_too), "the new part is removed: {files:?}");
        engine.close().unwrap();
    }
}

#[test]
fn a_merge_takes_room_on_the_disk_and_gives_up_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    drop(with_parts(dir.path(), 3));
    let disk = FaultyDisk::over(Arc::new(SystemDisk));
    let engine = open_with(dir.path(), Arc::<FaultyDisk>::clone(&disk) as Arc<dyn Disk>).unwrap();
    disk.full.store(true, SeqCst);
    engine.merge_days(Haste::Now);
    disk.full.store(false, SeqCst);
    assert_eq!(parts(&engine).len(), 3);
    assert_eq!(engine.counters.merge_failures.load(SeqCst), 0);
    engine.leaving.store(true, SeqCst);
    assert!(engine.rewrite(&mut engine.rewrites.lock(), &parts(&engine), Haste::Now).is_err());
    engine.leaving.store(false, SeqCst);
    assert_eq!(walk(&dir.path().join("parts")).len(), 3, "what was not finished is removed");
    engine.merge_days(Haste::Now);
    assert_eq!(parts(&engine).len(), 1);
    engine.close().unwrap();
}

#[test]
fn a_merge_waits_for_memory_and_goes_by_small_steps_where_there_never_is_any() {
    let dir = tempfile::tempdir().unwrap();
    drop(with_parts(dir.path(), 4));
    let hand = HandClock::at(NOW);
    let clock: Arc<dyn Clock> = Arc::<HandClock>::clone(&hand);
    let engine = Engine::open_at(small(dir.path()), Arc::new(SystemDisk), clock).unwrap();
    let held = Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX));
    let asked = Arc::clone(&held);
    engine.budget.share(Arc::new(move || asked.load(SeqCst)));
    let before = seen(&engine);
    for left in [4, 3] {
        for _ in 0..2 {
            engine.merge_days(Haste::Now);
            assert_eq!(parts(&engine).len(), left);
        }
        hand.advance(Duration::from_secs(60));
    }
    held.store(0, SeqCst);
    engine.merge_days(Haste::Now);
    assert_eq!(parts(&engine).len(), 1, "with room, all at once");
    assert_eq!(seen(&engine), before);
    engine.close().unwrap();
}

#[test]
fn small_parts_are_merged_where_there_is_no_room_for_the_large_one_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let clock: Arc<dyn Clock> = Arc::<HandClock>::clone(&hand);
    let engine = Engine::open_at(small(dir.path()), Arc::new(SystemDisk), clock).unwrap();
    let large: Vec<_> = (0..40_000).map(|i| (0, then(i), (i as f64).sqrt())).collect();
    append_now(&engine, batch(&[series(0)], &large)).unwrap();
    engine.flush_head().unwrap();
    for i in 0..4 {
        put(&engine, 1, then(i), 1.0).unwrap();
        engine.flush_head().unwrap();
    }
    let before = seen(&engine);
    let held = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let asked = Arc::clone(&held);
    engine.budget.share(Arc::new(move || asked.load(SeqCst)));
    let heads: u64 = engine.view.load().heads.iter().map(|head| head.bytes()).sum();
    held.store(engine.budget.room() - heads * 2 - 200_000, SeqCst);
    for _ in 0..2 {
        engine.merge_days(Haste::Now);
        let samples: Vec<u64> = parts(&engine).iter().map(|part| part.samples()).collect();
        assert_eq!(samples, [40_000, 4], "the large one waits");
    }
    hand.advance(Duration::from_secs(60));
    engine.merge_days(Haste::Now);
    assert_eq!(parts(&engine).len(), 1);
    assert_eq!(seen(&engine), before);
    engine.close().unwrap();
}

/// Writes a part as a flush does while the log is not durable: all of those have the same place in the log.
fn sealed(dir: &Path, id: u64, samples: &[(i64, f64)]) {
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let (at, mut all) = (Timestamp(samples[0].0), crate::storage::SeriesSamples::default());
    samples.iter().for_each(|(at, value)| all.push(*at, *value, 0));
    let mut writer = PartWriter::create(&disk, &PartId(id).path(&dir.join("parts"), at)).unwrap();
    writer.add(&tenant(), &series(0), &all).unwrap();
    writer.finish(PartFacts { id: PartId(id), covers_wal: 5, replaces: Vec::new(), downsampled: 0 }).unwrap();
}

#[test]
fn what_comes_along_with_inputs_takes_along_what_is_newer_than_it() {
    let dir = tempfile::tempdir().unwrap();
    // The second stands behind the first and the third behind the second, of which the first knows nothing.
    sealed(dir.path(), 1, &[(then(1), 1.0)]);
    sealed(dir.path(), 2, &[(then(1), 2.0), (then(DAY), 2.0)]);
    sealed(dir.path(), 3, &[(then(DAY), 3.0), (then(2 * DAY), 3.0)]);
    sealed(dir.path(), 4, &[(then(2 * DAY), 4.0)]);
    let engine = open_with(dir.path(), Arc::new(SystemDisk)).unwrap();
    let before = seen(&engine);
    let values: Vec<f64> = before.values().map(|bits| f64::from_bits(*bits)).collect();
    assert_eq!(values, [2.0, 3.0, 4.0]);
    let first = &parts(&engine)[..1];
    assert!(engine.rewrite(&mut engine.rewrites.lock(), first, Haste::Now).unwrap());
    assert_eq!(seen(&engine), before);
    engine.close().unwrap();
}

/// Writes, flushes, merges, deletes and tidies; what was acknowledged and seen.
fn live(engine: &Engine, life: u32, deleted: &mut [bool; 2]) -> Seen {
    let mut acked = Seen::new();
    let mut put_seen = |of: u32, at: i64, value: f64| {
        // Where a delete may hide it, only what was seen has to stay.
        if put(engine, of, at, value).is_ok() && seen(engine).contains_key(&(series(of), at)) {
            acked.insert((series(of), at), value.to_bits());
        }
    };
    for round in 0..3_u32 {
        for of in 0..3 {
            put_seen(of, then(i64::from(life * 100 + round)), f64::from(life * 10 + round));
        }
        put_seen(7, then(7), f64::from(life * 10 + round));
        let _ = engine.flush_head();
    }
    engine.merge_days(Haste::Now);
    let gone = vec![vec![crate::model::Matcher::equal("i", "2")]];
    if let Ok(ticket) = engine.delete(&tenant(), gone, TimeRange::ALL) {
        deleted[life as usize] = ticket.block().is_ok();
        let of_deleted = |(labels, _): &(Labels, i64)| *labels == series(2);
        // Whether it is durable or not, the delete may hold.
        acked.retain(|key, _| !of_deleted(key));
    }
    let _ = engine.tidy(Haste::Now);
    // If the delete has ended this is seen, and has to stay.
    if put(engine, 2, then(9000 + i64::from(life)), 1.0).is_ok()
        && seen(engine).contains_key(&(series(2), then(9000 + i64::from(life))))
    {
        acked.insert((series(2), then(9000 + i64::from(life))), 1.0_f64.to_bits());
    }
    let _ = engine.enforce_retention();
    acked
}

#[test]
fn the_power_may_go_at_any_point_of_merges_and_of_what_follows() {
    let mut survived = false;
    let mut cut = 2_u64;
    while !survived {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new(dir.path(), super::super::catalog::CATALOG);
        let (mut acked, mut deleted) = (Seen::new(), [false; 2]);
        survived = true;
        // A second life meets what a start after a power cut leaves behind.
        for life in 0..if cut.is_multiple_of(4) { 2 } else { 1 } {
            let disk = FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>);
            disk.power.store(cut, SeqCst);
            if let Ok(engine) = open_with(dir.path(), Arc::<FaultyDisk>::clone(&disk) as Arc<dyn Disk>) {
                // A delete of this life may hide what was seen in the one before.
                let now = live(&engine, life, &mut deleted);
                if life > 0 {
                    acked.retain(|(labels, _), _| *labels != series(2));
                }
                acked.extend(now);
            }
            survived &= disk.power.load(SeqCst) > 1;
            memory.lose_power();
        }
        let engine = open_with(dir.path(), FaultyDisk::over(memory))
            .unwrap_or_else(|e| panic!("power cut at {cut}: {e}"));
        let all = seen(&engine);
        for (key, value) in &acked {
            let newer = key.0 == series(7);
            assert!(newer || all.get(key) == Some(value), "power cut at {cut}: {key:?} is gone");
            assert!(all.contains_key(key), "power cut at {cut}: {key:?} is gone");
        }
        for (was_deleted, before) in deleted.into_iter().zip([then(100), then(9000)]) {
            let back = all.keys().find(|(l, t)| *l == series(2) && *t < before);
            assert!(!was_deleted || back.is_none(), "power cut at {cut}: a delete is undone: {back:?}");
        }
        assert_eq!(engine.status().unwrap().quarantined, Vec::<String>::new(), "power cut at {cut}");
        cut += 1;
        assert!(cut < 1000, "the last cut is after everything");
    }
    assert!(cut > 60, "{cut}");
}
