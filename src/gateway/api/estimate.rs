//! `/api/v1/query/estimate`: what a query would read, before it runs.
//!
//! It takes the parameters of `/api/v1/query_range` if `start`, `end` or `step` is among them, else those of
//! `/api/v1/query`, and answers for the whole and for each selector: series, samples, and bytes of both in memory. Series
//! are exact; of samples and bytes there are no more than that ([`Estimate`]). `limits` lists those of the tenant that
//! the query may meet.

use axum::{extract::State, response::Response};
use serde_json::{Value, json as value};

use super::{Shared, asker::Asker, respond};
use crate::{
    gateway::{error::ApiError, form::Form, limit::overrides::value_json, wire::json},
    model::{OverLimit, Timestamp},
    query::{EstimateQuery, EstimateTimes, QueryEstimate, Reader, SelectorEstimate},
    storage::Estimate,
};

/// Says what a query would cost.
pub async fn estimate(
    State(state): Shared,
    reader: Reader,
    asker: Asker,
    form: Form,
) -> Result<Response, ApiError> {
    let is_range = ["start", "end", "step"].iter().any(|name| form.get(name).is_some());
    let times = if is_range {
        let (start, end) = (form.required_time("start")?, form.required_time("end")?);
        EstimateTimes::Range { start, end, step: form.required_duration("step")? }
    } else {
        EstimateTimes::Instant(form.time("time")?)
    };
    // Nothing or less is the default.
    let lookback = form.duration("lookback_delta")?.filter(|lookback| lookback.millis() > 0);
    let text = form.get("query").unwrap_or_default().to_owned();
    let query = EstimateQuery { text, times, lookback, features: asker.features };
    let found = state.query.estimate(&reader, query).await?;
    Ok(respond(json::document(&told(&found))))
}

fn told(found: &QueryEstimate) -> Value {
    let mut whole = costs(&found.total);
    whole["points"] = found.points.into();
    whole["selectors"] = found.selectors.iter().map(of_selector).collect();
    whole["limits"] = found.over.iter().map(of_limit).collect();
    whole
}

fn of_selector(selector: &SelectorEstimate) -> Value {
    let mut told = costs(&selector.estimate);
    told["selector"] = selector.matchers.as_str().into();
    told["start"] = seconds(selector.range.start());
    told["end"] = seconds(selector.range.end());
    told
}

fn costs(estimate: &Estimate) -> Value {
    value!({"series": estimate.series, "samples": estimate.samples(), "bytes": estimate.bytes()})
}

fn of_limit(over: &OverLimit) -> Value {
    let number = |number| value_json(over.limit, Some(number));
    value!({"name": over.limit.name(), "allowed": number(over.allowed), "asked": number(over.asked)})
}

#[expect(clippy::cast_precision_loss, reason = "the API's times are floats")]
fn seconds(at: Timestamp) -> Value {
    (at.millis() as f64 / 1000.0).into()
}
