//! Health checks: for orchestrators a status, for people a text or a document.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json as value;

use super::{Shared, respond};
use crate::{
    gateway::{health::Stage, wire::json},
    storage::Health,
};

/// The process answers.
pub async fn healthy() -> &'static str {
    "Luminate is healthy.\n"
}

/// Requests are wanted.
pub async fn ready(State(state): Shared) -> Response {
    match state.readiness.check(&state.storage.health()) {
        Ok(()) => "Luminate is ready.\n".into_response(),
        Err(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("Luminate is not ready: {why}\n")).into_response()
        }
    }
}

/// The same with everything that is known; 503 when not ready.
pub async fn report(State(state): Shared) -> Response {
    let store = state.storage.health();
    let ready = state.readiness.check(&store);
    let (store, detail) = match store {
        Health::Ready => ("ready", None),
        Health::Starting { progress } => ("starting", Some(progress)),
        Health::ReadOnly { reason } => ("read_only", Some(reason)),
        Health::Unavailable { reason } => ("unavailable", Some(reason)),
    };
    let stage = match state.readiness.stage() {
        Stage::Starting => "starting",
        Stage::Serving => "serving",
        Stage::Draining => "draining",
    };
    let mut response = respond(json::document(&value!({
        "ready": ready.is_ok(),
        "stage": stage,
        "storage": { "status": store, "detail": detail },
        "version": env!("CARGO_PKG_VERSION"),
    })));
    if ready.is_err() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
