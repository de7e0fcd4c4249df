//! One tenant's series as far as they are shown.

use std::{collections::HashSet, sync::Arc};

use crate::{
    model::{Labels, METRIC_NAME, Matcher, Metadata, MetricType, TenantId, TimeRange},
    storage::{
        Cardinality, Estimate, IsOver, LabelsRequest, MatcherSets, Result, SelectHere, SelectRequest,
        Selected, SeriesExemplars, Sift, Storage, selection::both,
    },
};

/// What of a tenant one of the filters matches; all of it if there are none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filtered<'v> {
    pub(super) tenant: &'v TenantId,
    pub(super) filters: &'v [Vec<Matcher>],
}

impl Filtered<'_> {
    pub(super) async fn select(self, storage: &dyn Storage, request: SelectRequest) -> Result<Selected> {
        storage.select(self.tenant, self.selected(request)?).await
    }

    pub(super) fn select_here(
        self,
        here: &dyn SelectHere,
        request: SelectRequest,
        is_over: IsOver<'_>,
    ) -> Result<Selected> {
        here.select_here(self.tenant, &self.selected(request)?, is_over)
    }

    pub(super) async fn estimate(self, storage: &dyn Storage, request: SelectRequest) -> Result<Estimate> {
        storage.estimate(self.tenant, self.selected(request)?).await
    }

    fn selected(self, request: SelectRequest) -> Result<SelectRequest> {
        // Stores put them together as they like; that they may is decided here.
        both(std::slice::from_ref(&request.matchers), self.filters)?;
        Ok(SelectRequest { filters: self.filters.to_vec(), ..request })
    }

    pub(super) async fn series(self, storage: &dyn Storage, request: LabelsRequest) -> Result<Vec<Labels>> {
        storage.series(self.tenant, self.shown(request)?).await
    }

    pub(super) async fn label_names(
        self,
        storage: &dyn Storage,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        storage.label_names(self.tenant, self.shown(request)?).await
    }

    pub(super) async fn label_values(
        self,
        storage: &dyn Storage,
        name: &str,
        request: LabelsRequest,
    ) -> Result<Vec<String>> {
        storage.label_values(self.tenant, name, self.shown(request)?).await
    }

    pub(super) async fn sift_label_values(
        self,
        storage: &dyn Storage,
        name: &str,
        request: LabelsRequest,
        sift: Arc<dyn Sift>,
    ) -> Result<()> {
        storage.sift_label_values(self.tenant, name, self.shown(request)?, sift).await
    }

    /// Metadata is of a metric and not of a series: it is shown where one of the metric's series is.
    pub(super) async fn metadata(self, storage: &dyn Storage, metric: Option<&str>) -> Result<Vec<Metadata>> {
        let mut metadata = storage.metadata(self.tenant, metric).await?;
        if self.filters.is_empty() || metadata.is_empty() {
            return Ok(metadata);
        }
        let named = |name: &str| vec![Matcher::equal(METRIC_NAME, name)];
        let matchers = match metric {
            Some(_) => metadata.iter().flat_map(names).map(|name| named(&name)).collect(),
            None => MatcherSets::new(),
        };
        let request = LabelsRequest { matchers, range: TimeRange::ALL, limit: 0 };
        let shown: HashSet<String> =
            self.label_values(storage, METRIC_NAME, request).await?.into_iter().collect();
        metadata.retain(|entry| names(entry).any(|name| shown.contains(&name)));
        Ok(metadata)
    }

    pub(super) async fn exemplars(
        self,
        storage: &dyn Storage,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>> {
        storage.exemplars(self.tenant, both(&matchers, self.filters)?, range).await
    }

    pub(super) async fn cardinality(self, storage: &dyn Storage, limit: usize) -> Result<Cardinality> {
        storage.cardinality(self.tenant, self.filters.to_vec(), limit).await
    }

    pub(super) async fn delete(
        self,
        storage: &dyn Storage,
        matchers: MatcherSets,
        range: TimeRange,
    ) -> Result<()> {
        storage.delete(self.tenant, both(&matchers, self.filters)?, range).await
    }

    fn shown(self, request: LabelsRequest) -> Result<LabelsRequest> {
        Ok(LabelsRequest { matchers: both(&request.matchers, self.filters)?, ..request })
    }
}

/// The names that series of a metric family have.
fn names(metadata: &Metadata) -> impl Iterator<Item = String> {
    let endings: &[&str] = match metadata.kind {
        MetricType::Counter => &["", "_total", "_created"],
        MetricType::Histogram => &["", "_bucket", "_sum", "_count", "_created"],
        MetricType::GaugeHistogram => &["", "_bucket", "_gsum", "_gcount"],
        MetricType::Summary => &["", "_sum", "_count", "_created"],
        MetricType::Info => &["", "_info"],
        MetricType::Unknown | MetricType::Gauge | MetricType::StateSet => &[""],
    };
    let metric = metadata.metric.clone();
    endings.iter().map(move |ending| format!("{metric}{ending}"))
}
