//! What a query would cost, before it runs.

use super::{QueryFailure, QueryService, Reader, evaluate::check_reach};
use crate::{
    model::{FeatureSwitches, Limit, Millis, OverLimit, TimeRange, Timestamp},
    promql::{QueryOptions, When},
    query::RangeQuery,
    storage::{Estimate, Grid, SelectRequest, StorageError},
};

/// A query whose cost is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EstimateQuery {
    /// The PromQL.
    pub text: String,
    /// When it would be evaluated.
    pub times: EstimateTimes,
    /// How far back a sample counts.
    pub lookback: Option<Millis>,
    /// Features that this request switches.
    pub features: FeatureSwitches,
}

/// When a query would be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EstimateTimes {
    /// At one instant; none is now.
    Instant(Option<Timestamp>),
    /// Over a range.
    Range {
        /// The first step.
        start: Timestamp,
        /// What no step lies after.
        end: Timestamp,
        /// The distance between steps.
        step: Millis,
    },
}

/// What a query would cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryEstimate {
    /// Of all selectors together.
    pub total: Estimate,
    /// Steps.
    pub points: u64,
    /// Of each selector; what several of them read alike is read, and is here, once.
    pub selectors: Vec<SelectorEstimate>,
    /// The limits that it may meet. Samples and bytes are what it holds if it holds all that it reads at once.
    pub over: Vec<OverLimit>,
}

/// What a selector would cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorEstimate {
    /// Its matchers, as a selector.
    pub matchers: String,
    /// The times of what it reads.
    pub range: TimeRange,
    /// What it reads.
    pub estimate: Estimate,
}

impl QueryService {
    /// What a query would read and which limits it would meet; no sample is read for it.
    pub async fn estimate(
        &self,
        reader: &Reader,
        query: EstimateQuery,
    ) -> Result<QueryEstimate, QueryFailure> {
        let (when, points) = self.when(query.times)?;
        self.check_text(&query.text)?;
        let max_range = reader.limits.get(Limit::QueryRange);
        let options = QueryOptions {
            lookback: query.lookback,
            features: Some(self.features(Some(reader), query.features)),
            max_range: max_range.map(|ms| Millis(i64::try_from(ms).unwrap_or(i64::MAX))),
            ..QueryOptions::default()
        };
        let reads = self.engine.reads(&query.text, when, &options)?;
        let selectors = self.within_timeout(reader, self.selectors(reader, &reads.requests)).await?;
        let mut total = Estimate::default();
        selectors.iter().for_each(|selector| total.add(&selector.estimate));
        let costs = [
            (Limit::QueryPoints, points),
            (Limit::QuerySeries, total.series),
            (Limit::QuerySamples, total.samples()),
            (Limit::QueryBytes, total.bytes()),
        ];
        let over = costs.into_iter().filter_map(|(limit, asked)| {
            let own = reader.limits.get(limit);
            let allowed = match limit {
                // The server's holds for everybody.
                Limit::QuerySamples => Some(own.map_or(reads.max_samples, |own| own.min(reads.max_samples))),
                _ => own,
            };
            let allowed = allowed.filter(|allowed| asked > *allowed)?;
            Some(OverLimit { limit, allowed, asked, retry_after: None, for_good: true })
        });
        Ok(QueryEstimate { total, points, over: over.chain(reads.too_far).collect(), selectors })
    }

    async fn selectors(
        &self,
        reader: &Reader,
        requests: &[SelectRequest],
    ) -> Result<Vec<SelectorEstimate>, StorageError> {
        let mut selectors = Vec::with_capacity(requests.len());
        // One after another: none of them is in a hurry.
        for request in requests {
            let matchers: Vec<String> = request.matchers.iter().map(ToString::to_string).collect();
            selectors.push(SelectorEstimate {
                matchers: format!("{{{}}}", matchers.join(",")),
                range: request.range,
                estimate: reader.view.estimate(&*self.storage, request.clone()).await?,
            });
        }
        Ok(selectors)
    }

    /// When, if that can be, and at how many steps.
    fn when(&self, times: EstimateTimes) -> Result<(When, u64), QueryFailure> {
        match times {
            EstimateTimes::Instant(at) => {
                let at = at.unwrap_or_else(|| self.clock.now());
                check_reach("time", at)?;
                Ok((When::At(at), 1))
            }
            EstimateTimes::Range { start, end, step } => {
                RangeQuery::check_grid(start, end, step, self.limits.max_steps)?;
                check_reach("start", start)?;
                check_reach("end", end)?;
                let grid = Grid { start, end, step };
                Ok((When::Over(grid), grid.count() as u64))
            }
        }
    }
}
