//! What was deleted: hidden at once, removed in the background.
//!
//! A delete writes a tombstone for each set of matchers, and that is all it waits for. Tombstones are read
//! with every look-up of series, so that from then on every pod hides what they cover ([`hidden`]), also
//! what is written there again. One task for each pod removes the rows that are hidden ([`apply`]); a
//! tombstone hides on after that, until it is cleaned.
//!
//! ```text
//! delete ──▶ active ──(rows removed)──▶ applied ──(rows removed again)──▶ cleaned
//!               └──────────────────────clean_tombstones──────────────────────▲
//! ```
//!
//! Every step can be repeated, by any pod: a state is written after what it says is done, and a later
//! state wins over an earlier one.

mod apply;
mod forget;
mod tombstone;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::xxh3_128;

use self::{
    apply::Applier,
    tombstone::{COLUMNS, Row, State},
};
use super::{
    client::{Failure, Insert, Servers, Statement},
    read::counters::{ReadCounters, add},
    rollup::Rollups,
    tables::Tables,
};
use crate::{
    clock::Clock,
    model::{Matcher, TenantId, TimeRange, Timestamp},
    storage::{MatcherSets, Result},
};

pub(super) use tombstone::{Tombstone, hidden};

/// The tombstones, known and new.
#[derive(Debug)]
pub(super) struct Deletes {
    applier: Applier,
    rollups: Arc<Rollups>,
    clock: Arc<dyn Clock>,
    /// Removes what is hidden.
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Deletes {
    /// Starts removing what is hidden, in the background.
    pub(super) fn new(
        servers: Arc<Servers>,
        tables: Tables,
        counters: Arc<ReadCounters>,
        rollups: Arc<Rollups>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let applier = Applier::new(servers, tables, counters);
        let task = crate::task::spawn("clickhouse-deletes", applier.clone().run());
        Self { applier, rollups, clock, task: Mutex::new(Some(task)) }
    }

    /// The tombstones of a tenant that hide something in a range, as of now on every pod.
    pub(super) async fn hiding(&self, tenant: &TenantId, range: TimeRange) -> Result<Arc<[Tombstone]>> {
        let rows = read(&self.applier.servers, tenant, range).await?;
        add(&self.applier.counters.tombstones_heeded, rows.len());
        rows.iter().map(Row::tombstone).collect()
    }

    pub(super) async fn delete(
        &self,
        tenant: &TenantId,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<()> {
        let now = self.clock.now();
        // No set at all matches everything, as a set without matchers does.
        let sets = if matchers.is_empty() { vec![Vec::new()] } else { matchers };
        let rows: Vec<Row> =
            sets.iter().map(|set| Row::new(tenant, id(tenant, set, range, now), set, range, now)).collect();
        write(&self.applier.servers, &rows).await?;
        add(&self.applier.counters.tombstones_written, rows.len());
        self.applier.written.notify_one();
        Ok(())
    }

    /// Removes for good what is hidden, and lets what is written there afterwards be seen.
    pub(super) async fn clean(&self, tenant: &TenantId) -> Result<()> {
        for row in read(&self.applier.servers, tenant, TimeRange::ALL).await? {
            let tombstone = row.tombstone()?;
            let before = self.applier.settled().await?;
            let whose = self.applier.remove(tenant, &tombstone).await?;
            // What it hides no longer must not be seen in windows either.
            self.rollups.mark(tenant, self.rollups.touched_by(tombstone.range)).await?;
            self.applier.forget(tenant, tombstone.range, &whose, self.clock.now(), before).await?;
            write(&self.applier.servers, &[Row { state: State::Cleaned, ..row }]).await?;
            add(&self.applier.counters.tombstones_cleaned, 1);
        }
        Ok(())
    }

    /// Ends the work in the background.
    pub(super) fn stop(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Drop for Deletes {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A tenant's tombstones that hide something in a range.
async fn read(servers: &Servers, tenant: &TenantId, range: TimeRange) -> Result<Vec<Row>, Failure> {
    let sql = format!(
        "SELECT {COLUMNS} FROM tombstones FINAL WHERE tenant = {{tenant:String}} AND state != 'cleaned' \
         AND max_ts >= {{from:Int64}} AND min_ts <= {{to:Int64}} ORDER BY created, id"
    );
    let statement = Statement::new(sql)
        .param("tenant", tenant.as_str())
        .param("from", range.start().0)
        .param("to", range.end().0);
    servers.rows(&statement).await?.all(Row::take).await
}

/// Writes tombstones, all or none of them.
async fn write(servers: &Servers, rows: &[Row]) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    rows.iter().for_each(|row| row.put(&mut bytes));
    let token = format!("tombstones:{:032x}", xxh3_128(&bytes));
    servers
        .insert(&Insert {
            into: "tombstones (tenant, id, matchers, min_ts, max_ts, created, state, version)",
            rows: Bytes::from(bytes),
            token,
        })
        .await
}

/// An id that no other tombstone has, unless it was made to say the same at the same time.
fn id(tenant: &TenantId, matchers: &[Matcher], range: TimeRange, now: Timestamp) -> u128 {
    static DELETES: AtomicU64 = AtomicU64::new(0);
    let number = DELETES.fetch_add(1, Ordering::Relaxed);
    let what = format!("{tenant} {matchers:?} {range:?} {now} {number} {}", std::process::id());
    xxh3_128(what.as_bytes())
}
