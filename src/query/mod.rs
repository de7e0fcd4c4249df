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
//! 4. **Cut.** `limit` truncates the result and says so in a warning; a slow query is logged.
//!
//! Questions about labels and metadata ([`catalog`]), and about [`exemplars`], skip the line: they read no
//! samples. An [`export`] reads all of them, and has places of its own.
//!
//! What is wrong with a request is a [`QueryFailure`], by meaning; which status that is, the gateway
//! decides.

pub mod admission;
pub mod cache;
pub mod catalog;
pub mod evaluate;
pub mod exemplars;
pub mod export;
pub mod failure;
pub mod reader;
pub mod selectors;

use std::{sync::Arc, time::Duration};

use admission::Admission;
use cache::RangeCache;

use crate::{clock::Clock, storage::Storage};

pub use catalog::{CatalogQuery, Listed, MetadataQuery};
pub use evaluate::{Evaluate, InstantQuery, QueryControls, RangeQuery};
pub use export::{Export, ExportQuery, Exported, Shard};
pub use failure::QueryFailure;
pub use reader::Reader;

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
    /// Longer than this is logged as slow; none logs nothing.
    pub slow_query: Option<Duration>,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            max_concurrency: 20,
            max_waiting: 1024,
            max_query_bytes: 128 * 1024,
            max_steps: 11_000,
            slow_query: Some(Duration::from_secs(10)),
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
        Self { engine, storage, clock, limits, admission, exports, cache: None }
    }

    /// Makes answers to range queries of pieces, and keeps them.
    #[must_use]
    pub fn with_cache(mut self, cache: RangeCache) -> Self {
        self.cache = Some(cache);
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

    /// Queries that run now.
    pub fn running(&self) -> usize {
        self.admission.running()
    }

    /// Queries that wait for a place now.
    pub fn waiting(&self) -> usize {
        self.admission.waiting()
    }
}
