//! The engine against a map: writers, readers, flushes, deletes and crashes in any order.

use std::collections::BTreeMap;

use super::*;
use crate::storage::embedded::wal::record::LoggedSample;

type Model = BTreeMap<Labels, BTreeMap<i64, u64>>;

/// A generator of pseudo-random numbers whose seed is told when a test fails.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_agrees_with_a_map_across_flushes_restarts_and_crashes() {
    for seed in 1..=6 {
        let mut random = Random(seed);
        let mut dirs = vec![tempfile::tempdir().unwrap()];
        let mut store = open(dirs[0].path()).unwrap();
        let series: Vec<Labels> = (0..30).map(|i| labels(&[("m", "x"), ("i", &i.to_string())])).collect();
        let mut model = Model::new();
        let mut deleted: Vec<(Labels, i64, i64)> = Vec::new();
        for step in 0..120 {
            match random.below(20) {
                0 | 1 => store.flush().await.unwrap(),
                2 => {
                    store.close().await.unwrap();
                    drop(store);
                    store = open(dirs.last().unwrap().path()).unwrap();
                }
                3 => {
                    let copy = tempfile::tempdir().unwrap();
                    copy_dir(dirs.last().unwrap().path(), copy.path());
                    drop(store);
                    store = open(copy.path()).unwrap();
                    dirs.push(copy);
                }
                4 => {
                    let which = &series[random.below(30) as usize];
                    let from = at(random.below(200) as i64 - 172_800);
                    let range = TimeRange::new(Timestamp(from), Timestamp(from + 50_000)).unwrap();
                    let sets = vec![which.iter().map(|(n, v)| crate::model::Matcher::equal(n, v)).collect()];
                    store.delete(&tenant(), sets, range).await.unwrap();
                    deleted.push((which.clone(), from, from + 50_000));
                }
                5 => {
                    store.clean_tombstones(&tenant()).await.unwrap();
                    for (which, from, to) in deleted.drain(..) {
                        if let Some(samples) = model.get_mut(&which) {
                            samples.retain(|t, _| *t < from || to < *t);
                        }
                    }
                }
                _ => {
                    let samples: Vec<(u32, i64, f64)> = (0..random.below(300))
                        .map(|_| {
                            let t = if random.below(4) == 0 {
                                at(random.below(300) as i64 - 172_800)
                            } else {
                                at(step * 10 + random.below(20) as i64)
                            };
                            (random.below(30) as u32, t, random.below(1000) as f64 / 8.0)
                        })
                        .collect();
                    store.append(&tenant(), batch(&series, &samples)).await.unwrap();
                    for (s, t, v) in samples {
                        model.entry(series[s as usize].clone()).or_default().insert(t, v.to_bits());
                    }
                }
            }
            let hidden = |l: &Labels, t: i64| deleted.iter().any(|(d, a, b)| d == l && *a <= t && t <= *b);
            let expect: Vec<(Labels, Vec<(i64, u64)>)> = model
                .iter()
                .map(|(l, s)| {
                    (l.clone(), s.iter().map(|(t, v)| (*t, *v)).filter(|(t, _)| !hidden(l, *t)).collect())
                })
                .filter(|(_, s): &(Labels, Vec<_>)| !s.is_empty())
                .collect();
            assert!(everything(&store).await == expect, "seed {seed}, step {step}");
        }
        let status = store.status().await.unwrap();
        assert_eq!(status.quarantined, Vec::<String>::new(), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_see_a_gap_while_others_write_and_flush() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let acked = Arc::new(std::sync::atomic::AtomicI64::new(-1));
    let series: Vec<Labels> = (0..8).map(|i| labels(&[("i", &i.to_string())])).collect();
    let writer = {
        let (store, acked, series) = (Arc::clone(&store), Arc::clone(&acked), series.clone());
        crate::task::spawn("writer", async move {
            for i in 0..600_i64 {
                let samples: Vec<(u32, i64, f64)> = (0..8).map(|s| (s, at(i), i as f64)).collect();
                store.append(&tenant(), batch(&series, &samples)).await.unwrap();
                acked.store(i, std::sync::atomic::Ordering::SeqCst);
            }
        })
    };
    let flusher = {
        let store = Arc::clone(&store);
        crate::task::spawn("flusher", async move {
            for _ in 0..25 {
                store.flush().await.unwrap();
            }
        })
    };
    while !writer.is_finished() || !flusher.is_finished() {
        let before = acked.load(std::sync::atomic::Ordering::SeqCst);
        let all = everything(&store).await;
        for (labels, samples) in &all {
            let times: Vec<i64> = samples.iter().map(|(t, _)| *t).collect();
            let expect: Vec<i64> = (0..times.len() as i64).map(at).collect();
            assert_eq!(times, expect, "{labels}");
            assert!(times.len() as i64 > before, "{labels}: {} of {before}", times.len());
        }
        assert!(before < 0 || all.len() == 8);
    }
    writer.await.unwrap();
    flusher.await.unwrap();
    assert!(store.counters().all().iter().any(|(name, n)| *name == "flushes" && *n >= 25));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_the_same_time_lose_nothing_in_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let writers: Vec<_> = (0..8_u32)
        .map(|w| {
            let store = Arc::clone(&store);
            crate::task::spawn("writer", async move {
                for round in 0..30_i64 {
                    // All create the same new series in each round, and write their own samples to them.
                    let series: Vec<Labels> = (0..40)
                        .map(|i| labels(&[("round", &round.to_string()), ("i", &i.to_string())]))
                        .collect();
                    let samples: Vec<(u32, i64, f64)> =
                        (0..40).map(|s| (s, at(i64::from(w)), f64::from(w))).collect();
                    let done = store.append(&tenant(), batch(&series, &samples)).await.unwrap();
                    assert_eq!(done.samples, 40);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    for store in [store, open(copy.path()).unwrap()] {
        let all = everything(&store).await;
        assert_eq!(all.len(), 1200);
        assert!(all.iter().all(|(_, samples)| samples.len() == 8));
    }
}

#[test]
fn a_logged_sample_is_small() {
    assert!(size_of::<LoggedSample>() <= 32);
}
