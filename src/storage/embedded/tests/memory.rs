//! Little memory: first no series begins, then nothing is taken, and with room both go on.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::*;
use crate::storage::CheckState;

/// A store without upkeep, in a process that plans with 4 MiB, and what others hold of them.
fn store(dir: &Path) -> (Arc<EmbeddedStore>, Arc<AtomicU64>) {
    let config = EmbeddedConfig { memory_bytes: 4 << 20, page_cache_bytes: 0, ..small(dir) };
    let store = EmbeddedStore::open(config, Arc::new(SystemDisk), clock()).unwrap();
    let held = Arc::new(AtomicU64::new(0));
    let asked = Arc::clone(&held);
    store.share_memory(Arc::new(move || asked.load(Relaxed)));
    (store, held)
}

fn head_state(store: &EmbeddedStore) -> CheckState {
    store.checks().into_iter().find(|check| check.name == "head").unwrap().state
}

fn some(from: usize) -> Vec<Labels> {
    (from..from + 20).map(|i| labels(&[("__name__", "m"), ("i", &i.to_string())])).collect()
}

#[test]
fn short_memory_refuses_series_and_then_samples_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (store, held) = store(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let append = |batch| runtime.block_on(store.append(&tenant(), batch)).map(|_| ());
    let scrape = |from: usize, seconds: i64| {
        let samples: Vec<(u32, i64, f64)> =
            (0..20).map(|s| (s, at(seconds), f64::from(s) / 7.0 + seconds as f64 / 3.0)).collect();
        batch(&some(from), &samples)
    };
    // Queries take all they can get, and still a quarter is left for writing.
    held.store(u64::MAX, Relaxed);
    let begun = (0..1_000).map(|i| i * 20).find(|from| append(scrape(*from, 0)).is_err()).unwrap();
    assert!(begun > 100, "{begun}");
    assert_eq!(head_state(&store), CheckState::Degraded);
    let refused = append(scrape(begun + 20, 0)).unwrap_err();
    assert!(matches!(&refused, StorageError::Overloaded { .. }), "{refused}");
    assert!(refused.to_string().contains("no series can begin"), "{refused}");
    // What has begun goes on, also in a batch that would begin another.
    append(scrape(0, 1)).unwrap();
    let mut mixed = some(0);
    mixed.push(labels(&[("new", "1")]));
    append(batch(&mixed, &[(0, at(2), 1.0), (20, at(2), 1.0)])).unwrap_err();
    let (first, all) = runtime.block_on(async {
        let all = everything(&store).await;
        (all.iter().find(|(l, _)| *l == some(0)[0]).unwrap().1.len(), all.len())
    });
    assert_eq!((first, all), (3, begun), "the sample of the known series is kept, the new one is not");
    let refused = (3..10_000_i64).find_map(|seconds| append(scrape(0, seconds)).err()).unwrap();
    assert!(matches!(&refused, StorageError::Overloaded { .. }), "{refused}");
    assert!(refused.to_string().contains("there is room for"), "{refused}");
    assert!(store.counters().memory_refused.load(Relaxed) >= 4);
    assert!(store.engine().flush_is_due(), "what can be written to files is");
    // Nobody is kept from reading, and with room all goes on.
    held.store(0, Relaxed);
    assert_eq!(head_state(&store), CheckState::Ok);
    append(scrape(begun + 20, 0)).unwrap();
    append(scrape(0, 20_000)).unwrap();
    runtime.block_on(store.close()).unwrap();
}

#[test]
fn a_flush_makes_room_for_samples() {
    let dir = tempfile::tempdir().unwrap();
    let (store, held) = store(dir.path());
    held.store(u64::MAX, Relaxed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let append = |seconds: i64| {
        let series = some(0);
        let samples: Vec<(u32, i64, f64)> =
            (0..2000).map(|i| (i % 20, at(seconds + i64::from(i / 20)), f64::from(i).sqrt())).collect();
        runtime.block_on(store.append(&tenant(), batch(&series, &samples))).map(|_| ())
    };
    let full = (0..1000).map(|i| i * 100).find(|seconds| append(*seconds).is_err()).unwrap();
    assert!(store.engine().flush_is_due());
    runtime.block_on(store.flush()).unwrap();
    append(full).unwrap();
    let all = runtime.block_on(everything(&store));
    assert_eq!(all.iter().map(|(_, samples)| samples.len()).sum::<usize>() as i64, (full + 100) * 20);
    runtime.block_on(store.close()).unwrap();
}

#[test]
fn where_nothing_is_taken_a_flush_gives_back_what_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let hand = HandClock::at(NOW);
    let clock: Arc<dyn Clock> = Arc::<HandClock>::clone(&hand);
    let config = EmbeddedConfig { memory_bytes: 16 << 20, page_cache_bytes: 0, ..small(dir.path()) };
    let engine = Engine::open_at(config, Arc::new(SystemDisk), clock).unwrap();
    let held = Arc::new(AtomicU64::new(0));
    let asked = Arc::clone(&held);
    engine.budget.share(Arc::new(move || asked.load(Relaxed)));
    // Series that stay known take most of the room there is when others hold what they may.
    let mut begun = 0;
    while engine.gate.read().bytes() < 6 << 20 {
        let series = some(begun);
        append_now(&engine, batch(&series, &(0..20).map(|i| (i, at(0), 1.0)).collect::<Vec<_>>())).unwrap();
        begun += 20;
    }
    engine.flush_head().unwrap();
    append_now(&engine, batch(&some(0), &[(0, at(1), 1.0)])).unwrap();
    let bytes = engine.gate.read().bytes();
    assert!(bytes > 4 << 20 && engine.gate.read().grown() < 1 << 18, "{bytes}");
    assert!(!engine.flush_is_due());
    held.store((16 << 20) - bytes, Relaxed);
    append_now(&engine, batch(&some(0), &[(0, at(2), 1.0)])).unwrap_err();
    assert!(!engine.flush_is_due(), "there has just been one");
    hand.advance(Duration::from_secs(5));
    assert!(engine.flush_is_due());
    engine.flush_head().unwrap();
    append_now(&engine, batch(&some(0), &[(0, at(2), 1.0)])).unwrap();
    assert!(!engine.flush_is_due());
    engine.close().unwrap();
}

#[test]
fn a_small_process_keeps_heads_and_pages_small() {
    let config = EmbeddedConfig::new("d").within(64 << 20);
    assert_eq!(
        (config.memory_bytes, config.head_bytes, config.page_cache_bytes),
        (64 << 20, 16 << 20, 8 << 20)
    );
    let config = EmbeddedConfig::new("d").within(u64::MAX);
    assert_eq!((config.head_bytes, config.page_cache_bytes), (512 << 20, 64 << 20));
}
