//! What a reader may see of a store.
//!
//! Every read of samples, series, labels, metadata and exemplars for a caller goes through a [`View`], so that what a
//! caller may see is decided in one place, for every endpoint and both backends.

use super::{
    Cardinality, LabelsRequest, MatcherSets, Result, SelectRequest, Selected, SeriesExemplars, Storage,
};
use crate::model::{Labels, Metadata, TenantId, TimeRange};

/// What a reader may see.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    tenants: Vec<TenantId>,
    /// One of the sets must match a series; none at all is all series.
    filters: MatcherSets,
}

impl View {
    /// All of one tenant.
    pub fn of(tenant: TenantId) -> Self {
        Self { tenants: vec![tenant], filters: MatcherSets::new() }
    }

    /// The tenants, at least one, sorted, none twice.
    pub fn tenants(&self) -> &[TenantId] {
        &self.tenants
    }

    /// The sets of matchers of which one must match a series; none at all is all series.
    pub fn filters(&self) -> &MatcherSets {
        &self.filters
    }

    /// [`Storage::select`] of what is in view.
    pub async fn select(&self, storage: &dyn Storage, request: SelectRequest) -> Result<Selected> {
        storage.select(self.tenant(), request).await
    }

    /// [`Storage::series`] of what is in view.
    pub async fn series(&self, storage: &dyn Storage, request: LabelsRequest) -> Result<Vec<Labels>> {
        storage.series(self.tenant(), request).await
    }

    /// [`Storage::label_names`] of what is in view.
    pub async fn label_names(&self, storage: &dyn Storage, request: LabelsRequest) -> Result<Vec<String>> {
        storage.label_names(self.tenant(), request).await
    }

    /// [`Storage::label_values`] of what is in view.
    pub async fn label_values(
        &self,
        storage: &dyn Storage,
        name: &str,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        storage.label_values(self.tenant(), name, request).await
    }

    /// [`Storage::metadata`] of what is in view.
    pub async fn metadata(&self, storage: &dyn Storage, metric: Option<&str>) -> Result<Vec<Metadata>> {
        storage.metadata(self.tenant(), metric).await
    }

    /// [`Storage::exemplars`] of what is in view.
    pub async fn exemplars(
        &self,
        storage: &dyn Storage,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>> {
        storage.exemplars(self.tenant(), matchers, range).await
    }

    /// [`Storage::cardinality`] of what is in view.
    pub async fn cardinality(&self, storage: &dyn Storage, limit: usize) -> Result<Cardinality> {
        storage.cardinality(self.tenant(), limit).await
    }

    /// [`Storage::delete`] of what is in view.
    pub async fn delete(&self, storage: &dyn Storage, matchers: MatcherSets, range: TimeRange) -> Result<()> {
        storage.delete(self.tenant(), matchers, range).await
    }

    fn tenant(&self) -> &TenantId {
        &self.tenants[0]
    }
}
