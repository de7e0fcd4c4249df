//! Questions about what series there are, and orders that concern them; no samples are read.

use std::{future::Future, time::Duration};

use super::{
    QueryFailure, QueryService, Reader, TRUNCATED,
    selectors::{parse_selectors, require_selectors},
};
use crate::{
    model::{Labels, Limit, Metadata, TimeRange, Timestamp},
    promql::QueryError,
    storage::{Cardinality, LabelsRequest, StorageError, selection::label_bytes},
};

/// Which series are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogQuery {
    /// Selectors, of which one must match.
    pub selectors: Vec<String>,
    /// Since when; none is since ever.
    pub start: Option<Timestamp>,
    /// Until when; none is for ever.
    pub end: Option<Timestamp>,
    /// The most answers wanted; 0 is all.
    pub limit: usize,
}

/// Which metadata is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataQuery {
    /// One metric; none is all.
    pub metric: Option<String>,
    /// The most metrics wanted; none is all.
    pub limit: Option<usize>,
    /// The most entries wanted of one metric; 0 is all.
    pub limit_per_metric: usize,
}

/// A list, and what its reader should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The answers.
    pub items: Vec<T>,
    /// For a person.
    pub warnings: Vec<String>,
}

impl<T> Listed<T> {
    /// Cuts `items` to `limit` and says so if that took anything away.
    fn cut(mut items: Vec<T>, limit: usize) -> Self {
        let cut = limit != 0 && items.len() > limit;
        if cut {
            items.truncate(limit);
        }
        Self { items, warnings: if cut { vec![TRUNCATED.to_owned()] } else { Vec::new() } }
    }
}

impl CatalogQuery {
    fn range(&self) -> Result<TimeRange, QueryFailure> {
        let start = self.start.unwrap_or(Timestamp::MIN);
        let end = self.end.unwrap_or(Timestamp::MAX);
        TimeRange::new(start, end)
            .ok_or_else(|| QueryFailure::parameter("end", "end timestamp must not be before start time"))
    }

    /// One more than is wanted, so that a cut is noticed.
    fn storage_limit(&self) -> usize {
        if self.limit == 0 { 0 } else { self.limit.saturating_add(1) }
    }
}

impl QueryService {
    /// The labels of the matching series, sorted; at least one selector is needed.
    pub async fn series(&self, reader: &Reader, query: CatalogQuery) -> Result<Listed<Labels>, QueryFailure> {
        let matchers = require_selectors(&query.selectors, self.limits.max_query_bytes)?;
        let most = reader.limits.get(Limit::QuerySeries);
        // One more than may be, so that it is noticed.
        let most = most.map_or(0, |most| usize::try_from(most).unwrap_or(usize::MAX).saturating_add(1));
        let limit = match (query.storage_limit(), most) {
            (0, limit) | (limit, 0) => limit,
            (limit, most) => limit.min(most),
        };
        let request = LabelsRequest { matchers, range: query.range()?, limit };
        let series = self.within_timeout(reader, reader.view.series(&*self.storage, request)).await?;
        if query.limit == 0 || query.limit >= most {
            reader.within(Limit::QuerySeries, series.len() as u64)?;
        }
        reader.within(Limit::QueryBytes, series.iter().map(label_bytes).sum())?;
        Ok(Listed::cut(series, query.limit))
    }

    /// The label names of the matching series, sorted.
    pub async fn label_names(
        &self,
        reader: &Reader,
        query: CatalogQuery,
    ) -> Result<Listed<String>, QueryFailure> {
        let request = self.labels_request(&query)?;
        let names = self.within_timeout(reader, reader.view.label_names(&*self.storage, request)).await?;
        reader.within(Limit::QueryBytes, names.iter().map(|name| name.len() as u64).sum())?;
        Ok(Listed::cut(names, query.limit))
    }

    /// The values of label `name` on the matching series, sorted.
    pub async fn label_values(
        &self,
        reader: &Reader,
        name: &str,
        query: CatalogQuery,
    ) -> Result<Listed<String>, QueryFailure> {
        let request = self.labels_request(&query)?;
        let values =
            self.within_timeout(reader, reader.view.label_values(&*self.storage, name, request)).await?;
        reader.within(Limit::QueryBytes, values.iter().map(|value| value.len() as u64).sum())?;
        Ok(Listed::cut(values, query.limit))
    }

    /// What is known of metrics, sorted by metric.
    pub async fn metadata(
        &self,
        reader: &Reader,
        query: MetadataQuery,
    ) -> Result<Vec<Metadata>, QueryFailure> {
        let all = self
            .within_timeout(reader, reader.view.metadata(&*self.storage, query.metric.as_deref()))
            .await?;
        let (mut metrics, mut of_this_metric) = (0, 0);
        let mut kept: Vec<Metadata> = Vec::new();
        for entry in all {
            if kept.last().is_some_and(|last| last.metric == entry.metric) {
                of_this_metric += 1;
            } else {
                if query.limit.is_some_and(|limit| metrics >= limit) {
                    break;
                }
                (metrics, of_this_metric) = (metrics + 1, 1);
            }
            if query.limit_per_metric == 0 || of_this_metric <= query.limit_per_metric {
                kept.push(entry);
            }
        }
        Ok(kept)
    }

    /// Where the tenant's series come from, at most `limit` lines of each kind.
    pub async fn cardinality(&self, reader: &Reader, limit: usize) -> Result<Cardinality, QueryFailure> {
        self.within_timeout(reader, reader.view.cardinality(&*self.storage, limit)).await
    }

    /// Hides the matching series' samples; at least one selector is needed, and `limit` plays no part.
    pub async fn delete_series(&self, reader: &Reader, query: CatalogQuery) -> Result<(), QueryFailure> {
        let matchers = require_selectors(&query.selectors, self.limits.max_query_bytes)?;
        Ok(reader.view.delete(&*self.storage, matchers, query.range()?).await?)
    }

    fn labels_request(&self, query: &CatalogQuery) -> Result<LabelsRequest, QueryFailure> {
        let matchers = parse_selectors(&query.selectors, self.limits.max_query_bytes)?;
        Ok(LabelsRequest { matchers, range: query.range()?, limit: query.storage_limit() })
    }

    /// How long a query may take.
    pub(super) fn timeout(&self, reader: &Reader) -> Duration {
        let own = reader.limits.duration(Limit::QueryTimeout).unwrap_or(self.limits.timeout);
        own.min(self.limits.timeout)
    }

    pub(super) async fn within_timeout<T>(
        &self,
        reader: &Reader,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, QueryFailure> {
        match tokio::time::timeout(self.timeout(reader), call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(QueryFailure::Query(QueryError::Timeout("series selection"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_to_its_limit_and_says_so() {
        assert_eq!(Listed::cut(vec![1, 2], 0), Listed { items: vec![1, 2], warnings: vec![] });
        assert_eq!(Listed::cut(vec![1, 2], 2), Listed { items: vec![1, 2], warnings: vec![] });
        assert_eq!(
            Listed::cut(vec![1, 2], 1),
            Listed { items: vec![1], warnings: vec![TRUNCATED.to_owned()] }
        );
    }

    #[test]
    fn a_range_that_ends_before_it_starts_names_the_end() {
        let query =
            CatalogQuery { start: Some(Timestamp(2)), end: Some(Timestamp(1)), ..CatalogQuery::default() };
        assert_eq!(
            query.range().unwrap_err().to_string(),
            r#"invalid parameter "end": end timestamp must not be before start time"#
        );
    }
}
