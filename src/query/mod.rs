//! The service around PromQL: what is asked is checked, let in, timed, and cut to size.
//!
//! A query's way through [`QueryService`]:
//!
//! 1. **Check.** The text's length, the order of its times, the step, and the number of points are
//!    looked at before anything is done ([`evaluate`]).
//! 2. **Admit.** [`Admission`] gives out a bounded number of places. A query
//!    waits in line for one, and the wait counts against its timeout.
//! 3. **Evaluate.** An [`Evaluate`] (the PromQL engine) computes; of range queries only what the [`cache`] does not
//!    have. Dropping the call stops it, so a client that hangs up costs nothing more.
//! 4. **Cut.** `limit` truncates the result and says so in a warning. What it cost is written down ([`journal`]); a
//!    slow query is logged.
//!
//! All that time it is among the [`active`] ones, where it can be looked at and ended; so are remote reads and what
//! federates, which hold of the same memory.
//!
//! Questions about labels and metadata ([`catalog`], [`search`]), about [`exemplars`], and about what a query would cost
//! ([`estimate`]) skip the line: they read no samples. An [`export`] reads all of them, and so does a
//! [`remote_read`]: both have places of their own. [`federate`] asks for the newest ones, in line with queries.
//!
//! What is wrong with a request is a [`QueryFailure`], by meaning; which status that is, the gateway
//! decides.

pub mod active;
pub mod admission;
pub mod cache;
pub mod catalog;
pub mod estimate;
pub mod evaluate;
pub mod exemplars;
pub mod export;
pub mod failure;
pub mod federate;
pub mod journal;
pub mod reader;
pub mod remote_read;
pub mod search;
pub mod selectors;

use std::{sync::Arc, time::Duration};

use active::ActiveQueries;
use admission::Admission;
use cache::RangeCache;
use journal::Journal;

use crate::{
    clock::Clock,
    model::{FeatureSwitches, Millis},
    promql::{Features, memory::Memory},
    storage::Storage,
};

pub use active::{ActiveQuery, Asked, Origin, Running};
pub use catalog::{CatalogQuery, Listed, MetadataQuery};
pub use estimate::{EstimateQuery, EstimateTimes, QueryEstimate, SelectorEstimate};
pub use evaluate::{Answered, Evaluate, InstantQuery, QueryControls, RangeQuery};
pub use export::{Export, ExportQuery, Exported, Shard};
pub use failure::QueryFailure;
pub use federate::{Federated, Newest, NewestValue};
pub use reader::Reader;
pub use remote_read::{ReadPart, ReadQuery, RemoteRead};
pub use search::{Hit, Hits, SearchQuery, Searched};

/// What a caller is told when an answer was cut.
pub const TRUNCATED: &str = "results truncated due to limit";

/// Bounds on what one query, and all of them, may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// The longest a query may take, waiting included; a request can only ask for less.
    pub timeout: Duration,
    /// Queries that run at one time.
    pub max_concurrency: usize,
    /// Queries that wait for a place; one more is refused.
    pub max_waiting: usize,
    /// The longest text, in bytes.
    pub max_query_bytes: usize,
    /// How many steps a range query may have after its first.
    pub max_steps: i64,
    /// Samples that a remote read may hold.
    pub max_samples: u64,
    /// How far back a sample counts that is the newest.
    pub lookback: Millis,
    /// Longer than this is logged as slow; none logs nothing.
    pub slow_query: Option<Duration>,
    /// Features of queries, where neither a tenant nor a request says otherwise.
    pub features: Features,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            max_concurrency: 20,
            max_waiting: 1024,
            max_query_bytes: 128 * 1024,
            max_steps: 11_000,
            max_samples: 50_000_000,
            lookback: Millis(5 * Millis::MINUTE.0),
            slow_query: Some(Duration::from_secs(10)),
            features: Features::default(),
        }
    }
}

/// Answers queries.
#[derive(Debug)]
pub struct QueryService {
    engine: Arc<dyn Evaluate>,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    limits: QueryLimits,
    admission: Admission,
    exports: Admission,
    cache: Option<RangeCache>,
    active: Arc<ActiveQueries>,
    journal: Arc<Journal>,
    remote_reads: Admission,
    memory: Arc<Memory>,
}

impl QueryService {
    /// Puts a service around an engine and the store it reads.
    pub fn new(
        engine: Arc<dyn Evaluate>,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        limits: QueryLimits,
    ) -> Self {
        let admission = Admission::new(limits.max_concurrency, limits.max_waiting);
        let exports = Admission::shared_out(export::MAX_EXPORTS);
        let active = Arc::new(ActiveQueries::new(Arc::clone(&clock)));
        let journal = Arc::new(Journal::new(limits.slow_query));
        let remote_reads = Admission::new(remote_read::MAX_READS, limits.max_waiting);
        Self {
            engine,
            storage,
            clock,
            limits,
            admission,
            exports,
            remote_reads,
            active,
            journal,
            cache: None,
            memory: Memory::new(u64::MAX),
        }
    }

    /// Makes answers to range queries of pieces, and keeps them.
    #[must_use]
    pub fn with_cache(mut self, cache: RangeCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Shares a memory with what evaluates queries: what is read for others takes of the same.
    #[must_use]
    pub fn with_memory(mut self, memory: Arc<Memory>) -> Self {
        self.memory = memory;
        self
    }

    /// Where answers to range queries are kept.
    pub fn cache(&self) -> Option<&RangeCache> {
        self.cache.as_ref()
    }

    /// The bounds in force.
    pub fn limits(&self) -> &QueryLimits {
        &self.limits
    }

    /// The queries that run or wait.
    pub fn active(&self) -> &ActiveQueries {
        &self.active
    }

    /// What queries have cost.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The features that hold for a request: what it switches, then what its tenant does, then the server's.
    pub fn features(&self, reader: Option<&Reader>, switches: FeatureSwitches) -> Features {
        let of_tenant = reader.map_or_else(FeatureSwitches::default, |reader| reader.limits.features);
        self.limits.features.with(switches.over(of_tenant))
    }

    /// Queries that run now.
    pub fn running(&self) -> usize {
        self.admission.running()
    }

    /// Queries that wait for a place now.
    pub fn waiting(&self) -> usize {
        self.admission.waiting()
    }
}
