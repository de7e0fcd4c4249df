//! What is scraped, and by which pools: nothing. Whoever asks is told so, in the words of a scraper without targets.

use axum::{extract::State, response::Response};
use serde_json::{Value, json as value};

use super::{Shared, respond};
use crate::{
    gateway::{error::ApiError, form::Form, wire::json},
    query::selectors::read_selectors,
};

/// The targets in a state.
pub async fn targets(form: Form) -> Response {
    let state = form.get("state").unwrap_or("any").to_ascii_lowercase();
    // Who asks for the active ones alone is told nothing of the others.
    let dropped = if ["any", "dropped"].contains(&state.as_str()) { value!({}) } else { Value::Null };
    respond(json::document(&value!({
        "activeTargets": [],
        "droppedTargets": [],
        "droppedTargetCounts": dropped,
    })))
}

/// What targets say of their metrics.
pub async fn metadata(State(state): Shared, form: Form) -> Result<Response, ApiError> {
    form.count("limit")?;
    if let Some(selector) = form.get("match_target") {
        let limit = state.query.limits().max_query_bytes;
        read_selectors("match_target", &[selector.to_owned()], limit)
            .map_err(|error| ApiError::parameter("match_target", error))?;
    }
    Ok(respond(json::document(&value!([]))))
}

/// The names of the pools.
pub async fn pools() -> Response {
    respond(json::document(&value!({ "scrapePools": [] })))
}
