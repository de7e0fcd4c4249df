//! What a reader may see of a store.
//!
//! Every read of samples, series, labels, metadata and exemplars for a caller goes through a [`View`], so that what a
//! caller may see is decided in one place, for every endpoint and both backends.
//!
//! ```text
//! request ─▶ for each tenant ─▶ with each filter ─▶ store
//!            federation          filtered
//! ```
//!
//! * [`filtered`]: a tenant's series as far as one of the filters matches them. Filters are matchers, and go to
//!   the store with those of the request, so that nothing is read that is not shown.
//! * [`federation`]: several tenants as one, told apart by a label.
//!
//! A request may have its view [narrowed](View::narrowed), and never widened.

mod federation;
mod filtered;
mod runs;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::{
    Cardinality, Changes, Estimate, IsOver, LabelsRequest, MatcherSets, Result, SelectRequest, Selected,
    SeriesExemplars, Sift, Storage, StorageError, selection::both,
};
use crate::model::{Labels, METRIC_NAME, MatchOp, Matcher, Metadata, TenantId, TimeRange};

use federation::Federation;
use filtered::Filtered;

pub use federation::TENANT_LABEL;

/// What a reader may see.
///
/// Invariant: there is a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Sorted, none twice.
    tenants: Vec<TenantId>,
    /// What the caller was granted, before anything was narrowed.
    granted: MatcherSets,
    /// Of each tenant, in their order: one of the sets must match a series; none at all is all series. Sorted, none
    /// twice.
    filters: Vec<MatcherSets>,
}

impl View {
    /// All of one tenant.
    pub fn of(tenant: TenantId) -> Self {
        Self { tenants: vec![tenant], granted: MatcherSets::new(), filters: vec![MatcherSets::new()] }
    }

    /// What of the tenants one of the filters matches, or all if there are none; no view if there is no tenant.
    ///
    /// Filters are asked of a series' labels as they are stored, however many tenants there are.
    pub fn new(mut tenants: Vec<TenantId>, filters: MatcherSets) -> Option<Self> {
        tenants.sort_unstable();
        tenants.dedup();
        let granted = in_order(filters);
        let filters = vec![granted.clone(); tenants.len()];
        (!tenants.is_empty()).then_some(Self { tenants, granted, filters })
    }

    /// What of this one of the sets matches, too; all of it if there are none. Nothing comes into view that was not.
    ///
    /// Matchers are asked of a series' labels as they are shown, as those of a query.
    pub fn narrowed(&self, sets: &[Vec<Matcher>]) -> Result<Self> {
        if sets.is_empty() {
            return Ok(self.clone());
        }
        let narrowed = |tenant: &TenantId, filters: &MatcherSets| -> Result<MatcherSets> {
            let asked: MatcherSets = match &self.tenants[..] {
                [_] => sets.to_vec(),
                _ => sets.iter().filter_map(|set| federation::for_tenant(set, tenant)).collect(),
            };
            // No set at all would let everything pass.
            if asked.is_empty() {
                return Ok(vec![vec![nothing()]]);
            }
            Ok(in_order(both(&asked, filters)?))
        };
        let tenants = self.tenants.iter().zip(&self.filters);
        let filters = tenants.map(|(tenant, filters)| narrowed(tenant, filters)).collect::<Result<_>>()?;
        Ok(Self { tenants: self.tenants.clone(), granted: self.granted.clone(), filters })
    }

    /// The tenants, at least one, sorted, none twice.
    pub fn tenants(&self) -> &[TenantId] {
        &self.tenants
    }

    /// The sets of matchers of which one must match a series, as the caller was granted them, whatever was narrowed
    /// since; none at all is all series.
    pub fn granted(&self) -> &MatcherSets {
        &self.granted
    }

    /// The view that the caller was granted.
    #[must_use]
    pub fn as_granted(&self) -> Self {
        let filters = vec![self.granted.clone(); self.tenants.len()];
        Self { tenants: self.tenants.clone(), granted: self.granted.clone(), filters }
    }

    /// Whether all of the tenants' series are in view.
    pub fn is_whole(&self) -> bool {
        self.filters.iter().all(Vec::is_empty)
    }

    /// A number that two views have in common only if they show the same, for the keys of caches. It is the same
    /// in every process.
    pub fn digest(&self) -> u128 {
        // Every list and every text comes after its length, so that no two views are written alike.
        let mut hash = Xxh3::new();
        let length = |hash: &mut Xxh3, length: usize| hash.update(&(length as u64).to_le_bytes());
        let text = |hash: &mut Xxh3, text: &str| {
            length(hash, text.len());
            hash.update(text.as_bytes());
        };
        length(&mut hash, self.tenants.len());
        self.tenants.iter().for_each(|tenant| text(&mut hash, tenant.as_str()));
        for filters in &self.filters {
            length(&mut hash, filters.len());
            for set in filters {
                length(&mut hash, set.len());
                for (name, op, value) in set.iter().map(sort_key) {
                    [name, op, value].into_iter().for_each(|part| text(&mut hash, part));
                }
            }
        }
        hash.digest128()
    }

    /// [`Storage::select`] of what is in view.
    pub async fn select(&self, storage: &dyn Storage, request: SelectRequest) -> Result<Selected> {
        match self.one() {
            Some(tenant) => tenant.select(storage, request).await,
            None => self.all().select(storage, request).await,
        }
    }

    /// Whether what is in view can be selected on the thread that asks.
    pub fn is_here(&self, storage: &dyn Storage) -> bool {
        self.one().is_some() && storage.here().is_some()
    }

    /// [`SelectHere::select_here`](super::SelectHere::select_here) of what is in view; none if it has to be waited for.
    pub fn select_here(
        &self,
        storage: &dyn Storage,
        request: SelectRequest,
        is_over: IsOver<'_>,
    ) -> Option<Result<Selected>> {
        Some(self.one()?.select_here(storage.here()?, request, is_over))
    }

    /// [`Storage::series`] of what is in view.
    pub async fn series(&self, storage: &dyn Storage, request: LabelsRequest) -> Result<Vec<Labels>> {
        match self.one() {
            Some(tenant) => tenant.series(storage, request).await,
            None => self.all().series(storage, request).await,
        }
    }

    /// [`Storage::label_names`] of what is in view.
    pub async fn label_names(&self, storage: &dyn Storage, request: LabelsRequest) -> Result<Vec<String>> {
        match self.one() {
            Some(tenant) => tenant.label_names(storage, request).await,
            None => self.all().label_names(storage, request).await,
        }
    }

    /// [`Storage::label_values`] of what is in view.
    pub async fn label_values(
        &self,
        storage: &dyn Storage,
        name: &str,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        match self.one() {
            Some(tenant) => tenant.label_values(storage, name, request).await,
            None => self.all().label_values(storage, name, request).await,
        }
    }

    /// [`Storage::sift_label_values`] of what is in view.
    pub async fn sift_label_values(
        &self,
        storage: &dyn Storage,
        name: &str,
        request: LabelsRequest,
        sift: Arc<dyn Sift>,
    ) -> Result<()> {
        match self.one() {
            Some(tenant) => tenant.sift_label_values(storage, name, request, sift).await,
            None => self.all().sift_label_values(storage, name, request, sift).await,
        }
    }

    /// [`Storage::estimate`] of what is in view.
    pub async fn estimate(&self, storage: &dyn Storage, request: SelectRequest) -> Result<Estimate> {
        match self.one() {
            Some(tenant) => tenant.estimate(storage, request).await,
            None => self.all().estimate(storage, request).await,
        }
    }

    /// [`Storage::metadata`] of what is in view: of the metrics that have a visible series.
    pub async fn metadata(&self, storage: &dyn Storage, metric: Option<&str>) -> Result<Vec<Metadata>> {
        match self.one() {
            Some(tenant) => tenant.metadata(storage, metric).await,
            None => self.all().metadata(storage, metric).await,
        }
    }

    /// [`Storage::exemplars`] of what is in view.
    pub async fn exemplars(
        &self,
        storage: &dyn Storage,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>> {
        match self.one() {
            Some(tenant) => tenant.exemplars(storage, matchers, range).await,
            None => self.all().exemplars(storage, matchers, range).await,
        }
    }

    /// [`Storage::changes`] of the tenants in view, seen or not; none if there is one of whom it cannot be told.
    pub async fn changes(&self, storage: &dyn Storage, range: TimeRange) -> Result<Option<Changes>> {
        let mut all: Option<Changes> = None;
        for tenant in &self.tenants {
            let Some(changes) = storage.changes(tenant, range).await? else { return Ok(None) };
            let Some(all) = &mut all else {
                all = Some(changes);
                continue;
            };
            if all.epoch != changes.epoch {
                return Ok(None);
            }
            // What comes between two questions is later than both.
            all.now = all.now.min(changes.now);
            all.shared &= changes.shared;
            all.changed.extend(changes.changed);
            all.moving.extend(changes.moving);
        }
        Ok(all)
    }

    /// [`Storage::cardinality`] of what is in view.
    pub async fn cardinality(&self, storage: &dyn Storage, limit: usize) -> Result<Cardinality> {
        match self.one() {
            Some(tenant) => tenant.cardinality(storage, limit).await,
            None => self.all().cardinality(storage, limit).await,
        }
    }

    /// [`Storage::delete`] of what is in view, which must be of one tenant.
    pub async fn delete(&self, storage: &dyn Storage, matchers: MatcherSets, range: TimeRange) -> Result<()> {
        match self.one() {
            Some(tenant) => tenant.delete(storage, matchers, range).await,
            None => Err(StorageError::Unsupported(
                "samples of several tenants cannot be deleted at once".to_owned(),
            )),
        }
    }

    fn one(&self) -> Option<Filtered<'_>> {
        match (&self.tenants[..], &self.filters[..]) {
            ([tenant], [filters]) => Some(Filtered { tenant, filters }),
            _ => None,
        }
    }

    fn all(&self) -> Federation<'_> {
        Federation { tenants: &self.tenants, filters: &self.filters }
    }
}

/// The same sets however they were said.
fn in_order(mut sets: MatcherSets) -> MatcherSets {
    for set in &mut sets {
        set.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
        set.dedup();
    }
    sets.sort_by(|a, b| a.iter().map(sort_key).cmp(b.iter().map(sort_key)));
    sets.dedup();
    sets
}

/// What no series passes.
fn nothing() -> Matcher {
    Matcher::new(MatchOp::NotMatches, METRIC_NAME, ".*").expect("the pattern is a valid one")
}

fn sort_key(matcher: &Matcher) -> (&str, &'static str, &str) {
    let op = match matcher.op() {
        MatchOp::Equal => "=",
        MatchOp::NotEqual => "!=",
        MatchOp::Matches => "=~",
        MatchOp::NotMatches => "!~",
    };
    (matcher.name(), op, matcher.value())
}
