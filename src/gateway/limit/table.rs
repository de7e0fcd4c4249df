//! Which limits hold for whom: the tenant's, and what its token says, within what the server allows at all.

use std::sync::Arc;

use crate::{
    gateway::auth::LimitOverrides,
    model::{TenantId, TenantLimits},
};

/// The limits of all tenants.
#[derive(Debug)]
pub struct LimitTable {
    defaults: Arc<TenantLimits>,
}

impl LimitTable {
    /// The same limits for everybody.
    pub fn of(defaults: TenantLimits) -> Self {
        Self { defaults: Arc::new(defaults) }
    }

    /// The limits of a request for a tenant by a caller with limits of their own.
    pub fn limits_of(&self, _tenant: &TenantId, own: &LimitOverrides) -> Arc<TenantLimits> {
        if *own == LimitOverrides::default() {
            return Arc::clone(&self.defaults);
        }
        let mut limits = TenantLimits::clone(&self.defaults);
        own.apply(&mut limits);
        Arc::new(limits)
    }
}
