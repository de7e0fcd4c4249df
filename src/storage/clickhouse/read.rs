//! From a request to rows, and from rows to an answer.

use std::sync::Arc;

use super::{client::Servers, config::ClickHouseConfig, deletes::Deletes};
use crate::{
    clock::Clock,
    model::{Labels, Metadata, TenantId, TimeRange},
    storage::{
        Cardinality, LabelsRequest, MatcherSets, Result, SelectRequest, Selected, SeriesExemplars,
        StorageError,
    },
};

/// The way out.
#[derive(Debug)]
pub(super) struct Reads {
    servers: Arc<Servers>,
    config: Arc<ClickHouseConfig>,
    clock: Arc<dyn Clock>,
    deletes: Arc<Deletes>,
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(StorageError::Unsupported(what.to_owned()))
}

impl Reads {
    pub(super) fn new(
        servers: Arc<Servers>,
        config: Arc<ClickHouseConfig>,
        clock: Arc<dyn Clock>,
        deletes: Arc<Deletes>,
    ) -> Self {
        Self { servers, config, clock, deletes }
    }

    pub(super) async fn select(&self, _tenant: &TenantId, _request: SelectRequest) -> Result<Selected> {
        unsupported("select")
    }

    pub(super) async fn series(&self, _tenant: &TenantId, _request: LabelsRequest) -> Result<Vec<Labels>> {
        unsupported("series")
    }

    pub(super) async fn label_names(
        &self,
        _tenant: &TenantId,
        _request: LabelsRequest,
    ) -> Result<Vec<String>> {
        unsupported("label_names")
    }

    pub(super) async fn label_values(
        &self,
        _tenant: &TenantId,
        _name: &str,
        _request: LabelsRequest,
    ) -> Result<Vec<String>> {
        unsupported("label_values")
    }

    pub(super) async fn metadata(&self, _tenant: &TenantId, _metric: Option<&str>) -> Result<Vec<Metadata>> {
        unsupported("metadata")
    }

    pub(super) async fn exemplars(
        &self,
        _tenant: &TenantId,
        _matchers: MatcherSets,
        _range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>> {
        unsupported("exemplars")
    }

    pub(super) async fn cardinality(&self, _tenant: &TenantId, _limit: usize) -> Result<Cardinality> {
        unsupported("cardinality")
    }
}
