//! Active series: which they are, and that there are never more of them than may be.

use super::*;
use crate::{
    model::Limit,
    storage::{
        Appended, RejectReason,
        conformance::bounds::{Bounds, bounded},
        room::Allowance,
    },
};
use futures_util::FutureExt;

/// Writes a sample of each of some series, of which no more than `most` may be active.
async fn put(store: &EmbeddedStore, numbers: std::ops::Range<usize>, seconds: i64, most: u64) -> Appended {
    let bounds = Bounds::new(Some(most), u64::MAX);
    store.append(&tenant(), bounded(numbers, at(seconds), &bounds)).await.unwrap()
}

fn active(store: &EmbeddedStore) -> u64 {
    store.active_series(&tenant()).unwrap()
}

fn refused(appended: &Appended) -> Vec<u32> {
    let reason = RejectReason::OverLimit(Limit::ActiveSeries);
    assert!(appended.rejected.iter().all(|r| r.reason == reason), "{:?}", appended.rejected);
    appended.rejected.iter().map(|r| r.series).collect()
}

#[tokio::test]
async fn silent_series_give_way_with_a_flush_and_the_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, 0..10, 0, 10).await;
    put(&store, 0..4, 1_200, 10).await;
    assert_eq!((active(&store), refused(&put(&store, 0..12, 1_201, 10).await)), (10, vec![10, 11]));
    // The first ten have just been written again.
    store.flush().await.unwrap();
    assert_eq!(active(&store), 10);
    put(&store, 0..4, 2_400, 10).await;
    assert_eq!(active(&store), 10, "the silent ones are active until the next flush");
    store.flush().await.unwrap();
    assert_eq!(active(&store), 4);
    assert_eq!(refused(&put(&store, 0..12, 2_401, 10).await).len(), 2);
}

#[tokio::test]
async fn who_has_not_been_heard_of_since_the_last_flush_is_not_silent_yet() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, 0..10, 0, 10).await;
    for flush in 1..=5 {
        put(&store, 0..1, flush * 100, 10).await;
        store.flush().await.unwrap();
        assert_eq!(active(&store), 10, "flush {flush}");
    }
    assert_eq!(refused(&put(&store, 1..11, 600, 10).await), [9]);
    put(&store, 0..1, 1_501, 10).await;
    store.flush().await.unwrap();
    assert_eq!(active(&store), 1, "a quarter of an hour is enough");
}

#[test]
fn a_store_in_which_nobody_has_room_is_flushed_though_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(NOW);
    let config = EmbeddedConfig { flush_interval: Duration::from_secs(1 << 30), ..small(dir.path()) };
    let engine =
        Engine::open_at(config, Arc::new(SystemDisk), Arc::<HandClock>::clone(&clock) as Arc<dyn Clock>)
            .unwrap();
    let append = |numbers, begin: Begin<'_>| {
        let batch = bounded(numbers, at(0), &Bounds::new(Some(2), u64::MAX));
        engine.append(&tenant(), batch, begin).unwrap()
    };
    append(0..2, Begin::All);
    engine.flush().unwrap();
    let bounds = Bounds::new(Some(2), 9);
    let mut allowance = Allowance::ask(bounds.as_ref(), 1, 1).now_or_never().unwrap();
    append(2..3, Begin::Some(&mut allowance));
    assert!(allowance.is_crowded());
    clock.advance(Duration::from_secs(901));
    assert!(!engine.flush_is_due());
    engine.crowded.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(engine.flush_is_due());
    engine.flush().unwrap();
    assert_eq!(engine.active_series(&tenant()), 0);
    assert!(!engine.flush_is_due());
}

#[tokio::test]
async fn series_that_were_active_go_on_after_a_start_whoever_comes_first() {
    for kill in [false, true] {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open(dir.path()).unwrap();
        put(&store, 20..25, 0, 20).await;
        put(&store, 0..10, 1_200, 20).await;
        store.flush().await.unwrap();
        put(&store, 0..3, 1_260, 20).await;
        let place = if kill {
            copy_dir(dir.path(), copy.path());
            copy.path()
        } else {
            store.close().await.unwrap();
            dir.path()
        };
        drop(store);
        let store = open(place).unwrap();
        // Others come first, and find no more room than there was.
        assert_eq!(refused(&put(&store, 100..110, 1_290, 12).await).len(), 8, "kill: {kill}");
        assert_eq!(active(&store), 12);
        assert_eq!(refused(&put(&store, 0..10, 1_291, 12).await).len(), 0);
        assert_eq!(refused(&put(&store, 20..25, 1_292, 12).await).len(), 5, "these were silent before");
        assert_eq!(active(&store), 12);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flushes_do_not_make_room_for_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let writers: Vec<_> = (0..4_usize)
        .map(|writer| {
            let store = Arc::clone(&store);
            crate::task::spawn("writer", async move {
                for round in 0..30_usize {
                    let from = writer * 50 + round;
                    put(&store, from..from + 20, i64::try_from(round).unwrap(), 60).await;
                    assert!(active(&store) <= 60);
                }
            })
        })
        .collect();
    for _ in 0..10 {
        store.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(active(&store), 60);
    assert_eq!(everything(&store).await.len(), 60);
    store.close().await.unwrap();
}
