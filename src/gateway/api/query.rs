//! `/api/v1/query`, `/api/v1/query_range`, and what else takes a query.

use std::sync::Arc;

use axum::{extract::State, response::Response};

use super::{Shared, asker::Asker, respond};
use crate::{
    gateway::{
        error::ApiError,
        form::Form,
        wire::{
            json::{self, StatsDetail},
            tree,
        },
    },
    model::{TimeRange, Timestamp},
    promql::{QueryError, Value},
    query::{Answered, InstantQuery, QueryControls, QueryFailure, RangeQuery, Reader},
};

/// From this many points on, an answer is written off the I/O threads.
const LARGE: usize = 20_000;

/// Evaluates at one instant.
pub async fn instant(
    State(state): Shared,
    reader: Reader,
    asker: Asker,
    form: Form,
) -> Result<Response, ApiError> {
    let (at, controls, stats) = (form.time("time")?, controls(&form, asker)?, Stats::asked(&form));
    let query = InstantQuery { text: text(&form), at, controls };
    let answer = state.query.instant(&reader, query).await?;
    write(answer, stats).await
}

/// Evaluates over a range.
pub async fn range(
    State(state): Shared,
    reader: Reader,
    asker: Asker,
    form: Form,
) -> Result<Response, ApiError> {
    let (start, end) = (form.required_time("start")?, form.required_time("end")?);
    let step = form.required_duration("step")?;
    let (controls, stats) = (controls(&form, asker)?, Stats::asked(&form));
    let query = RangeQuery { text: text(&form), start, end, step, controls };
    let answer = state.query.range(&reader, query).await?;
    write(answer, stats).await
}

/// The exemplars of the series that a query looks at.
pub async fn exemplars(
    State(state): Shared,
    reader: Reader,
    asker: Asker,
    form: Form,
) -> Result<Response, ApiError> {
    let start = form.time("start")?.unwrap_or(Timestamp::MIN);
    let end = form.time("end")?.unwrap_or(Timestamp::MAX);
    let range = TimeRange::new(start, end)
        .ok_or_else(|| ApiError::bad_data("end timestamp must not be before start timestamp"))?;
    let exemplars = state.query.exemplars(&reader, &text(&form), range, asker.features).await?;
    Ok(respond(json::exemplars(&exemplars)))
}

/// A query at its most readable.
pub async fn format(State(state): Shared, asker: Asker, form: Form) -> Result<Response, ApiError> {
    let formatted = state.query.format(&text(&form), asker.features)?;
    Ok(respond(json::document(&serde_json::Value::String(formatted))))
}

/// A query as a tree.
pub async fn parse(State(state): Shared, asker: Asker, form: Form) -> Result<Response, ApiError> {
    let parsed = state.query.tree(&text(&form), asker.features)?;
    Ok(respond(json::document(&tree::tree(&parsed))))
}

fn text(form: &Form) -> String {
    form.get("query").unwrap_or_default().to_owned()
}

fn controls(form: &Form, asker: Asker) -> Result<QueryControls, ApiError> {
    let lookback = form.get("lookback_delta").map(crate::gateway::form::parse_duration).transpose();
    let lookback = lookback
        .map_err(|why| ApiError::bad_data(format!("error parsing lookback delta duration: {why}")))?
        // Nothing or less is the default.
        .filter(|lookback| lookback.millis() > 0);
    Ok(QueryControls {
        timeout: form.timeout()?,
        limit: form.limit()?,
        lookback,
        per_step_stats: Stats::asked(form).detail == StatsDetail::PerStep,
        no_cache: asker.no_cache || form.get("nocache").is_some_and(|value| value != "0"),
        features: asker.features,
        origin: asker.origin,
    })
}

/// The statistics a request asks for.
#[derive(Debug)]
struct Stats {
    detail: StatsDetail,
    /// What is wrong with how it asks.
    warning: Option<String>,
}

impl Stats {
    /// Reads `stats`: any value asks for totals, but only two of them will do so for ever.
    fn asked(form: &Form) -> Self {
        match form.get("stats") {
            None => Self { detail: StatsDetail::None, warning: None },
            Some("true") => Self { detail: StatsDetail::Totals, warning: None },
            Some("all") => Self { detail: StatsDetail::PerStep, warning: None },
            Some(other) => Self {
                detail: StatsDetail::Totals,
                warning: Some(format!(
                    "value {other:?} for parameter \"stats\" is deprecated and will be rejected in the next \
                     major release, use \"true\" or \"all\""
                )),
            },
        }
    }
}

async fn write(answered: Answered, stats: Stats) -> Result<Response, ApiError> {
    let Answered { mut answer, running } = answered;
    answer.warnings.extend(stats.warning);
    if points(&answer.value) < LARGE {
        return Ok(respond(json::answer(&answer, stats.detail)));
    }
    // When this is dropped, so is the query, and writing ends.
    let ticket = Arc::clone(running.ticket());
    let write = move |is_over: &dyn Fn() -> bool| json::answer_unless(&answer, stats.detail, is_over);
    let written = ticket.in_turn(write).await;
    match written.map_err(|error| ApiError::internal(format!("writing the answer: {error}")))? {
        Some(written) => Ok(respond(written)),
        None => Err(QueryFailure::from(QueryError::Canceled("result writing")).into()),
    }
}

fn points(value: &Value) -> usize {
    match value {
        Value::Scalar { .. } | Value::String { .. } => 1,
        Value::Vector(elements) => elements.len(),
        Value::Matrix(series) => series.iter().map(|s| 1 + s.floats.len() + s.histograms.len()).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_can_be_done_without() {
        let no_cache = |url: &str, head: bool| {
            let asker = Asker { no_cache: head, ..Asker::default() };
            controls(&Form::parse(url, b"").unwrap(), asker).unwrap().no_cache
        };
        assert!(no_cache("nocache=1", false) && no_cache("nocache=true", false) && no_cache("", true));
        assert!(!no_cache("", false) && !no_cache("nocache=", false) && !no_cache("nocache=0", false));
    }
}
