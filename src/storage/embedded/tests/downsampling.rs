//! Old samples in fewer: when, what of them is left, and what happens to it then.

mod later;

use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::{
    model::Matcher,
    storage::{
        Between, SeriesSamples,
        embedded::{DownsampleRule, memory_disk::MemoryDisk, pace::Haste, part::Part},
    },
};

const DAY: i64 = 86_400_000;
/// Two a minute.
const APART: i64 = 30_000;
const PER_DAY: i64 = DAY / APART;

fn series(i: u32) -> Labels {
    labels(&[("__name__", "m"), ("i", &i.to_string())])
}

fn days(n: u32) -> Duration {
    Duration::from_secs(86_400) * n
}

/// Everything in windows of five minutes after ten days, and of an hour after twenty; series 3 never.
fn stepped(dir: &Path) -> EmbeddedConfig {
    let rule = |i: Option<&str>, after: u32, minutes: u64| DownsampleRule {
        tenant: None,
        matchers: i.map(|i| Matcher::equal("i", i)).into_iter().collect(),
        after: days(after),
        resolution: Duration::from_secs(60 * minutes),
    };
    let downsampling = vec![rule(Some("3"), 20_000, 1), rule(None, 20, 60), rule(None, 10, 5)];
    EmbeddedConfig { downsampling, retention: None, ..small(dir) }
}

fn open_stepped(dir: &Path, disk: Arc<dyn Disk>, hand: &Arc<HandClock>) -> Result<Engine> {
    Engine::open_at(stepped(dir), disk, Arc::<HandClock>::clone(hand))
}

/// The day before yesterday's number `i`.
fn then(i: i64) -> i64 {
    NOW.0 - NOW.0.rem_euclid(DAY) - 2 * DAY + i * APART
}

fn value(of: u32, i: i64) -> f64 {
    f64::from(of) + ((i * 7) % 1000) as f64
}

fn put(engine: &Engine, of: &[u32], numbers: std::ops::Range<i64>) -> Result<()> {
    let all: Vec<Labels> = of.iter().map(|of| series(*of)).collect();
    let each = |(place, of): (u32, &u32)| {
        numbers.clone().map(move |i| (place, then(i), value(*of, i))).collect::<Vec<_>>()
    };
    let samples: Vec<(u32, i64, f64)> = (0..).zip(of).flat_map(each).collect();
    append_now(engine, batch(&all, &samples))
}

/// All of a day of two series, and of the one that no rule is about.
fn put_day(engine: &Engine) {
    put(engine, &[1, 2, 3], 0..PER_DAY).unwrap();
    engine.flush_head().unwrap();
}

/// Tidies up, and downsamples everything that is to be.
fn tidied(engine: &Engine) {
    engine.tidy(Haste::Now).unwrap();
    while engine.downsample_next(Haste::Now).unwrap() {}
}

/// What a series has in a range, as those see it who know of gaps, or as others do.
fn seen(engine: &Engine, of: u32, range: TimeRange, gaps: bool) -> SeriesSamples {
    let matchers = vec![Matcher::equal("i", &of.to_string())];
    read_first(engine, &SelectRequest { gaps, ..SelectRequest::new(matchers, range) })
}

/// The samples of the first series that a request is for.
fn read_first(engine: &Engine, request: &SelectRequest) -> SeriesSamples {
    let selected = engine.select(&tenant(), request, &|| false).unwrap();
    let crate::storage::Runs::SeriesMajor(reader) = selected.runs else { panic!("series major") };
    let mut samples = SeriesSamples::default();
    if !selected.series.is_empty() {
        reader.read(0, &mut samples).unwrap();
    }
    samples
}

fn all(engine: &Engine, of: u32) -> SeriesSamples {
    seen(engine, of, TimeRange::ALL, true)
}

/// How many samples there are, those in gaps with them.
fn counted(samples: &SeriesSamples) -> u64 {
    samples.timestamps.len() as u64 + samples.gaps.iter().map(|between| between.gap.count).sum::<u64>()
}

/// How many there are and what they add up to, those in gaps with them.
fn summed(samples: &SeriesSamples) -> (u64, f64) {
    let gaps: f64 = samples.gaps.iter().map(|between| between.gap.sum).sum();
    (counted(samples), samples.values.iter().sum::<f64>() + gaps)
}

fn whole_day(of: u32) -> (u64, f64) {
    (PER_DAY as u64, (0..PER_DAY).map(|i| value(of, i)).sum())
}

#[test]
fn a_day_is_put_together_when_it_is_old_enough_and_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    put_day(&engine);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(SeqCst);
    tidied(&engine);
    assert_eq!(all(&engine, 1).timestamps.len(), usize::try_from(PER_DAY).unwrap(), "it is too young");
    let noted = engine.changes.of(&tenant(), TimeRange::ALL).now;
    for (later, windows, times) in [(10, 288, 1), (10, 24, 2)] {
        hand.advance(days(later));
        for _ in 0..2 {
            tidied(&engine);
        }
        assert_eq!(count(&engine.counters.parts_downsampled), times, "once");
        for of in [1, 2] {
            let samples = all(&engine, of);
            // Midnight is the end of a window of the day before.
            assert_eq!(samples.timestamps.len(), 2 * windows + 1);
            assert_eq!(summed(&samples), whole_day(of));
            for (at, value) in samples.timestamps.iter().zip(&samples.values) {
                assert_eq!(value.to_bits(), self::value(of, (at - then(0)) / APART).to_bits());
            }
        }
        assert_eq!(all(&engine, 3).timestamps.len(), usize::try_from(PER_DAY).unwrap());
        assert!(all(&engine, 3).gaps.is_empty());
    }
    let told = engine.changes.of(&tenant(), TimeRange::ALL).changed;
    assert!(
        told.iter().any(|c| c.at > noted && c.range.contains(Timestamp(then(5)))),
        "who keeps answers is told"
    );
    assert_eq!(count(&engine.counters.samples_downsampled), 2 * (PER_DAY as u64 - 49));
    let before = all(&engine, 1);
    engine.close().unwrap();
    drop(engine);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    tidied(&engine);
    assert_eq!(all(&engine, 1), before);
    assert_eq!(count(&engine.counters.parts_downsampled), 0, "its part remembers");
    let part = engine.view.load().parts[0].path().to_owned();
    let damage = Part::open(&engine.disk, &part).unwrap().examine(|_, _, _| Ok(())).unwrap();
    assert_eq!(damage, []);
    engine.close().unwrap();
}

#[test]
fn who_knows_of_no_gaps_sees_the_samples_that_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    put_day(&engine);
    hand.advance(days(20));
    tidied(&engine);
    // Two and a half hours, and a few minutes of one.
    for (from, to) in [(60, 360), (130, 140)] {
        let range = TimeRange::new(Timestamp(then(from)), Timestamp(then(to))).unwrap();
        let plain = seen(&engine, 1, range, false);
        assert!(plain.gaps.is_empty() && plain.timestamps.iter().all(|t| range.contains(Timestamp(*t))));
        let wide = seen(&engine, 1, range, true);
        let inside = wide.timestamps.iter().filter(|t| range.contains(Timestamp(**t))).count();
        assert_eq!(inside, plain.timestamps.len());
        let ends = |at: i64| wide.timestamps.contains(&at);
        assert!(wide.gaps.iter().all(|between| ends(between.from) && ends(between.to)));
        assert!(wide.timestamps[0] <= then(from) && *wide.timestamps.last().unwrap() >= then(to));
    }
    let estimate = engine.estimate(&tenant(), &SelectRequest::new(vec![], TimeRange::ALL)).unwrap();
    assert_eq!(estimate.floats, 2 * 49 + PER_DAY as u64);
    engine.close().unwrap();
}

#[test]
fn what_comes_late_waits_for_its_day_and_the_same_again_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    put(&engine, &[1], 0..2000).unwrap();
    put(&engine, &[2], 0..PER_DAY).unwrap();
    engine.flush_head().unwrap();
    hand.advance(days(10));
    tidied(&engine);
    assert_eq!(counted(&all(&engine, 1)), 2000);
    // What was missing, and an hour of what was there.
    put(&engine, &[1], 1880..PER_DAY).unwrap();
    engine.flush_head().unwrap();
    assert_eq!(summed(&all(&engine, 1)), whole_day(1), "before it is merged");
    let parts_downsampled = engine.counters.parts_downsampled.load(SeqCst);
    tidied(&engine);
    assert_eq!(engine.view.load().parts.len(), 2);
    assert_eq!(engine.counters.parts_downsampled.load(SeqCst), parts_downsampled);
    engine.merge_days(Haste::Now);
    assert_eq!(engine.view.load().parts.len(), 1);
    for of in [1, 2] {
        let samples = all(&engine, of);
        assert_eq!(summed(&samples), whole_day(of));
        assert!(samples.timestamps.len() < 2 * 300, "{}", samples.timestamps.len());
    }
    engine.close().unwrap();
}

#[test]
fn a_delete_takes_the_gaps_it_touches() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    put_day(&engine);
    hand.advance(days(10));
    tidied(&engine);
    let before = all(&engine, 1);
    // Within a gap, and from within one to within another.
    let gone = [(15, 16), (105, 135)];
    for (from, to) in gone {
        let range = TimeRange::new(Timestamp(then(from)), Timestamp(then(to))).unwrap();
        let delete = engine.delete(&tenant(), vec![vec![Matcher::equal("i", "1")]], range);
        delete.unwrap().block().unwrap();
    }
    let check = |samples: &SeriesSamples| {
        assert!(counted(samples) < counted(&before) - 30);
        for Between { from, to, .. } in &samples.gaps {
            assert!(gone.iter().all(|gone| then(gone.1) < *from || *to < then(gone.0)), "{from} to {to}");
        }
        // Windows of ten samples: those with numbers 11 to 20, 101 to 110, and on to 140.
        let lost = 8 + 4 * 8 + 2 * 3;
        assert_eq!(counted(samples), counted(&before) - lost);
    };
    check(&all(&engine, 1));
    engine.clean_tombstones(&tenant()).unwrap();
    check(&all(&engine, 1));
    assert_eq!(summed(&all(&engine, 2)), whole_day(2));
    engine.close().unwrap();
}

#[test]
fn a_flipped_byte_of_a_downsampled_part_is_met() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    put_day(&engine);
    hand.advance(days(20));
    tidied(&engine);
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let path = engine.view.load().parts[0].path().to_owned();
    let bytes = std::fs::read(&path).unwrap();
    let copy = dir.path().join("copy.part");
    for place in (0..bytes.len()).step_by(97) {
        let mut bytes = bytes.clone();
        bytes[place] ^= 1 << (place % 8);
        std::fs::write(&copy, bytes).unwrap();
        let damage = Part::open(&disk, &copy).and_then(|part| part.examine(|_, _, _| Ok(())));
        assert!(damage.map_or(true, |damage| !damage.is_empty()), "byte {place}");
    }
    engine.close().unwrap();
}

#[test]
fn the_power_may_go_at_any_point_of_downsampling() {
    let (mut survived, mut cut) = (false, 2_u64);
    let whole: Vec<(u64, f64)> =
        (1..=3).map(|of| ((PER_DAY / 8) as u64, (0..PER_DAY / 8).map(|i| value(of, i)).sum())).collect();
    while !survived {
        let dir = tempfile::tempdir().unwrap();
        let hand = HandClock::at(NOW);
        let memory = MemoryDisk::new(dir.path(), super::super::catalog::CATALOG);
        {
            let disk = FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>);
            let engine = open_stepped(dir.path(), disk, &hand).unwrap();
            put(&engine, &[1, 2, 3], 0..PER_DAY / 8).unwrap();
            engine.flush_head().unwrap();
            engine.close().unwrap();
        }
        // Downsampled, and downsampled again.
        let disk = FaultyDisk::over(Arc::<MemoryDisk>::clone(&memory) as Arc<dyn Disk>);
        disk.power.store(cut, SeqCst);
        if let Ok(engine) = open_stepped(dir.path(), Arc::<FaultyDisk>::clone(&disk) as Arc<dyn Disk>, &hand)
        {
            for _ in 0..2 {
                hand.advance(days(10));
                let _ = engine.tidy(Haste::Now);
                while engine.downsample_next(Haste::Now).unwrap_or(false) {}
            }
        }
        survived = disk.power.load(SeqCst) > 1;
        memory.lose_power();
        let engine = open_stepped(dir.path(), FaultyDisk::over(memory), &hand)
            .unwrap_or_else(|e| panic!("power cut at {cut}: {e}"));
        for of in 1..=3 {
            assert_eq!(summed(&all(&engine, of)), whole[of as usize - 1], "power cut at {cut}");
        }
        assert_eq!(engine.status().unwrap().quarantined, Vec::<String>::new(), "power cut at {cut}");
        hand.advance(days(20));
        tidied(&engine);
        assert_eq!(all(&engine, 1).timestamps.len(), 2 * 3 + 1, "power cut at {cut}");
        assert_eq!(engine.view.load().parts.len(), 1);
        cut += 1;
        assert!(cut < 1000, "the last cut is after everything");
    }
    assert!(cut > 10, "{cut}");
}
