//! How much a tenant may use, and who says no.
//!
//! ```text
//! request ─▶ limits of (tenant, token) ─▶ before the body: requests, bytes, places at a time
//!                                      └▶ when its cost is known: samples, new series
//! ```
//!
//! * [`overrides`]: limits somebody wrote down, read and written back; in the overrides [`file`](mod@file), by the API
//!   ([`user`]), in a token.
//! * [`table`]: which hold for whom.
//! * [`buckets`]: what is left of the rates; [`local`]: in memory.
//! * [`series`]: how many series may begin.

pub mod buckets;
pub mod file;
pub mod local;
pub mod overrides;
mod series;
pub mod table;
pub mod user;

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    ingest::WriteQuota,
    model::{Limit, OverLimit, TenantId, TenantLimits},
    storage::Granted,
};

use buckets::{Buckets, Draw};
use table::LimitTable;

/// Enforces tenants' limits.
#[derive(Debug)]
pub struct Limiter {
    table: Arc<LimitTable>,
    buckets: Arc<dyn Buckets>,
}

impl Limiter {
    /// Limits of a table, counted in buckets.
    pub fn new(table: Arc<LimitTable>, buckets: Arc<dyn Buckets>) -> Self {
        Self { table, buckets }
    }

    /// Which limits hold for whom.
    pub fn table(&self) -> &Arc<LimitTable> {
        &self.table
    }

    /// Takes what something costs from a tenant's rates, all or nothing; rates without bound cost nothing.
    pub async fn take(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        costs: &[(Limit, u64)],
    ) -> Result<(), OverLimit> {
        let draws: Vec<Draw> = costs
            .iter()
            .filter_map(|&(limit, cost)| {
                let rate = limits.get(limit)?;
                let burst = limit.burst().and_then(|burst| limits.get(burst)).unwrap_or(rate);
                Some(Draw { limit, rate, burst, cost })
            })
            .collect();
        if draws.is_empty() {
            return Ok(());
        }
        self.buckets.take(tenant, &draws).await.map_err(|short| {
            let Draw { limit, rate, burst, cost } = short.draw;
            let allowed = if cost > burst { burst } else { rate };
            let for_good = limits.refuses_for_good(limit);
            OverLimit { limit, allowed, asked: cost, retry_after: short.retry_after, for_good }
        })
    }
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

    async fn take_series(&self, tenant: &TenantId, limits: &TenantLimits, wanted: u64) -> Granted {
        self.begin_series(tenant, limits, wanted).await
    }
}
