//! An insert, sent: whole, or in halves if the server has not the memory for it.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

use super::{
    counters::{WriteCounters, add, sub},
    rows::{Body, Table},
    slip::{Outcome, late},
};
use crate::{
    clock::Clock,
    storage::clickhouse::client::{Insert, MEMORY_LIMIT, Servers},
};

/// By how much an insert may outlast its time.
const A_MOMENT: Duration = Duration::from_secs(2);

/// Writes rows, once for each token. `Ok` means that they are durable.
#[async_trait]
pub(super) trait Inserter: fmt::Debug + Send + Sync {
    async fn insert(&self, insert: &Insert) -> Outcome;
}

#[async_trait]
impl Inserter for Servers {
    async fn insert(&self, insert: &Insert) -> Outcome {
        Self::insert(self, insert).await
    }
}

/// Sends inserts.
#[derive(Debug)]
pub(super) struct Sender {
    inserter: Arc<dyn Inserter>,
    /// How long an insert may take.
    timeout: Duration,
    seed: u64,
    clock: Arc<dyn Clock>,
    pub(super) counters: Arc<WriteCounters>,
}

impl Sender {
    pub(super) fn new(
        inserter: Arc<dyn Inserter>,
        timeout: Duration,
        seed: u64,
        clock: Arc<dyn Clock>,
        counters: Arc<WriteCounters>,
    ) -> Arc<Self> {
        Arc::new(Self { inserter, timeout, seed, clock, counters })
    }

    /// Sends rows, and waits until they are durable or not.
    pub(super) async fn send(&self, table: Table, body: Body) -> Outcome {
        let (rows, bytes) = (body.rows, body.bytes.len());
        let token = self.token(&body.bytes);
        let started = self.clock.elapsed();
        add(&self.counters.inserts_in_flight, 1);
        let sent = self.send_parts(table, Bytes::from(body.bytes), &body.joints, token);
        // Those who send know best why it took too long, so they are given a moment to say so.
        let outcome = tokio::time::timeout(self.timeout + A_MOMENT, sent).await;
        let outcome = outcome.unwrap_or_else(|_| Err(late(self.timeout)));
        sub(&self.counters.inserts_in_flight, 1);
        let took = self.clock.elapsed().saturating_sub(started);
        self.counters.inserted(rows, bytes, took, outcome.is_err());
        outcome
    }

    /// Halves are sent under tokens of their own, since the server may remember that of the whole. That is
    /// right after an answer only: what may have been written without our hearing of it is sent again as it is.
    async fn send_parts(&self, table: Table, rows: Bytes, joints: &[usize], token: String) -> Outcome {
        let mut todo = vec![(0..rows.len(), token)];
        while let Some((range, token)) = todo.pop() {
            let insert = Insert { into: table.into(), rows: rows.slice(range.clone()), token };
            let Err(failure) = self.inserter.insert(&insert).await else { continue };
            let Some(middle) = middle(&range, joints).filter(|_| failure.code == Some(MEMORY_LIMIT)) else {
                return Err(failure);
            };
            add(&self.counters.insert_splits, 1);
            todo.push((middle..range.end, format!("{}/1", insert.token)));
            todo.push((range.start..middle, format!("{}/0", insert.token)));
        }
        Ok(())
    }

    /// A name for an insert that no other has, on any pod.
    ///
    /// The rows are in it, and because the same rows may have to be written twice (deleted in between), so
    /// is who writes them, when, and how many others it has written.
    fn token(&self, rows: &[u8]) -> String {
        static INSERTS: AtomicU64 = AtomicU64::new(0);
        let mut who = [0; 36];
        who[..16].copy_from_slice(&xxh3_128(rows).to_le_bytes());
        who[16..24].copy_from_slice(&self.clock.now().0.to_le_bytes());
        who[24..32].copy_from_slice(&INSERTS.fetch_add(1, Relaxed).to_le_bytes());
        who[32..].copy_from_slice(&std::process::id().to_le_bytes());
        format!("{:032x}", xxh3_128_with_seed(&who, self.seed))
    }
}

/// The joint nearest to the middle of a range, if there is one within.
fn middle(range: &Range<usize>, joints: &[usize]) -> Option<usize> {
    let middle = range.start + range.len() / 2;
    let after = joints.partition_point(|joint| *joint < middle);
    let near = joints[after.saturating_sub(1)..].iter().take(2).copied();
    near.filter(|joint| range.start < *joint && *joint < range.end).min_by_key(|joint| joint.abs_diff(middle))
}
