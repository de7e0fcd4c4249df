//! What is left of tenants' rates.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::model::{Limit, TenantId};

/// Something to be taken from a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Which bucket of the tenant.
    pub limit: Limit,
    /// What comes in in a second.
    pub rate: u64,
    /// What it holds when full.
    pub burst: u64,
    /// What is taken out.
    pub cost: u64,
}

/// A bucket that does not have enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// What it was asked for.
    pub draw: Draw,
    /// When it will have that; none is never, for it is more than it ever holds.
    pub retry_after: Option<Duration>,
}

/// A bucket for each tenant and rate.
#[async_trait]
pub trait Buckets: fmt::Debug + Send + Sync + 'static {
    /// Takes from several buckets of a tenant, from all or from none.
    async fn take(&self, tenant: &TenantId, draws: &[Draw]) -> Result<(), Short>;
}

/// Buckets that are never empty.
#[derive(Clone, Copy, Debug)]
pub struct NoBuckets;

#[async_trait]
impl Buckets for NoBuckets {
    async fn take(&self, _: &TenantId, _: &[Draw]) -> Result<(), Short> {
        Ok(())
    }
}
