//! `/api/v1/query`, `/api/v1/query_range`, and what else takes a query.

use axum::{extract::State, response::Response};

use super::{Shared, respond};
use crate::{
    gateway::{
        error::ApiError,
        form::Form,
        tenant::Tenant,
        wire::json::{self, StatsDetail},
    },
    model::TimeRange,
    promql::{Answer, Value},
    query::{InstantQuery, QueryControls, RangeQuery},
};

/// From this many points on, an answer is written off the I/O threads.
const LARGE: usize = 20_000;

/// Evaluates at one instant.
pub async fn instant(State(state): Shared, tenant: Tenant, form: Form) -> Result<Response, ApiError> {
    let (controls, stats) = controls(&form)?;
    let query = InstantQuery { text: text(&form), at: form.time("time")?, controls };
    let answer = state.query.instant(tenant.id(), query).await?;
    write(answer, stats).await
}

/// Evaluates over a range.
pub async fn range(State(state): Shared, tenant: Tenant, form: Form) -> Result<Response, ApiError> {
    let query_range = (form.required_time("start")?, form.required_time("end")?);
    let step = form.required_duration("step")?;
    let (controls, stats) = controls(&form)?;
    let (start, end) = query_range;
    let query = RangeQuery { text: text(&form), start, end, step, controls };
    let answer = state.query.range(tenant.id(), query).await?;
    write(answer, stats).await
}

/// The exemplars of the series that a query looks at.
pub async fn exemplars(State(state): Shared, tenant: Tenant, form: Form) -> Result<Response, ApiError> {
    let (start, end) = (form.required_time("start")?, form.required_time("end")?);
    let range = TimeRange::new(start, end)
        .ok_or_else(|| ApiError::parameter("end", "end timestamp must not be before start time"))?;
    let exemplars = state.query.exemplars(tenant.id(), &text(&form), range).await?;
    Ok(respond(json::exemplars(&exemplars)))
}

/// A query at its most readable.
pub async fn format(State(state): Shared, form: Form) -> Result<Response, ApiError> {
    let formatted = state.query.format(&text(&form))?;
    Ok(respond(json::document(&serde_json::Value::String(formatted))))
}

fn text(form: &Form) -> String {
    form.get("query").unwrap_or_default().to_owned()
}

fn controls(form: &Form) -> Result<(QueryControls, StatsDetail), ApiError> {
    let stats = match form.get("stats") {
        None => StatsDetail::None,
        Some("all") => StatsDetail::PerStep,
        Some(_) => StatsDetail::Totals,
    };
    let lookback = form.get("lookback_delta").map(crate::gateway::form::parse_duration).transpose();
    let lookback = lookback
        .map_err(|why| ApiError::bad_data(format!("error parsing lookback delta duration: {why}")))?
        // Nothing or less is the default.
        .filter(|lookback| lookback.millis() > 0);
    let controls = QueryControls {
        timeout: form.timeout()?,
        limit: form.limit()?,
        lookback,
        per_step_stats: stats == StatsDetail::PerStep,
    };
    Ok((controls, stats))
}

async fn write(answer: Answer, stats: StatsDetail) -> Result<Response, ApiError> {
    if points(&answer.value) < LARGE {
        return Ok(respond(json::answer(&answer, stats)));
    }
    let written = tokio::task::spawn_blocking(move || json::answer(&answer, stats)).await;
    written.map(respond).map_err(|error| ApiError::internal(format!("writing the answer: {error}")))
}

fn points(value: &Value) -> usize {
    match value {
        Value::Scalar { .. } | Value::String { .. } => 1,
        Value::Vector(elements) => elements.len(),
        Value::Matrix(series) => series.iter().map(|s| 1 + s.floats.len() + s.histograms.len()).sum(),
    }
}
