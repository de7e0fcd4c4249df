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

/// How a bucket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// What is in it.
    pub left: u64,
    /// When it will have what a [`Draw`] costs; none is never.
    pub enough_in: Option<Duration>,
    /// When it will be full.
    pub full_in: Duration,
}

/// A bucket for each tenant and rate.
#[async_trait]
pub trait Buckets: fmt::Debug + Send + Sync + 'static {
    /// Takes from several buckets of a tenant, from all or from none. Told is the one that is short for longest.
    async fn take(&self, tenant: &TenantId, draws: &[Draw]) -> Result<(), Short>;

    /// How a bucket stands, as far as that is known without asking anybody; none is not known.
    fn level(&self, tenant: &TenantId, draw: &Draw) -> Option<Level>;
}

/// Buckets that are never empty.
#[derive(Clone, Copy, Debug)]
pub struct NoBuckets;

#[async_trait]
impl Buckets for NoBuckets {
    async fn take(&self, _: &TenantId, _: &[Draw]) -> Result<(), Short> {
        Ok(())
    }

    fn level(&self, _: &TenantId, _: &Draw) -> Option<Level> {
        None
    }
}
