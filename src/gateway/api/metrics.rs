//! `/metrics`: our own metrics, for whoever scrapes us.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::Shared;
use crate::gateway::MetricsFormat;

/// Writes them as they are wanted.
pub async fn render(State(state): Shared, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = MetricsFormat::accepted(accepted);
    let head = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")];
    (head, (state.render_metrics.0)(format)).into_response()
}
