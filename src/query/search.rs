//! Searching names: metrics, labels and values of labels, by texts that are like them.
//!
//! ```text
//! store ─▶ each name once or more ─▶ score ─▶ the best so many, in order ─▶ has_more, metadata
//!          (never all of them held)   [`score`]   [`best`]
//! ```
//!
//! A store shows its values one by one, so that a label with millions of them costs time and no memory. Where nothing is
//! looked for, and the first in the alphabet are wanted, it is asked for no more than those.

pub mod best;
pub mod score;

use std::{collections::BTreeMap, sync::Arc};

use super::{QueryFailure, QueryService, Reader, selectors::parse_selectors};
use crate::{
    model::{Limit, METRIC_NAME, Metadata, Millis, TimeRange, Timestamp},
    storage::{LabelsRequest, Sift},
};

pub use best::{Best, Order};
pub use score::{Algorithm, Terms};

/// How far back is looked if nothing is said.
const BACK: Millis = Millis::HOUR;

/// What is searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Searched {
    /// Names of metrics.
    Metrics,
    /// Names of labels.
    Labels,
    /// Values of this label.
    Values(String),
}

/// A search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchQuery {
    /// What is searched.
    pub what: Searched,
    /// Selectors, of which one must match a series that has the name.
    pub selectors: Vec<String>,
    /// What names are to be like.
    pub terms: Terms,
    /// In which order.
    pub order: Order,
    /// Since when; none is since an hour ago.
    pub start: Option<Timestamp>,
    /// Until when; none is until now.
    pub end: Option<Timestamp>,
    /// The most names wanted, above 0.
    pub limit: usize,
    /// Whether metrics are to be described.
    pub metadata: bool,
}

/// What a search has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hits {
    /// Names, in the order that was asked for.
    pub hits: Vec<Hit>,
    /// Whether there are more than were wanted.
    pub has_more: bool,
}

/// A name.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The name.
    pub name: String,
    /// How like it is to what was looked for, up to 1.
    pub score: f64,
    /// What is known of the metric.
    pub metadata: Option<Metadata>,
}

impl QueryService {
    /// Names that are like what is looked for.
    pub async fn search(&self, reader: &Reader, query: SearchQuery) -> Result<Hits, QueryFailure> {
        let now = self.clock.now();
        let range = TimeRange::new(query.start.unwrap_or_else(|| now.minus(BACK)), query.end.unwrap_or(now));
        let range = range.ok_or_else(|| {
            QueryFailure::Request("end timestamp must not be before start timestamp".to_owned())
        })?;
        let matchers = parse_selectors(&query.selectors, self.limits.max_query_bytes)?;
        // One more than is wanted tells whether there are more.
        let most = query.limit.saturating_add(1);
        let best = Arc::new(Best::new(query.terms, query.order, most));
        // A store that is still showing names when nobody waits any more, stops.
        let _stop = StopOnDrop(&best);
        let request = LabelsRequest { matchers, range, limit: 0 };
        let (view, storage) = (&reader.view, &*self.storage);
        let search = async {
            let label = match &query.what {
                Searched::Metrics => METRIC_NAME,
                Searched::Values(label) => label,
                Searched::Labels => {
                    // These are few: names of labels are written by people.
                    best.see_all(&view.label_names(storage, request).await?);
                    return Ok(());
                }
            };
            if query.order == Order::Ascending && best.takes_all() {
                let request = LabelsRequest { limit: most, ..request };
                best.see_all(&view.label_values(storage, label, request).await?);
                return Ok(());
            }
            let sift = Arc::clone(&best) as Arc<dyn Sift>;
            view.sift_label_values(storage, label, request, sift).await
        };
        self.within_timeout(reader, search).await?;
        let mut hits = best.take();
        let has_more = hits.len() > query.limit;
        hits.truncate(query.limit);
        reader.within(Limit::QueryBytes, hits.iter().map(|hit| hit.name.len() as u64).sum())?;
        if query.metadata && query.what == Searched::Metrics && !hits.is_empty() {
            self.describe(reader, &mut hits).await?;
        }
        Ok(Hits { hits, has_more })
    }

    /// Says what is known of metrics.
    async fn describe(&self, reader: &Reader, hits: &mut [Hit]) -> Result<(), QueryFailure> {
        let all = self.within_timeout(reader, reader.view.metadata(&*self.storage, None)).await?;
        let mut of_metrics: BTreeMap<String, Metadata> = BTreeMap::new();
        for metadata in all {
            // Several may be said of one; the first in order is taken.
            of_metrics.entry(metadata.metric.clone()).or_insert(metadata);
        }
        for hit in hits {
            hit.metadata = of_metrics.remove(&hit.name);
        }
        Ok(())
    }
}

/// Tells that nobody waits any more.
struct StopOnDrop<'a>(&'a Best);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
