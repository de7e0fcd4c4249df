//! `/metrics`: our own metrics, for whoever scrapes us.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::Shared;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes them.
pub async fn render(State(state): Shared) -> Response {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], (state.render_metrics.0)()).into_response()
}
