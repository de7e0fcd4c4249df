//! Who asks: what they may see, and how much it may cost.

use std::sync::Arc;

use super::QueryFailure;
use crate::{
    model::{Limit, OverLimit, TenantId, TenantLimits},
    storage::View,
};

/// Who asks.
#[derive(Clone, Debug)]
pub struct Reader {
    /// What they may see.
    pub view: View,
    /// What a query may cost them.
    pub limits: Arc<TenantLimits>,
}

impl Reader {
    /// One who sees all of a tenant, without limits but the service's.
    pub fn of(tenant: TenantId) -> Self {
        Self { view: View::of(tenant), limits: Arc::new(TenantLimits::unlimited()) }
    }

    /// Fails if what a query costs is over a limit of theirs.
    pub(super) fn within(&self, limit: Limit, cost: u64) -> Result<(), QueryFailure> {
        let Some(allowed) = self.limits.get(limit).filter(|most| cost > *most) else { return Ok(()) };
        let over = OverLimit { limit, allowed, asked: cost, retry_after: None, for_good: true };
        Err(QueryFailure::costs(over))
    }
}
