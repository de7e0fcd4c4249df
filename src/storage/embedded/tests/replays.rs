//! The log read back by several workers: what won before wins again.

use super::*;
use crate::{
    model::{
        Histogram,
        histogram::{Counts, ResetHint},
    },
    storage::BatchHistogram,
};

fn series(count: u32) -> Vec<Labels> {
    (0..count).map(|i| labels(&[("__name__", "m"), ("i", &format!("{i:03}"))])).collect()
}

fn histogram(count: u64) -> Arc<Histogram> {
    Arc::new(Histogram {
        schema: 0,
        zero_threshold: 0.0,
        sum: 1.0,
        reset_hint: ResetHint::Unknown,
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        counts: Counts::Integer { count, zero_count: count, positive: Vec::new(), negative: Vec::new() },
        custom_values: Vec::new(),
    })
}

/// A copy of the directory, opened as if the process had died just now.
fn after_a_crash(dir: &Path) -> (tempfile::TempDir, Arc<EmbeddedStore>) {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir, copy.path());
    let store = open(copy.path()).unwrap();
    (copy, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_last_wins_whatever_number_its_series_had_in_each_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let all = series(300);
    let mut homes = vec![dir];
    let mut store = open(homes[0].path()).unwrap();
    for round in 0..4_u32 {
        // Another order gives other numbers, and so do series that come between.
        let mut order = all.clone();
        order.rotate_left(round as usize * 77);
        order.insert(5, labels(&[("only", &round.to_string())]));
        let samples: Vec<(u32, i64, f64)> =
            (0..301).map(|i| (i, at(i64::from(i % 2)), f64::from(round))).collect();
        store.append(&tenant(), batch(&order, &samples)).await.unwrap();
        let histograms = |value: u64| {
            (0..301).map(move |series| BatchHistogram {
                series,
                timestamp: Timestamp(at(if series % 3 == 0 { 0 } else { 2 })),
                histogram: histogram(value),
                start: 0,
            })
        };
        let mut more = batch(&order, &[]);
        more.histograms = histograms(u64::from(round)).collect();
        store.append(&tenant(), more).await.unwrap();
        let before = everything_whole(&store).await;
        let (home, opened) = after_a_crash(homes.last().unwrap().path());
        homes.push(home);
        store = opened;
        assert_eq!(everything_whole(&store).await, before, "round {round}");
    }
}

/// Labels, floats and histograms of all series, in a form that compares bits.
async fn everything_whole(store: &EmbeddedStore) -> Vec<String> {
    let all = read_all(store, &tenant(), SelectRequest::new(vec![], TimeRange::ALL)).await;
    all.into_iter()
        .map(|(labels, s)| {
            let bits: Vec<u64> = s.values.iter().map(|v| v.to_bits()).collect();
            format!("{labels} {:?} {bits:?} {:?}", s.timestamps, s.histograms)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn series_that_several_writers_begin_at_once_are_told_to_the_log_before_their_samples() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for round in 0..10_i64 {
        let all: Vec<Labels> =
            (0..200).map(|i| labels(&[("round", &round.to_string()), ("i", &i.to_string())])).collect();
        let writers: Vec<_> = (0..8_i64)
            .map(|writer| {
                let (store, all) = (Arc::clone(&store), all.clone());
                crate::task::spawn("writer", async move {
                    let samples: Vec<(u32, i64, f64)> =
                        (0..200).flat_map(|s| (0..3).map(move |k| (s, at(writer * 10 + k), 1.0))).collect();
                    store.append(&tenant(), batch(&all, &samples)).await.unwrap();
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let (_home, opened) = after_a_crash(dir.path());
    let back = everything(&opened).await;
    assert_eq!(back.len(), 2000);
    assert!(back.iter().all(|(_, samples)| samples.len() == 24), "every acknowledged sample is there");
    assert_eq!(opened.counters().replay_lost.load(Ordering::Relaxed), 0);
    assert_eq!(opened.active_series(&tenant()), Some(2000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_longer_than_a_window_come_back_and_so_does_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { segment_bytes: 16 << 20, ..small(dir.path()) };
    let store = EmbeddedStore::open(config, Arc::new(SystemDisk), clock()).unwrap();
    let all = series(3);
    // Half a million samples with bits that do not pack are several windows.
    let long: Vec<(u32, i64, f64)> =
        (0..500_000).map(|i| (u32::try_from(i % 3).unwrap(), at(0) + i, 1.0 / (i + 3) as f64)).collect();
    store.append(&tenant(), batch(&all, &long)).await.unwrap();
    store.append(&tenant(), batch(&all, &[(0, at(0) + 600_000, 7.0)])).await.unwrap();
    let before = everything(&store).await;
    let (_home, opened) = after_a_crash(dir.path());
    assert_eq!(everything(&opened).await, before);
    assert_eq!(before.iter().map(|(_, samples)| samples.len()).sum::<usize>(), 500_001);
}
