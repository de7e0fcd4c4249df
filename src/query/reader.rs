//! Who asks: what they may see, and how much it may cost.

use std::sync::Arc;

use super::QueryFailure;
use crate::{
    model::{Limit, OverLimit, TenantId, TenantLimits},
    storage::{SelectRequest, StorageError, View},
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

    /// A request within what they may select.
    pub(super) fn bounded(&self, request: SelectRequest) -> SelectRequest {
        let limits = &self.limits;
        SelectRequest {
            max_series: limits.get(Limit::QuerySeries).map(|_| limits.size(Limit::QuerySeries)),
            max_label_bytes: limits.get(Limit::QueryBytes),
            ..request
        }
    }

    /// Names the limit of theirs that stopped a selection.
    pub(super) fn named(&self, failure: QueryFailure) -> QueryFailure {
        let limit = match &failure {
            QueryFailure::Storage(StorageError::TooManySeries { .. }) => Limit::QuerySeries,
            QueryFailure::Storage(StorageError::TooManyLabelBytes { .. }) => Limit::QueryBytes,
            _ => return failure,
        };
        let over = self.limits.get(limit).map(|most| self.within(limit, most.saturating_add(1)));
        over.and_then(Result::err).unwrap_or(failure)
    }
}
