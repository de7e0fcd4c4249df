//! Closed windows of samples rolled up, so that a month is read as 720 rows a series and not 170,000.
//!
//! ```text
//!             until             now
//!  ───────────┼──────────────────┼──▶ time
//!  rolled up  │ too young: samples may still come
//!        ▓▓   │                       ▓ late or deleted since: marked, and rolled up again
//! ```
//!
//! Windows are left open like those of PromQL, `(end - resolution, end]`, and have the name of their end.
//!
//! * [`fill`] rolls up what has closed, in slices, and writes down how far it is. Whoever of us comes to it
//!   does it; that two do is a waste and no harm, since of two rows the one written last counts.
//! * [`late`] marks where samples came after their windows may have been rolled up, or went. A mark is there
//!   before the samples are acknowledged (or the deletion is done with), and until it is worked off nobody
//!   reads those windows.
//! * [`read`] answers range functions over whole windows. What is not rolled up, too young or marked is read
//!   as samples and made into windows here ([`window`]), so that an answer is always whole.
//!
//! Whether a sample is late is judged by our clock, when windows are closed too; the time between
//! [`LATE`] and [`CLOSED`] is for inserts on their way and for clocks that do not agree. A sample whose
//! append was never acknowledged may be missing in windows. The windows go with the samples' retention.

mod counters;
mod fill;
mod late;
mod read;
mod window;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::xxh3_64;

pub use counters::RollupCounters;

use super::{client::Servers, config::ClickHouseConfig};
use crate::{
    clock::Clock,
    model::{Millis, TenantId, Timestamp},
};

/// Samples older than this may be in windows that are rolled up.
const LATE: Millis = Millis(5 * Millis::MINUTE.0);
/// Windows that ended longer ago than this are closed.
const CLOSED: Millis = Millis(25 * Millis::MINUTE.0);
/// How often it is looked whether there is something to roll up.
const PAUSE: Duration = Duration::from_secs(60);

/// How long a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    FiveMinutes,
    Hour,
}

impl Resolution {
    const ALL: [Self; 2] = [Self::FiveMinutes, Self::Hour];

    fn table(self) -> &'static str {
        match self {
            Self::FiveMinutes => "rollup_5m",
            Self::Hour => "rollup_1h",
        }
    }

    fn millis(self) -> i64 {
        match self {
            Self::FiveMinutes => 5 * Millis::MINUTE.0,
            Self::Hour => Millis::HOUR.0,
        }
    }

    /// The end of the last window that is closed.
    fn closed(self, now: Timestamp) -> i64 {
        let before = now.minus(CLOSED).0;
        before - before.rem_euclid(self.millis())
    }
}

/// The windows of a store.
#[derive(Debug)]
pub(super) struct Rollups {
    servers: Arc<Servers>,
    config: Arc<ClickHouseConfig>,
    clock: Arc<dyn Clock>,
    counters: RollupCounters,
    /// Which of us this is.
    owner: u64,
    /// Marks made, and whatever else needs a number of its own.
    made: AtomicU64,
    /// When we last said that we are at it.
    claimed: AtomicI64,
    waiting: late::Waiting,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Rollups {
    /// Rolls up in the background from now on, if that is wanted.
    pub(super) fn new(
        servers: Arc<Servers>,
        config: Arc<ClickHouseConfig>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let owner = owner(config.seed, clock.now());
        let rollups = Arc::new(Self {
            servers,
            config,
            clock,
            counters: RollupCounters::default(),
            owner,
            made: AtomicU64::new(0),
            claimed: AtomicI64::new(i64::MIN),
            waiting: late::Waiting::default(),
            task: Mutex::new(None),
        });
        if rollups.config.rollups {
            *rollups.task.lock() = Some(fill::start(&rollups));
        }
        rollups
    }

    pub(super) fn counters(&self) -> &RollupCounters {
        &self.counters
    }

    /// Stops what runs in the background, wherever it is: it goes on from where it was last sure.
    pub(super) fn close(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }

    /// The oldest instant that a tenant's retention keeps.
    fn oldest(&self, tenant: &TenantId) -> Timestamp {
        let own = self.config.tenant_retention.iter().find(|(name, _)| name == tenant);
        own.map_or(self.config.retention, |(_, keep)| *keep).map_or(Timestamp::MIN, |keep| {
            self.clock.now().minus(Millis(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX)))
        })
    }
}

/// A number that no other store has, of this process or another.
fn owner(seed: u64, now: Timestamp) -> u64 {
    static STORES: AtomicU64 = AtomicU64::new(0);
    let mut who = [0; 28];
    who[..8].copy_from_slice(&seed.to_le_bytes());
    who[8..16].copy_from_slice(&now.0.to_le_bytes());
    who[16..24].copy_from_slice(&STORES.fetch_add(1, Relaxed).to_le_bytes());
    who[24..].copy_from_slice(&std::process::id().to_le_bytes());
    xxh3_64(&who)
}
