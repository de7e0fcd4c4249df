//! Rules and alerts. There are none; clients that ask when they start are told so.

use axum::response::Response;
use serde_json::json as value;

use super::respond;
use crate::gateway::wire::json;

/// The groups of rules: none.
pub async fn groups() -> Response {
    respond(json::document(&value!({ "groups": [] })))
}

/// The active alerts: none.
pub async fn alerts() -> Response {
    respond(json::document(&value!({ "alerts": [] })))
}
