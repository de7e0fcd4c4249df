//! How much a tenant may use, and who says no.
//!
//! ```text
//! request ─▶ limits of (tenant, token) ─▶ before the body: places at a time, requests, bytes, and whether there are samples left
//!                                      └▶ when its cost is known: samples, new series
//! ```
//!
//! * [`overrides`]: limits somebody wrote down, read and written back; in the overrides [`file`](mod@file), by the API
//!   ([`user`]), in a token.
//! * [`table`]: which hold for whom.
//! * [`buckets`]: what is left of the rates; [`local`]: in memory; [`shared`]: in Redis, for several gateways, and
//!   [`share`]: while that is away.
//! * `series`: how many series may begin.
//! * [`crowd`]: who is near the most series they may have. [`places`]: what runs at a time. [`density`]: how many samples a body likely has.
//! * [`door`]: stands before each route that costs a tenant something, with [`fields`] for what answers say of them.
//! * [`rejections`]: what was refused lately, for whoever wonders where their samples are.

pub mod buckets;
pub mod crowd;
pub mod density;
pub mod door;
pub mod fields;
pub mod file;
pub mod local;
pub mod overrides;
pub mod places;
pub mod rejections;
mod series;
pub mod share;
pub mod shared;
pub mod table;
pub mod user;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use smallvec::SmallVec;

use crate::{
    ingest::WriteQuota,
    model::{Limit, OverLimit, TenantId, TenantLimits},
    storage::Granted,
};

use buckets::{Buckets, Draw, Level, Short};
use crowd::Crowd;
use density::Densities;
use places::{Place, Places};
use rejections::RejectionLog;
use table::LimitTable;

/// The limits that are rates.
const RATES: [Limit; 5] =
    [Limit::WriteRequests, Limit::Samples, Limit::Bytes, Limit::Queries, Limit::NewSeries];

/// When who has too much under way is to come again.
const PLACE_RETRY: Duration = Duration::from_secs(1);

/// The longest an import waits for what one of its batches costs.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Enforces tenants' limits.
#[derive(Debug)]
pub struct Limiter {
    table: Arc<LimitTable>,
    buckets: Arc<dyn Buckets>,
    places: Places,
    densities: Densities,
    rejections: RejectionLog,
    crowd: Crowd,
    counters: LimitCounters,
}

/// What was refused, and what waited, since the start.
#[derive(Debug, Default)]
pub struct LimitCounters {
    exceeded: [AtomicU64; Limit::ALL.len()],
    /// Write requests that were refused before their body was read.
    pub unread: AtomicU64,
    /// Times that an import waited for what it costs.
    pub waits: AtomicU64,
    /// How long those were, in milliseconds.
    pub waited_millis: AtomicU64,
}

impl LimitCounters {
    /// How often a limit was exceeded.
    pub fn exceeded(&self, limit: Limit) -> u64 {
        self.exceeded[limit as usize].load(Ordering::Relaxed)
    }
}

/// What a tenant has left of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// The rate.
    pub limit: Limit,
    /// What comes in in a second.
    pub rate: u64,
    /// What there is after a rest.
    pub burst: u64,
    /// What there is now; none is not known.
    pub level: Option<Level>,
}

impl Limiter {
    /// Limits of a table, counted in buckets.
    pub fn new(table: Arc<LimitTable>, buckets: Arc<dyn Buckets>) -> Self {
        Self {
            table,
            buckets,
            places: Places::default(),
            densities: Densities::default(),
            rejections: RejectionLog::default(),
            crowd: Crowd::default(),
            counters: LimitCounters::default(),
        }
    }

    /// Which limits hold for whom.
    pub fn table(&self) -> &Arc<LimitTable> {
        &self.table
    }

    /// What was refused lately.
    pub fn rejections(&self) -> &RejectionLog {
        &self.rejections
    }

    /// The bounds on active series of tenants that write.
    pub fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// What was refused, and what waited, since the start.
    pub fn counters(&self) -> &LimitCounters {
        &self.counters
    }

    /// Takes what something costs from a tenant's rates, all or nothing; rates without bound cost nothing.
    pub async fn take(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        costs: &[(Limit, u64)],
    ) -> Result<(), OverLimit> {
        let draws: SmallVec<[Draw; 4]> =
            costs.iter().filter_map(|&(limit, cost)| draw(limits, limit, cost)).collect();
        if draws.is_empty() {
            return Ok(());
        }
        self.buckets.take(tenant, &draws).await.map_err(|short| over(limits, short))
    }

    /// Whether there is as much as something will cost, as far as that is known without asking; takes nothing.
    pub fn look(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        limit: Limit,
        cost: u64,
    ) -> Result<(), OverLimit> {
        let Some(draw) = draw(limits, limit, cost) else { return Ok(()) };
        match self.buckets.level(tenant, &draw) {
            None => Ok(()),
            Some(level) => match level.enough_in {
                Some(Duration::ZERO) => Ok(()),
                retry_after => Err(over(limits, Short { draw, retry_after })),
            },
        }
    }

    /// One of the places that a tenant's limit gives; none are counted where there is no limit.
    pub fn place(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        limit: Limit,
    ) -> Result<Option<Place>, OverLimit> {
        let Some(allowed) = limits.get(limit) else { return Ok(None) };
        self.places.take(tenant, limit, allowed).map(Some).map_err(|running| OverLimit {
            limit,
            allowed,
            asked: running + 1,
            retry_after: (allowed > 0).then_some(PLACE_RETRY),
            for_good: limits.refuses_for_good(limit),
        })
    }

    /// What a tenant has left of a rate; none if it has no bound, or is no rate.
    pub fn remaining_of(&self, tenant: &TenantId, limits: &TenantLimits, limit: Limit) -> Option<Remaining> {
        let draw = draw(limits, limit, 1).filter(|_| RATES.contains(&limit))?;
        let level = self.buckets.level(tenant, &draw);
        Some(Remaining { limit, rate: draw.rate, burst: draw.burst, level })
    }

    fn count(&self, over: &OverLimit) {
        self.counters.exceeded[over.limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes samples as they come in, `burst` at most at a time.
    async fn take_slowly(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        limit: Limit,
        mut count: u64,
    ) -> Result<(), OverLimit> {
        let Some(most) = draw(limits, limit, count).map(|draw| draw.burst.max(1)) else { return Ok(()) };
        let mut waited = Duration::ZERO;
        while count > 0 {
            let piece = count.min(most);
            let Err(over) = self.take(tenant, limits, &[(limit, piece)]).await else {
                count -= piece;
                continue;
            };
            match over.retry_after {
                Some(wait) if waited + wait <= LONGEST_WAIT => {
                    waited += wait;
                    self.counters.waits.fetch_add(1, Ordering::Relaxed);
                    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    self.counters.waited_millis.fetch_add(millis, Ordering::Relaxed);
                    tokio::time::sleep(wait).await;
                }
                Some(_) | None => return Err(over),
            }
        }
        Ok(())
    }
}

/// What a cost is to be taken from; none where there is no bound.
fn draw(limits: &TenantLimits, limit: Limit, cost: u64) -> Option<Draw> {
    let rate = limits.get(limit)?;
    let burst = limit.burst().and_then(|burst| limits.get(burst)).unwrap_or(rate);
    Some(Draw { limit, rate, burst, cost })
}

/// Names what is in the way: the rate, or the burst that a single request is larger than.
fn over(limits: &TenantLimits, short: Short) -> OverLimit {
    let Draw { limit, rate, burst, cost } = short.draw;
    let configured = |burst: &Limit| limits.get(*burst).is_some();
    let (named, allowed) = match limit.burst().filter(configured) {
        Some(named) if cost > burst => (named, burst),
        Some(_) | None => (limit, rate),
    };
    let for_good = limits.refuses_for_good(limit);
    OverLimit { limit: named, allowed, asked: cost, retry_after: short.retry_after, for_good }
}

#[async_trait]
impl WriteQuota for Limiter {
    async fn take_samples(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        count: u64,
    ) -> Result<(), OverLimit> {
        self.take(tenant, limits, &[(Limit::Samples, count)]).await
    }

    async fn wait_for_samples(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        count: u64,
    ) -> Result<(), OverLimit> {
        self.take_slowly(tenant, limits, Limit::Samples, count).await
    }

    async fn take_series(&self, tenant: &TenantId, limits: &TenantLimits, wanted: u64) -> Granted {
        self.begin_series(tenant, limits, wanted).await
    }
}

#[cfg(test)]
mod tests;
