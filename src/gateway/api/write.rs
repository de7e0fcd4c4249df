//! Remote write: which version a request is, and what its sender is told.
//!
//! | what happened | status |
//! |---|---|
//! | all written | 204 |
//! | another content type, message or compression | 415 |
//! | does not decode | 400 |
//! | some of it refused, the rest written | 400, the body says what and why |
//! | more than a request may be | 413 |
//! | no room now | 503 with `Retry-After` |
//! | the store failed | 503 with `Retry-After`, or 500 |
//!
//! "No room" is 503 and not 429, because Prometheus drops what is answered 429 unless told otherwise;
//! 429 is what rate limits answer, before a request comes here.
//!
//! From the moment the version is agreed on, every answer says what was written
//! (`X-Prometheus-Remote-Write-Samples-Written` and its like): a 2.0 sender takes their absence as
//! "this receiver does not speak 2.0".

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;

use crate::{
    ingest::{Ingest, IngestError, Outcome},
    model::TenantId,
    storage::{Fault, StorageError},
};

const SAMPLES_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-samples-written");
const HISTOGRAMS_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-histograms-written");
const EXEMPLARS_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-exemplars-written");

/// When a sender is to come again if the store does not say.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The messages a remote write request can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    /// `prometheus.WriteRequest`
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

/// Takes a remote write request of either version.
pub async fn remote_write(ingest: &Ingest, tenant: &TenantId, headers: &HeaderMap, body: Bytes) -> Response {
    let message = match negotiate(headers) {
        Ok(message) => message,
        Err(detail) => return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail),
    };
    let result = match message {
        Message::V1 => ingest.remote_write_v1(tenant, body).await,
        Message::V2 => ingest.remote_write_v2(tenant, body).await,
    };
    match result {
        Ok(outcome) => {
            let response = if outcome.rejected.is_empty() {
                StatusCode::NO_CONTENT.into_response()
            } else {
                text(StatusCode::BAD_REQUEST, outcome.rejected.to_string())
            };
            with_written(response, &outcome)
        }
        Err(error) => with_written(refuse(tenant, &error), &Outcome::default()),
    }
}

/// Finds which message a request carries; fails if we do not read it.
fn negotiate(headers: &HeaderMap) -> Result<Message, String> {
    let encoding = text_of(headers, header::CONTENT_ENCODING)?;
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        return Err(format!("unsupported content encoding {encoding:?}, expected \"snappy\""));
    }
    let content_type = text_of(headers, header::CONTENT_TYPE)?;
    if content_type.is_empty() {
        return Ok(Message::V1);
    }
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    if !media_type.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(format!("unsupported content type {media_type:?}, expected \"application/x-protobuf\""));
    }
    let proto = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("proto"))
        .map(|(_, value)| value.trim().trim_matches('"'));
    match proto {
        None | Some("prometheus.WriteRequest") => Ok(Message::V1),
        Some("io.prometheus.write.v2.Request") => Ok(Message::V2),
        Some(other) => Err(format!("unsupported remote write message {other:?}")),
    }
}

/// A header's text without space around it, empty if it is not there.
fn text_of(headers: &HeaderMap, name: HeaderName) -> Result<&str, String> {
    let Some(value) = headers.get(&name) else { return Ok("") };
    value.to_str().map(str::trim).map_err(|_| format!("header {name} is not text"))
}

/// What the sender is told of an error; what only we may know goes to the log.
fn refuse(tenant: &TenantId, error: &IngestError) -> Response {
    match error {
        IngestError::TooLarge { .. } => text(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        IngestError::Decode(_) => text(StatusCode::BAD_REQUEST, error.to_string()),
        IngestError::Overloaded { retry_after } => {
            with_retry(text(StatusCode::SERVICE_UNAVAILABLE, error.to_string()), *retry_after)
        }
        IngestError::Storage(error) => match error.fault() {
            Fault::Caller => text(StatusCode::BAD_REQUEST, error.to_string()),
            Fault::Passing => {
                tracing::warn!(%tenant, %error, "write refused for now");
                let retry_after = match error {
                    StorageError::Overloaded { retry_after, .. } => *retry_after,
                    _ => RETRY_AFTER,
                };
                with_retry(
                    text(StatusCode::SERVICE_UNAVAILABLE, "the store cannot take writes now"),
                    retry_after,
                )
            }
            Fault::Ours => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::error!(%tenant, %error, cause, "write failed");
                text(StatusCode::INTERNAL_SERVER_ERROR, "the store failed")
            }
        },
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn with_written(mut response: Response, outcome: &Outcome) -> Response {
    let headers = response.headers_mut();
    headers.insert(SAMPLES_WRITTEN, outcome.samples.into());
    headers.insert(HISTOGRAMS_WRITTEN, outcome.histograms.into());
    headers.insert(EXEMPLARS_WRITTEN, outcome.exemplars.into());
    response
}

/// Says when to come again, in whole seconds and at least one.
fn with_retry(mut response: Response, after: Duration) -> Response {
    let seconds = after.as_millis().div_ceil(1000).clamp(1, 3600);
    let seconds = u64::try_from(seconds).unwrap_or(3600);
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}
