//! Who writes: as whom, what their series are stamped with, and how much they may write.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use xxhash_rust::xxh3::Xxh3;

use super::IngestLimits;
use crate::{
    model::{Limit, Millis, OverLimit, TenantId, TenantLimits},
    storage::{AppendPolicy, Granted, SeriesRoom},
};

/// Who writes.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Whose data it becomes.
    pub tenant: TenantId,
    /// What the tenant may write.
    pub limits: Arc<TenantLimits>,
    /// Labels that each series gets, whatever it had of the same names.
    pub stamps: Arc<[(String, String)]>,
    /// What is left of what the tenant may write.
    pub quota: Arc<dyn WriteQuota>,
}

/// What is left of what tenants may write; asked when the cost of a request is known and before anything of it is
/// written.
#[async_trait]
pub trait WriteQuota: fmt::Debug + Send + Sync + 'static {
    /// Takes so many samples, histograms and exemplars, all or none of them.
    async fn take_samples(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        count: u64,
    ) -> Result<(), OverLimit>;

    /// The same for what comes as a stream: waits until there were as many, and fails only where that would be too long.
    async fn wait_for_samples(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        count: u64,
    ) -> Result<(), OverLimit>;

    /// Takes `wanted` series that begin, or as many of them as there are.
    async fn take_series(&self, tenant: &TenantId, limits: &TenantLimits, wanted: u64) -> Granted;
}

/// As much as anybody likes.
#[derive(Clone, Copy, Debug)]
pub struct NoQuota;

#[async_trait]
impl WriteQuota for NoQuota {
    async fn take_samples(&self, _: &TenantId, _: &TenantLimits, _: u64) -> Result<(), OverLimit> {
        Ok(())
    }

    async fn wait_for_samples(&self, _: &TenantId, _: &TenantLimits, _: u64) -> Result<(), OverLimit> {
        Ok(())
    }

    async fn take_series(&self, _: &TenantId, _: &TenantLimits, wanted: u64) -> Granted {
        Granted::all(wanted)
    }
}

/// The series that a sender may begin.
#[derive(Debug)]
struct SenderRoom(Sender);

#[async_trait]
impl SeriesRoom for SenderRoom {
    fn max_active(&self) -> Option<u64> {
        self.0.limits.get(Limit::ActiveSeries)
    }

    async fn begin(&self, wanted: u64) -> Granted {
        let Self(sender) = self;
        sender.quota.take_series(&sender.tenant, &sender.limits, wanted).await
    }
}

impl Sender {
    /// One who writes as a tenant with the limits that hold if nobody says anything.
    pub fn of(tenant: TenantId) -> Self {
        Self {
            tenant,
            limits: Arc::new(TenantLimits::default()),
            stamps: Arc::new([]),
            quota: Arc::new(NoQuota),
        }
    }

    /// The bounds on series that this sender begins, if there are any.
    pub(super) fn room(&self) -> Option<Arc<dyn SeriesRoom>> {
        let bounds = [Limit::ActiveSeries, Limit::NewSeries];
        let bounded = bounds.iter().any(|limit| self.limits.get(*limit).is_some());
        bounded.then(|| Arc::new(SenderRoom(self.clone())) as _)
    }

    /// The limits of a request of this sender.
    pub(super) fn within(&self, base: &IngestLimits) -> IngestLimits {
        let millis = |limit| self.limits.get(limit).map(|ms| Millis(i64::try_from(ms).unwrap_or(i64::MAX)));
        IngestLimits {
            max_labels: self.limits.size(Limit::LabelNames),
            max_label_name_bytes: self.limits.size(Limit::LabelNameBytes),
            max_label_value_bytes: self.limits.size(Limit::LabelValueBytes),
            creation_grace: millis(Limit::CreationGrace),
            policy: AppendPolicy {
                on_conflict: self.limits.on_conflict,
                out_of_order_window: millis(Limit::OutOfOrderWindow),
            },
            ..base.clone()
        }
    }

    /// A number for the rules by which labels are read: a series is only known under those it was checked by.
    pub(super) fn rules(&self) -> u64 {
        let mut hash = Xxh3::new();
        for limit in [Limit::LabelNames, Limit::LabelNameBytes, Limit::LabelValueBytes] {
            let value = self.limits.get(limit);
            hash.update(&[u8::from(value.is_some())]);
            hash.update(&value.unwrap_or(0).to_le_bytes());
        }
        for text in self.stamps.iter().flat_map(|(name, value)| [name, value]) {
            hash.update(&text.len().to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.digest()
    }
}
