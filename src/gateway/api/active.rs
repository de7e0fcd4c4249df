//! The queries that run, and those that were expensive of late: to look at, and to end.
//!
//! | | |
//! |---|---|
//! | `GET /api/v1/status/active_queries` | the queries of the caller's tenant that run or wait |
//! | `DELETE /api/v1/status/active_queries/{id}` | ends one of them; somebody else's takes the scope `write` |
//! | `GET /api/v1/status/top_queries?by=duration&limit=10` | what was expensive of late, by `duration`, `samples` or `count` |
//! | `GET /api/v1/admin/active_queries` | the queries of all tenants |
//! | `DELETE /api/v1/admin/active_queries/{id}` | ends one of them |
//!
//! All of it is about the process that is asked. Who is ended by somebody is told `canceled`; who ended it stands in the
//! audit log.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json as value};

use super::{Shared, respond};
use crate::{
    gateway::{
        self,
        access::Caller,
        auth::Scope,
        error::{ApiError, ErrorKind},
        form::Form,
        request::Detail,
        wire::json,
    },
    query::{ActiveQuery, Reader, journal::By},
    storage::View,
};

/// Expensive queries told, if the request does not say.
const DEFAULT_TOP: usize = 10;

/// The caller's own.
pub async fn list(State(state): Shared, reader: Reader) -> Response {
    listed(&state, Some(&reader.view))
}

/// Everybody's.
pub async fn list_all(State(state): Shared) -> Response {
    listed(&state, None)
}

/// Ends one of the caller's own; one who may not only look at the tenant's data ends others', too.
pub async fn cancel(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    reader: Reader,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let query = find(&state, Some(&reader.view), id)?;
    // Who has a name too long to be kept whole has none of their own.
    let is_own = query.origin.who == caller.principal.name;
    if !is_own && !caller.principal.scopes.allow(Scope::Write) {
        return Err(ApiError::forbidden("to end a query of somebody else needs the scope write"));
    }
    Ok(end(&query))
}

/// Ends anybody's.
pub async fn cancel_any(
    State(state): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    find(&state, None, id).map(|query| end(&query))
}

/// What was expensive of late.
pub async fn top(State(state): Shared, reader: Reader, form: Form) -> Result<Response, ApiError> {
    let by = match form.get("by") {
        None | Some("duration") => By::Duration,
        Some("samples") => By::Samples,
        Some("count") => By::Count,
        Some(_) => return Err(ApiError::parameter("by", "it is duration, samples or count")),
    };
    let most = match form.limit()? {
        0 => DEFAULT_TOP,
        most => most,
    };
    let found = state.query.journal().expensive(&reader.view, by, most);
    let told = found.iter().map(|query| {
        value!({
            "query": query.text,
            "count": query.count,
            "totalMs": millis(query.total),
            "longestMs": millis(query.longest),
            "samplesRead": query.samples,
            "peakBytes": query.peak_bytes,
            "lastMs": query.last.millis(),
        })
    });
    Ok(respond(json::document(&Value::Array(told.collect()))))
}

fn listed(state: &gateway::State, view: Option<&View>) -> Response {
    let active = state.query.active();
    let told = active.list(view).into_iter().map(|query| told(&query, millis(active.age(&query))));
    respond(json::document(&Value::Array(told.collect())))
}

fn told(query: &ActiveQuery, age_ms: u64) -> Value {
    let tenants: Vec<&str> = query.view.tenants().iter().map(|tenant| tenant.as_str()).collect();
    let ticket = query.ticket();
    value!({
        "id": format!("{:016x}", query.id),
        "tenant": tenants.join("|"),
        "query": query.text,
        "startMs": query.asked.start.millis(),
        "endMs": query.asked.end.millis(),
        "stepMs": query.asked.step.millis(),
        "sinceMs": query.since.millis(),
        "ageMs": age_ms,
        "state": if query.is_running() { "running" } else { "queued" },
        "series": ticket.series(),
        "samplesRead": ticket.samples_read(),
        "bytes": ticket.bytes(),
        "who": query.origin.who,
        "requestId": query.origin.request_id,
        "dashboard": query.origin.dashboard,
        "panel": query.origin.panel,
    })
}

fn find(
    state: &gateway::State,
    view: Option<&View>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Arc<ActiveQuery>, ApiError> {
    let Path(text) = id.map_err(|why| ApiError::bad_data(format!("invalid id: {why}")))?;
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u64::from_str_radix(&text, 16).ok().filter(|_| is_hex);
    let id = id.ok_or_else(|| ApiError::bad_data("invalid id: it is 16 hexadecimal digits"))?;
    // Another tenant's is not told apart from one that never was.
    state.query.active().find(view, id).ok_or_else(|| {
        ApiError::new(ErrorKind::NotFound, format!("no query {id:016x} runs here, or it has ended"))
    })
}

fn end(query: &ActiveQuery) -> Response {
    query.cancel();
    let detail = format!("{:016x} of {}: {}", query.id, query.origin.who, query.text);
    (StatusCode::NO_CONTENT, Extension(Detail(detail))).into_response()
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
