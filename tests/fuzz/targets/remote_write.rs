//! Any body of remote write 1.0 or 2.0 is taken, in part or whole, or refused with an error.
#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use luminate::{
    clock::HandClock,
    ingest::{Ingest, IngestError, IngestLimits, Sender},
    model::{Limit, Millis, TenantId, TenantLimits, Timestamp},
    storage::memory::MemoryStore,
};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime starts"));

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (second, compress, bytes) = input;
    let clock = HandClock::at(Timestamp(1_768_003_200_000));
    let store = MemoryStore::new(clock.clone(), Some(Millis(30 * Millis::DAY.0)));
    let limits = IngestLimits { known_series: 64, ..IngestLimits::default() };
    let ingest = Ingest::new(store, clock as Arc<_>, limits, (1, 2));
    let body = if compress {
        Bytes::from(snap::raw::Encoder::new().compress_vec(bytes).expect("snappy takes any input"))
    } else {
        Bytes::copy_from_slice(bytes)
    };
    let mut limits = TenantLimits::default();
    limits.set(Limit::CreationGrace, None);
    let sender = Sender { limits: Arc::new(limits), ..Sender::of(TenantId::anonymous()) };
    RUNTIME.block_on(async {
        // Twice: the second time all series are known.
        for _ in 0..2 {
            let written = if second {
                ingest.remote_write_v2(&sender, body.clone()).await
            } else {
                ingest.remote_write_v1(&sender, body.clone()).await
            };
            match written {
                Ok(_) | Err(IngestError::TooLarge { .. } | IngestError::Decode(_)) => {}
                Err(
                    error @ (IngestError::Storage(_)
                    | IngestError::Overloaded { .. }
                    | IngestError::OverLimit(_)),
                ) => panic!("{error}"),
            }
        }
    });
});
