//! The newest sample of each series, for those who federate.

use std::sync::Arc;

use super::{QueryFailure, QueryService, Reader, selectors::require_selectors};
use crate::{
    model::{Histogram, Labels, Limit, Matcher, TimeRange, is_stale},
    promql::QueryError,
    storage::{ReadSeries, Runs, SelectRequest, Selected, SeriesSamples, StorageError},
};

/// A series and its newest sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Newest {
    /// The series.
    pub labels: Labels,
    /// When the sample is, in milliseconds.
    pub timestamp: i64,
    /// The sample.
    pub value: NewestValue,
}

/// A sample as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum NewestValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

impl QueryService {
    /// The newest samples, not older than the lookback, of the series that match; sorted by metric, then by labels.
    ///
    /// Series that are gone have none.
    pub async fn federate(&self, reader: &Reader, selectors: &[String]) -> Result<Vec<Newest>, QueryFailure> {
        let sets = require_selectors(selectors, self.limits.max_query_bytes)?;
        let most = self.timeout(reader);
        let federate = async {
            let _place = self.admission.enter(&reader.view.tenants()[0]).await?;
            self.newest_of_sets(reader, &sets).await
        };
        tokio::time::timeout(most, federate)
            .await
            .unwrap_or_else(|_| Err(QueryError::Timeout("federation").into()))
    }

    async fn newest_of_sets(
        &self,
        reader: &Reader,
        sets: &[Vec<Matcher>],
    ) -> Result<Vec<Newest>, QueryFailure> {
        let now = self.clock.now();
        let lookback = self.limits.lookback;
        let range = TimeRange::new(now.minus(lookback), now)
            .ok_or_else(|| QueryFailure::Request("the lookback is less than nothing".to_owned()))?;
        let (mut newest, mut selected_series) = (Vec::new(), 0);
        for (place, set) in sets.iter().enumerate() {
            let request = reader.bounded(SelectRequest {
                lookback,
                start_timestamps: false,
                ..SelectRequest::new(set.clone(), range)
            });
            let selected = reader.view.select(&*self.storage, request).await;
            let Selected { series, runs, warnings, taken: _ } =
                selected.map_err(|failure| reader.named(failure.into()))?;
            for warning in warnings {
                tracing::warn!(event = "federation_incomplete", warning);
            }
            selected_series += series.len() as u64;
            reader.within(Limit::QuerySeries, selected_series)?;
            // What an earlier selector selects is there already.
            let wanted = |labels: &Labels| !sets[..place].iter().any(|set| matches(set, labels));
            let wanted: Vec<bool> = series.iter().map(wanted).collect();
            match runs {
                // No operation was offered.
                Runs::Rows(_) => {}
                Runs::SeriesMajor(reader) => newest.extend(read_newest(series, wanted, reader).await?),
                Runs::TimeMajor(mut runs) => {
                    let mut last: Vec<Option<(i64, NewestValue)>> = vec![None; series.len()];
                    while let Some(batch) = runs.recv().await {
                        for run in batch? {
                            let at = usize::try_from(run.ordinal).unwrap_or(usize::MAX);
                            if let (Some(last), Some(found)) = (last.get_mut(at), newest_of(&run.samples))
                                && last.as_ref().is_none_or(|(before, _)| *before < found.0)
                            {
                                *last = Some(found);
                            }
                        }
                    }
                    let of_series = series.into_iter().zip(last).zip(wanted);
                    newest.extend(of_series.filter(|(_, wanted)| *wanted).filter_map(
                        |((labels, last), _)| {
                            last.map(|(timestamp, value)| Newest { labels, timestamp, value })
                        },
                    ));
                }
            }
        }
        reader.within(Limit::QuerySamples, newest.len() as u64)?;
        newest.retain(|newest| !newest.value.is_stale());
        newest.sort_by(|a, b| {
            let names = a.labels.metric_name().cmp(&b.labels.metric_name());
            names.then_with(|| a.labels.cmp(&b.labels))
        });
        Ok(newest)
    }
}

impl NewestValue {
    fn is_stale(&self) -> bool {
        match self {
            Self::Float(value) => is_stale(*value),
            Self::Histogram(histogram) => histogram.is_stale(),
        }
    }
}

fn matches(set: &[Matcher], labels: &Labels) -> bool {
    set.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
}

/// Reads series after series, off the I/O threads.
async fn read_newest(
    series: Vec<Labels>,
    wanted: Vec<bool>,
    reader: Arc<dyn ReadSeries>,
) -> Result<Vec<Newest>, StorageError> {
    let work = move || {
        let (mut newest, mut samples) = (Vec::new(), SeriesSamples::default());
        for (ordinal, (labels, _)) in
            series.into_iter().zip(wanted).enumerate().filter(|(_, (_, wanted))| *wanted)
        {
            samples.clear();
            reader.read(ordinal, &mut samples)?;
            newest.extend(newest_of(&samples).map(|(timestamp, value)| Newest { labels, timestamp, value }));
        }
        Ok(newest)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| StorageError::Unavailable {
        detail: format!("reading was interrupted: {error}"),
        retry_after: None,
    })?
}

fn newest_of(samples: &SeriesSamples) -> Option<(i64, NewestValue)> {
    let float = samples.timestamps.last().copied().zip(samples.values.last().copied());
    let histogram = samples.histograms.last();
    match (float, histogram) {
        (Some((at, _)), Some(histogram)) if at < histogram.timestamp => {
            Some((histogram.timestamp, NewestValue::Histogram(Arc::clone(&histogram.histogram))))
        }
        (Some((at, value)), _) => Some((at, NewestValue::Float(value))),
        (None, Some(histogram)) => {
            Some((histogram.timestamp, NewestValue::Histogram(Arc::clone(&histogram.histogram))))
        }
        (None, None) => None,
    }
}
