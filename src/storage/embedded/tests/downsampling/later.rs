//! What is written and deleted before, while and after samples are put together.

use super::*;
use crate::{
    model::{
        Histogram,
        histogram::{Counts, ResetHint},
        stale_nan,
    },
    storage::{
        Gap, HistogramSample, LabelsRequest,
        embedded::merge::{overlay, settle_gaps},
    },
};

/// A store with the day in windows of five minutes, in one part.
fn thinned(dir: &Path, hand: &Arc<HandClock>) -> Engine {
    let engine = open_stepped(dir, Arc::new(SystemDisk), hand).unwrap();
    put_day(&engine);
    hand.advance(days(10));
    tidied(&engine);
    engine
}

fn delete(engine: &Engine, of: u32, from: i64, to: i64) {
    let range = TimeRange::new(Timestamp(from), Timestamp(to)).unwrap();
    let sets = vec![vec![Matcher::equal("i", &of.to_string())]];
    engine.delete(&tenant(), sets, range).unwrap().block().unwrap();
}

fn deletes(engine: &Engine) -> usize {
    engine.register.tombstones(&tenant()).len()
}

#[test]
fn a_delete_within_a_gap_lasts_as_long_as_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = thinned(dir.path(), &hand);
    // Between two samples of a window, where nothing is kept.
    delete(&engine, 1, then(15) + 1, then(16) - 1);
    let left = all(&engine, 1);
    assert_eq!(counted(&left), PER_DAY as u64 - 8);
    engine.flush_head().unwrap();
    tidied(&engine);
    assert_eq!(deletes(&engine), 1, "one gap is no reason to write all anew, and the delete stays for it");
    assert_eq!(all(&engine, 1), left);
    engine.clean_tombstones(&tenant()).unwrap();
    assert_eq!((deletes(&engine), all(&engine, 1)), (0, left));
    engine.close().unwrap();
}

#[test]
fn what_was_deleted_before_takes_nothing_else_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    put_day(&engine);
    // Some samples of a window, a first one, a last one, and a moment without any.
    for (from, to) in [(then(104), then(106)), (then(201), then(201)), (then(310), then(310))] {
        delete(&engine, 1, from, to);
    }
    delete(&engine, 1, then(405) + 1, then(406) - 1);
    engine.flush_head().unwrap();
    let expected = summed(&all(&engine, 1));
    assert_eq!(expected.0, PER_DAY as u64 - 5);
    for later in [10, 10] {
        hand.advance(days(later));
        tidied(&engine);
        assert_eq!(summed(&all(&engine, 1)), expected);
        assert!(all(&engine, 1).timestamps.len() < 600);
    }
    assert_eq!(deletes(&engine), 0, "nothing is left that they hide");
    assert_eq!(summed(&all(&engine, 1)), expected);
    assert_eq!(summed(&all(&engine, 2)), whole_day(2));
    engine.close().unwrap();
}

#[test]
fn parts_are_merged_also_where_what_a_gap_began_with_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = thinned(dir.path(), &hand);
    let first = all(&engine, 1).gaps[0];
    delete(&engine, 1, then(0), first.from);
    put(&engine, &[1], PER_DAY - 1..PER_DAY).unwrap();
    engine.flush_head().unwrap();
    hand.advance(days(2));
    engine.merge_days(Haste::Now);
    assert_eq!(engine.view.load().parts.len(), 1);
    let left = all(&engine, 1);
    assert_eq!((left.timestamps[0], left.gaps[0].from), (first.to, then(11)));
    engine.close().unwrap();
}

#[test]
fn a_gap_of_which_an_end_became_a_histogram_goes_and_parts_are_merged() {
    let mut older = SeriesSamples::default();
    [1, 5, 6, 9].iter().for_each(|at| older.push(*at, 1.0, 0));
    let gap = Gap { count: 3, ..Gap::step(1.0, 1.0) };
    older.gaps = vec![Between { from: 1, to: 5, gap }, Between { from: 6, to: 9, gap }];
    let empty = Histogram {
        schema: 0,
        zero_threshold: 0.0,
        sum: 1.0,
        reset_hint: ResetHint::Unknown,
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        counts: Counts::Integer { count: 0, zero_count: 0, positive: Vec::new(), negative: Vec::new() },
        custom_values: Vec::new(),
    };
    let mut newer = SeriesSamples::default();
    newer.histograms.push(HistogramSample { timestamp: 1, start: 0, histogram: Arc::new(empty) });
    assert_eq!(overlay(&mut older, &mut newer), 1);
    settle_gaps(&mut older);
    assert_eq!(older.gaps, [Between { from: 6, to: 9, gap }]);
}

#[test]
fn a_gap_goes_with_an_end_that_gets_another_value() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    let day: Vec<(u32, i64, f64)> = (0..PER_DAY).map(|i| (0, then(i), 100.0 + i as f64)).collect();
    append_now(&engine, batch(&[series(4)], &day)).unwrap();
    put_day(&engine);
    hand.advance(days(10));
    tidied(&engine);
    // Windows of ten samples: the end of the first, the beginning of the third, both of the fifth and sixth.
    let again = [(10, 50.0), (21, 5000.0), (41, 141.0), (50, 150.0), (51, 151.0), (60, stale_nan())];
    let again: Vec<(u32, i64, f64)> = again.iter().map(|(i, value)| (0, then(*i), *value)).collect();
    append_now(&engine, batch(&[series(4)], &again)).unwrap();
    let check = |engine: &Engine| {
        let samples = all(engine, 4);
        assert_eq!(counted(&samples), PER_DAY as u64 - 3 * 8, "and those whose ends stay as they are stay");
        let value = |at| samples.values[samples.timestamps.binary_search(&at).unwrap()];
        for Between { from, to, gap } in &samples.gaps {
            assert!(![1, 21, 51].map(then).contains(from), "{from}");
            // It counts one by one.
            let expected = (to - from) as f64 / APART as f64;
            assert_eq!(gap.growth(value(*from), value(*to)), expected, "{from}");
        }
        assert_eq!(summed(&all(engine, 1)), whole_day(1));
    };
    check(&engine);
    engine.flush_head().unwrap();
    check(&engine);
    hand.advance(days(2));
    engine.merge_days(Haste::Now);
    tidied(&engine);
    assert_eq!(engine.view.load().parts.len(), 1);
    check(&engine);
    engine.close().unwrap();
    drop(engine);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    check(&engine);
    engine.close().unwrap();
}

#[test]
fn a_gap_stays_between_the_same_samples_also_where_nobody_looks_at_values() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = thinned(dir.path(), &hand);
    put(&engine, &[1], 30..32).unwrap();
    engine.flush_head().unwrap();
    let request = SelectRequest {
        gaps: true,
        values: false,
        ..SelectRequest::new(vec![Matcher::equal("i", "1")], TimeRange::ALL)
    };
    assert_eq!(counted(&read_first(&engine, &request)), PER_DAY as u64);
    engine.close().unwrap();
}

#[test]
fn a_series_is_listed_where_a_gap_is_all_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = thinned(dir.path(), &hand);
    let range = TimeRange::new(Timestamp(then(105) + 1), Timestamp(then(106) - 1)).unwrap();
    let listed = |limit: usize| {
        let request = LabelsRequest { matchers: vec![vec![Matcher::equal("__name__", "m")]], range, limit };
        let series = engine.series(&tenant(), &request).unwrap();
        let values = engine.label_values(&tenant(), "i", &request).unwrap();
        let of_series: Vec<_> = series.iter().map(|labels| labels.get("i").unwrap().to_owned()).collect();
        assert_eq!(of_series, values);
        values
    };
    assert_eq!(listed(0), ["1", "2", "3"]);
    // Somewhere else: now it is looked at what there is.
    delete(&engine, 1, then(500), then(501));
    assert_eq!(listed(0), ["1", "2", "3"]);
    assert_eq!(listed(2), ["1", "2"]);
    delete(&engine, 1, then(108) + 1, then(108) + 2);
    assert_eq!(listed(0), ["2", "3"], "what is deleted in a gap takes all of it");
    assert_eq!(listed(1), ["2"]);
    engine.close().unwrap();
}

#[test]
fn what_comes_while_a_day_is_put_together_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let disk = FaultyDisk::over(Arc::new(SystemDisk));
    let engine = open_stepped(dir.path(), Arc::<FaultyDisk>::clone(&disk) as Arc<dyn Disk>, &hand).unwrap();
    put_day(&engine);
    hand.advance(days(10));
    engine.tidy(Haste::Now).unwrap();
    let again: Vec<(u32, i64, f64)> = (103..108).map(|i| (0, then(i), -1.0)).collect();
    disk.has_waited.store(false, SeqCst);
    disk.hold.store(true, SeqCst);
    std::thread::scope(|scope| {
        let rewriting = scope.spawn(|| engine.downsample_next(Haste::Now).unwrap());
        while !disk.has_waited.load(SeqCst) {
            std::thread::yield_now();
        }
        // It knows what is to be done, and is about to write.
        let (_, written, _) = engine.append(&tenant(), batch(&[series(1)], &again), Begin::All).unwrap();
        disk.hold.store(false, SeqCst);
        written.block().unwrap();
        assert!(rewriting.join().unwrap());
    });
    let missing: f64 = (103..108).map(|i| value(1, i) + 1.0).sum();
    let expected = (PER_DAY as u64, whole_day(1).1 - missing);
    assert_eq!(summed(&all(&engine, 1)), expected);
    assert_eq!(engine.counters.parts_downsampled.load(SeqCst), 0, "that day is given up");
    assert!(!engine.downsample_next(Haste::Now).unwrap());
    engine.flush_head().unwrap();
    hand.advance(days(2));
    engine.merge_days(Haste::Now);
    tidied(&engine);
    assert_eq!(engine.view.load().parts.len(), 1);
    assert_eq!(summed(&all(&engine, 1)), expected);
    assert!(all(&engine, 1).timestamps.len() < 600, "and done later");
    engine.close().unwrap();
}

#[test]
fn what_is_written_again_counts_once_wherever_a_range_ends() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = thinned(dir.path(), &hand);
    // In two pieces, of which one is in a part and the other in memory.
    put(&engine, &[1], 80..125).unwrap();
    engine.flush_head().unwrap();
    put(&engine, &[1], 125..161).unwrap();
    for (from, to) in [(105, 115), (101, 118), (123, 127), (90, 124), (126, 140)] {
        let range = TimeRange::new(Timestamp(then(from)), Timestamp(then(to))).unwrap();
        let samples = seen(&engine, 1, range, true);
        let inside = samples.timestamps.iter().filter(|at| range.contains(Timestamp(**at))).count();
        assert_eq!((inside as i64, samples.gaps.len()), (to - from + 1, 0), "{from} to {to}");
    }
    assert_eq!(summed(&all(&engine, 1)), whole_day(1));
    engine.flush_head().unwrap();
    hand.advance(days(2));
    engine.merge_days(Haste::Now);
    tidied(&engine);
    let samples = all(&engine, 1);
    assert_eq!((summed(&samples), samples.timestamps.len()), (whole_day(1), 577), "put together anew");
    engine.close().unwrap();
}

#[test]
fn late_samples_in_a_gap_stay_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = thinned(dir.path(), &hand);
    let at = then(105) + 7;
    append_now(&engine, batch(&[series(1)], &[(0, at, 0.5)])).unwrap();
    let check = |engine: &Engine| {
        let samples = all(engine, 1);
        assert_eq!(summed(&samples), (PER_DAY as u64 + 1, whole_day(1).1 + 0.5));
        assert!(samples.timestamps.contains(&at));
        assert_eq!(Between::of(&samples.gaps, at).map(|between| between.gap.count), Some(8));
        // Whoever asks for a part of the gap has all of it, and what lies in it.
        let near = TimeRange::new(Timestamp(at + 1), Timestamp(at + 2)).unwrap();
        let samples = seen(engine, 1, near, true);
        assert_eq!((samples.timestamps.len(), samples.gaps.len()), (3, 1));
    };
    check(&engine);
    engine.flush_head().unwrap();
    check(&engine);
    hand.advance(days(2));
    engine.merge_days(Haste::Now);
    assert_eq!(engine.view.load().parts.len(), 1);
    check(&engine);
    hand.advance(days(10));
    tidied(&engine);
    check(&engine);
    engine.close().unwrap();
    drop(engine);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    check(&engine);
    engine.close().unwrap();
}

#[test]
fn nothing_is_put_together_that_is_in_memory_too() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    put_day(&engine);
    hand.advance(days(10));
    // The same again, with other values: the newer ones count.
    let again: Vec<(u32, i64, f64)> = (100..110).map(|i| (0, then(i), -1.0)).collect();
    append_now(&engine, batch(&[series(1)], &again)).unwrap();
    let expected = summed(&all(&engine, 1));
    tidied(&engine);
    assert_eq!(
        all(&engine, 1).timestamps.len(),
        usize::try_from(PER_DAY).unwrap(),
        "they could not be told apart afterwards"
    );
    engine.flush_head().unwrap();
    hand.advance(days(2));
    engine.merge_days(Haste::Now);
    tidied(&engine);
    assert_eq!(summed(&all(&engine, 1)), expected);
    assert!(all(&engine, 1).timestamps.len() < 600);
    engine.close().unwrap();
}

#[test]
fn one_day_is_put_together_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    for day in 0..3 {
        put(&engine, &[1], -day * PER_DAY..100 - day * PER_DAY).unwrap();
    }
    engine.flush_head().unwrap();
    hand.advance(days(15));
    engine.tidy(Haste::Now).unwrap();
    for done in 0..=3 {
        assert_eq!(engine.counters.parts_downsampled.load(SeqCst), done);
        let first = engine.view.load().parts.iter().filter(|part| part.part.meta().widest_gap > 0).count();
        assert_eq!(first as u64, done);
        assert_eq!(engine.downsample_next(Haste::Now).unwrap(), done < 3);
    }
    engine.close().unwrap();
}

#[test]
fn parts_of_several_days_stay_as_they_are_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = open_stepped(dir.path(), Arc::new(SystemDisk), &hand).unwrap();
    put_day(&engine);
    hand.advance(days(15));
    assert!(engine.downsample_next(Haste::Now).unwrap());
    assert!(!engine.rewrites.lock().told_of_long_parts);
    // Two days in each of the parts that a flush writes at most.
    let old: Vec<(u32, i64, f64)> =
        (1..=128).flat_map(|day| (0..20).map(move |i| (0, then(i) - day * DAY, 1.0))).collect();
    append_now(&engine, batch(&[series(1)], &old)).unwrap();
    engine.flush_head().unwrap();
    let expected = summed(&all(&engine, 1));
    assert!(!engine.downsample_next(Haste::Now).unwrap());
    assert!(engine.rewrites.lock().told_of_long_parts);
    assert_eq!(summed(&all(&engine, 1)), expected);
    engine.close().unwrap();
}

#[test]
fn who_keeps_answers_is_told_of_all_of_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let engine = thinned(dir.path(), &hand);
    let told = |engine: &Engine, since: u64, at: i64| {
        let range = TimeRange::new(Timestamp(at), Timestamp(at)).unwrap();
        engine.changes.of(&tenant(), range).changed.iter().any(|change| change.at > since)
    };
    let now = || engine.changes.of(&tenant(), TimeRange::ALL).now;
    let noted = now();
    append_now(&engine, batch(&[series(1)], &[(0, then(105) + 7, 0.5)])).unwrap();
    assert!(told(&engine, noted, then(101)) && told(&engine, noted, then(110)), "what is written into it");
    assert!(!told(&engine, noted, then(200)));
    let noted = now();
    delete(&engine, 1, then(305) + 1, then(305) + 2);
    assert!(told(&engine, noted, then(301)) && told(&engine, noted, then(310)), "what is deleted in it");
    let noted = now();
    let live = hand.now().0;
    append_now(&engine, batch(&[series(1)], &[(0, live, 0.5)])).unwrap();
    assert!(told(&engine, noted, live) && !told(&engine, noted, live - 120_000), "what is new is a minute");
    engine.close().unwrap();
}
