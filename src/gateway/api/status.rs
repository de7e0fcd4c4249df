//! What we are and what we hold.

use axum::{extract::State, response::Response};
use serde_json::{Map, Value, json as value};

use super::{Shared, respond};
use crate::{
    gateway::{error::ApiError, form::Form, wire::json},
    model::TimeRange,
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
    let lines = match form.count("limit")? {
        None => DEFAULT_LINES,
        Some(limit) => usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=MAX_LINES).contains(limit))
            .ok_or_else(|| ApiError::bad_data(format!("limit must be between 1 and {MAX_LINES}")))?,
    };
    let cardinality = state.query.cardinality(&reader, lines).await?;
    let range = cardinality.range;
    let time = |of: fn(TimeRange) -> i64, none: i64| range.map_or(none, of);
    let list = |pairs: &[(String, u64)]| -> Vec<Value> {
        pairs.iter().map(|(name, count)| value!({"name": name, "value": count})).collect()
    };
    Ok(respond(json::document(&value!({
        "headStats": {
            "numSeries": cardinality.series,
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
