//! A second cache, outside of the process, that several of us share.
//!
//! ```text
//! asked ─▶ kept here? ─no─▶ kept there? ─no─▶ evaluated ─▶ kept here, and, when that is done, there
//! ```
//!
//! It gives what another process has kept, and that is looked at as what was kept here is: only what nothing has changed
//! since is used. So it is only of use where all processes are told the same of changes ([`Changes::shared`]). Whatever
//! is wrong with it, or with what it gives, it is as if there was nothing: no answer waits for it longer than it may
//! take, and none fails.
//!
//! [`Changes::shared`]: crate::storage::Changes::shared

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::{
    extent::Extent,
    packed::{self, LARGEST_PACKED},
    shelf::Key,
};

/// Extents on their way there; more are not sent.
const MOST_ON_THE_WAY: usize = 16;

/// From how many bytes on packing and unpacking is not done where other requests wait.
const LARGE: usize = 64 << 10;

/// Keeps bytes for all processes, for a while.
#[async_trait]
pub trait SharedShelf: fmt::Debug + Send + Sync + 'static {
    /// What is kept under a name, within the time that an answer may wait for it.
    async fn get(&self, name: u128) -> Result<Option<Vec<u8>>, Away>;

    /// Keeps bytes under a name, in place of those before.
    async fn put(&self, name: u128, bytes: Vec<u8>) -> Result<(), Away>;
}

/// It cannot be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is kept for all cannot be asked for now")]
pub struct Away;

/// What the second cache counts.
#[derive(Debug, Default)]
pub struct SecondCounters {
    /// Something was kept there.
    pub found: AtomicU64,
    /// Nothing was.
    pub missing: AtomicU64,
    /// Something was that is not ours, or not what was asked for.
    pub garbled: AtomicU64,
    /// It could not be asked in time.
    pub away: AtomicU64,
    /// Extents that were sent there.
    pub sent: AtomicU64,
    /// Extents that could not be sent there.
    pub not_sent: AtomicU64,
}

/// The second cache.
#[derive(Debug)]
pub struct Second {
    shelf: Arc<dyn SharedShelf>,
    places: Arc<Semaphore>,
    counters: Arc<SecondCounters>,
}

impl Second {
    /// Over a shelf.
    pub fn new(shelf: Arc<dyn SharedShelf>) -> Self {
        Self { shelf, places: Arc::new(Semaphore::new(MOST_ON_THE_WAY)), counters: Arc::default() }
    }

    /// What it counts.
    pub fn counters(&self) -> &SecondCounters {
        &self.counters
    }

    /// What another process has kept under a key.
    pub async fn find(&self, key: &Key) -> Option<Extent> {
        let counters = &self.counters;
        let (counter, extent) = match self.shelf.get(packed::name(key)).await {
            Err(Away) => (&counters.away, None),
            Ok(None) => (&counters.missing, None),
            Ok(Some(bytes)) => match unpacked(key, bytes).await {
                None => (&counters.garbled, None),
                extent => (&counters.found, extent),
            },
        };
        counter.fetch_add(1, Relaxed);
        extent
    }

    /// Sends an extent there, in the background.
    pub fn send(&self, key: Key, extent: Arc<Extent>) {
        let not_sent = |counters: &SecondCounters| _ = counters.not_sent.fetch_add(1, Relaxed);
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return not_sent(&self.counters);
        };
        let (shelf, counters) = (Arc::clone(&self.shelf), Arc::clone(&self.counters));
        crate::task::spawn("query-cache-send", async move {
            let _place = place;
            let name = packed::name(&key);
            let pack = move || packed::pack(&key, &extent);
            let packed = tokio::task::spawn_blocking(pack).await.ok().flatten();
            // What is too large, or has something to say, stays here.
            let Some(bytes) = packed else { return };
            match shelf.put(name, bytes).await {
                Ok(()) => _ = counters.sent.fetch_add(1, Relaxed),
                Err(Away) => not_sent(&counters),
            }
        });
    }
}

async fn unpacked(key: &Key, bytes: Vec<u8>) -> Option<Extent> {
    if bytes.len() > LARGEST_PACKED {
        return None;
    }
    if bytes.len() < LARGE {
        return packed::unpack(key, &bytes);
    }
    let key = key.clone();
    tokio::task::spawn_blocking(move || packed::unpack(&key, &bytes)).await.ok().flatten()
}
