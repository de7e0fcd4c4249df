//! Any body of lines is taken, in part or whole, and however it is cut into pieces what is taken is the same.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use luminate::{
    clock::HandClock,
    ingest::{Imported, Ingest, IngestLimits, Sender},
    model::{Limit, Millis, TenantId, TenantLimits, Timestamp},
    storage::memory::MemoryStore,
};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime starts"));

/// Imports `bytes` in pieces of `size`.
fn import(ingest: &Arc<Ingest>, bytes: &[u8], size: usize) -> Imported {
    RUNTIME.block_on(async {
        let mut limits = TenantLimits::default();
        limits.set(Limit::CreationGrace, None);
        let sender = Sender { limits: Arc::new(limits), ..Sender::of(TenantId::anonymous()) };
        let mut import = ingest.import(&sender, Vec::new()).expect("there is room for one");
        for piece in bytes.chunks(size) {
            import.push(piece).await.expect("bad lines fall out alone");
        }
        import.finish().await.expect("bad lines fall out alone")
    })
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let clock = HandClock::at(Timestamp(1_768_003_200_000));
    let store = MemoryStore::new(clock.clone(), Some(Millis(30 * Millis::DAY.0)));
    let limits = IngestLimits {
        known_series: 64,
        max_line_bytes: 2048,
        max_samples: 64,
        max_series: 16,
        ..IngestLimits::default()
    };
    let ingest = Arc::new(Ingest::new(store, clock as Arc<_>, limits, (1, 2)));
    // However it comes, it is the same, and the same again when all series are known.
    let whole = import(&ingest, bytes, bytes.len().max(1));
    let pieces = import(&ingest, bytes, usize::from(size).max(1));
    assert_eq!(
        (whole.lines, whole.bad_lines, whole.received),
        (pieces.lines, pieces.bad_lines, pieces.received)
    );
    assert!(whole.outcome.samples <= whole.received.samples);
});
