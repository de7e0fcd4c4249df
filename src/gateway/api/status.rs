//! What we are and what we hold.

use axum::{extract::State, http::StatusCode, response::Response};
use serde_json::{Map, Value, json as value};

use super::{Shared, respond};
use crate::{
    gateway::{error::ApiError, form::Form, wire::json},
    model::{TimeRange, Timestamp},
    query::Reader,
};

/// The Prometheus whose API this is; clients choose what they ask for by it.
const COMPATIBLE_WITH: &str = "3.14.0";

/// Lines of each kind in `status/tsdb`, if the request does not say.
const DEFAULT_LINES: usize = 10;
/// The most lines of each kind.
const MAX_LINES: usize = 10_000;

/// Which version we are, and of which Prometheus we speak the API.
pub async fn build_info() -> Response {
    respond(json::document(&value!({
        "version": COMPATIBLE_WITH,
        "revision": "",
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
        "application": "luminate",
        "luminateVersion": env!("CARGO_PKG_VERSION"),
    })))
}

/// The configuration in effect; what is secret is not in it.
pub async fn config(State(state): Shared) -> Response {
    respond(json::document(&value!({ "yaml": state.running.config })))
}

/// What the process is and has. What Go has for numbers of its own, we have in kind: tasks for goroutines, the threads
/// that serve for processors.
pub async fn runtime_info(State(state): Shared) -> Response {
    let (running, runtime) = (&state.running, tokio::runtime::Handle::current().metrics());
    let standings = state.reloads.standings();
    let read_last = standings.iter().filter_map(|(_, standing)| standing.at).max();
    respond(json::document(&value!({
        "startTime": rfc3339(running.started),
        "CWD": running.directory,
        "hostname": running.host,
        "serverTime": rfc3339(state.clock.now()),
        "reloadConfigSuccess": standings.iter().all(|(_, standing)| standing.successful),
        "lastConfigTime": rfc3339(read_last.unwrap_or(running.started).max(running.started)),
        "corruptionCount": state.storage.replay().map_or(0, |replay| replay.damaged),
        "goroutineCount": runtime.num_alive_tasks(),
        "GOMAXPROCS": runtime.num_workers(),
        // As Go tells that there is no bound.
        "GOMEMLIMIT": running.memory_limit.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(i64::MAX),
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": running.retention,
    })))
}

/// How far the log is read back. It was before anybody is answered, so that this is always the end of it.
pub async fn wal_replay(State(state): Shared) -> Response {
    let replay = state.storage.replay().unwrap_or_default();
    respond(json::document(&value!({ "min": replay.first, "max": replay.last, "current": replay.last })))
}

/// What whoever looks at us should know at once: nothing.
pub async fn notifications() -> Response {
    respond(json::document(&value!([])))
}

/// The same as they come up. None ever does, which who listens takes for an end.
pub async fn live_notifications() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// What the store holds and what that costs.
pub async fn storage(State(state): Shared) -> Result<Response, ApiError> {
    let status = state.storage.status().await?;
    let disk_bytes: Map<String, Value> =
        status.disk_bytes.iter().map(|(kind, bytes)| ((*kind).to_owned(), value!(bytes))).collect();
    Ok(respond(json::document(&value!({
        "backend": status.backend,
        "activeSeries": status.active_series,
        "samplesAppended": status.samples_appended,
        "parts": status.parts,
        "partSamples": status.part_samples,
        "diskBytes": disk_bytes,
        "diskBytesTotal": status.disk_bytes.iter().map(|(_, bytes)| bytes).sum::<u64>(),
        "minTime": status.range.map(|range| range.start().millis()),
        "maxTime": status.range.map(|range| range.end().millis()),
        "quarantined": status.quarantined,
    }))))
}

/// Where the tenant's series come from.
pub async fn tsdb(State(state): Shared, reader: Reader, form: Form) -> Result<Response, ApiError> {
    let lines = lines(&form)?;
    let cardinality = state.query.cardinality(&reader, lines).await?;
    let range = cardinality.range;
    let time = |of: fn(TimeRange) -> i64, none: i64| range.map_or(none, of);
    let list = |pairs: &[(String, u64)]| -> Vec<Value> {
        pairs.iter().map(|(name, count)| value!({"name": name, "value": count})).collect()
    };
    Ok(respond(json::document(&value!({
        "headStats": {
            "numSeries": cardinality.series,
            "numLabelPairs": cardinality.pairs,
            "chunkCount": cardinality.chunks,
            "minTime": time(|range| range.start().millis(), i64::MAX),
            "maxTime": time(|range| range.end().millis(), i64::MIN),
        },
        "seriesCountByMetricName": list(&cardinality.series_by_metric),
        "labelValueCountByLabelName": list(&cardinality.values_by_label),
        "memoryInBytesByLabelName": list(&cardinality.bytes_by_label),
        "seriesCountByLabelValuePair": list(&cardinality.series_by_pair),
    }))))
}

/// How many lines of each kind are wanted.
fn lines(form: &Form) -> Result<usize, ApiError> {
    let Some(text) = form.get("limit") else { return Ok(DEFAULT_LINES) };
    let limit = text.parse::<i64>().ok().and_then(|limit| usize::try_from(limit).ok());
    match limit {
        Some(limit) if limit > MAX_LINES => {
            Err(ApiError::bad_data(format!("limit must not exceed {MAX_LINES}")))
        }
        Some(limit) if limit > 0 => Ok(limit),
        Some(_) | None => Err(ApiError::bad_data("limit must be a positive number")),
    }
}

/// A time as RFC 3339; what is beyond the years that has is the epoch.
fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.millis()).unwrap_or_default().to_string()
}
