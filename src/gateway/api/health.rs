//! Health checks: for orchestrators a status, for people a text or a document.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json as value};

use super::{Shared, respond};
use crate::{
    gateway::{health::Stage, wire::json},
    storage::{CheckState, Health},
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

/// The process has begun; what it stands on may still be out of reach.
pub async fn started(State(state): Shared) -> Response {
    match state.readiness.stage() {
        Stage::Starting => (StatusCode::SERVICE_UNAVAILABLE, "Luminate is starting.\n").into_response(),
        Stage::Serving | Stage::Draining => "Luminate has started.\n".into_response(),
    }
}

/// The same as [`report`], with all that was looked at; nobody is asked for it, it is in memory.
pub async fn deep(State(state): Shared) -> Response {
    let store = state.storage.health();
    let ready = state.readiness.check(&store);
    let mut checks = state.storage.checks();
    checks.extend(state.redis.as_ref().map(|redis| redis.check()));
    let worst = checks.iter().map(|check| check.state).max().unwrap_or(CheckState::Ok);
    let worst = match (&ready, &store) {
        (Err(_), _) | (Ok(()), Health::Unavailable { .. } | Health::Starting { .. }) => CheckState::Failed,
        (Ok(()), Health::ReadOnly { .. }) => worst.max(CheckState::Degraded),
        (Ok(()), Health::Ready) => worst,
    };
    let checks: Vec<Value> = checks
        .iter()
        .map(|check| value!({"name": check.name, "status": name_of(check.state), "detail": check.detail}))
        .collect();
    let more = [("status", value!(name_of(worst))), ("checks", value!(checks))];
    let mut response = answer(&state, &store, ready, &more);
    if matches!(store, Health::Unavailable { .. }) {
        // Who looks this deep is no load balancer: requests may be wanted, to be told when to come back.
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn name_of(state: CheckState) -> &'static str {
    match state {
        CheckState::Ok => "ok",
        CheckState::Degraded => "degraded",
        CheckState::Failed => "failed",
    }
}

/// The same with everything that is known; 503 when not ready.
pub async fn report(State(state): Shared) -> Response {
    let store = state.storage.health();
    let ready = state.readiness.check(&store);
    answer(&state, &store, ready, &[])
}

fn answer(
    state: &super::State,
    store: &Health,
    ready: Result<(), String>,
    more: &[(&str, Value)],
) -> Response {
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
    let mut document = value!({
        "ready": ready.is_ok(),
        "stage": stage,
        "storage": { "status": store, "detail": detail },
        "version": env!("CARGO_PKG_VERSION"),
    });
    for (name, value) in more {
        document[*name] = value.clone();
    }
    let mut response = respond(json::document(&document));
    if ready.is_err() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
