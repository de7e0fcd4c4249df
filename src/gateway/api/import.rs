//! `/api/v1/import`: lines of JSON in, as `/api/v1/export` and VictoriaMetrics write them.
//!
//! The body is read as it comes, plain or compressed by gzip or zstd, and each batch of lines is durable before
//! more is read. `extra_label=name=value` gives each series a label.
//!
//! | what happened | status |
//! |---|---|
//! | all written | 204 |
//! | lines that cannot be read, or samples refused; the rest is written | 400, the body says what and why |
//! | … only for limits on series, which may pass | 429 with `Retry-After`, the body says which limit |
//! | out of requests, or of samples or bytes for longer than anybody waits | 429 with `Retry-After`, or 400 for good |
//! | another compression | 415 |
//! | nothing came for too long | 408 |
//! | no room now, or the store cannot take writes | 503 with `Retry-After` |
//!
//! Every answer says what was written up to then (`X-Luminate-Import-Samples` and its like) and the checksum
//! of what came, so that a sender can compare it with what it sent.

use std::{error::Error, io, sync::Arc};

use async_compression::{
    tokio::bufread::{GzipDecoder, ZstdDecoder},
    zstd::DParameter,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::TryStreamExt;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::{Shared, write::refuse};
use crate::{
    gateway::{
        body::BodyLimits,
        error::{ApiError, ErrorKind},
        form::Form,
        limit::door::Refused,
    },
    ingest::{Import, Imported, IngestError, Sender},
    model::OverLimit,
};

/// How much is read at a time.
const PIECE: usize = 64 << 10;

/// The largest window of a zstd stream, as a power of two: what its levels use up to 19.
const MAX_WINDOW_LOG: u32 = 23;

/// Takes lines in.
pub async fn import(State(state): Shared, sender: Sender, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let form = Form::parse(parts.uri.query().unwrap_or_default(), b"")?;
    let mut reader = decompressed(&parts.headers, body)?;
    let mut import = match state.ingest.import(&sender, extra_labels(&form)?) {
        Ok(import) => import,
        Err(error) => return Ok(refuse(&error)),
    };
    let answer = match take_in(&mut import, &mut reader, state.config.write_body).await {
        Ok(imported) => answer(&imported),
        Err(Failure::Body(error)) => error.into_response(),
        Err(Failure::Ingest(error)) => refuse(&error),
    };
    Ok(with_counts(answer, &import.so_far()))
}

/// Why an import ended early.
enum Failure {
    Body(ApiError),
    Ingest(IngestError),
}

/// A body of any size as its plain bytes.
type Plain = Box<dyn AsyncRead + Send + Unpin>;

async fn take_in(import: &mut Import, reader: &mut Plain, limits: BodyLimits) -> Result<Imported, Failure> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = match tokio::time::timeout(limits.timeout, reader.read(&mut piece)).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => {
                // What came whole before the break is kept; the sender is told of the break.
                return Err(match (import.cut_off().await, over_limit(&error)) {
                    (Ok(()), None) => Failure::Body(broken(&error)),
                    (Ok(()), Some(over)) => Failure::Ingest(over.clone().into()),
                    (Err(failed), _) => Failure::Ingest(failed),
                });
            }
            Err(_) => return Err(Failure::Body(ApiError::body_too_slow(limits.timeout))),
        };
        if read == 0 {
            return import.finish().await.map_err(Failure::Ingest);
        }
        import.push(&piece[..read]).await.map_err(Failure::Ingest)?;
    }
}

/// The limit for which a body is not read on, if that is why it broke off.
fn over_limit(error: &io::Error) -> Option<&OverLimit> {
    fn inside(error: &io::Error) -> Option<&(dyn Error + 'static)> {
        Some(error.get_ref()?)
    }
    let mut cause = inside(error);
    while let Some(error) = cause {
        if let Some(over) = error.downcast_ref() {
            return Some(over);
        }
        // This one names what is behind what it holds as its source, and not what it holds.
        cause = match error.downcast_ref() {
            Some(error) => inside(error),
            None => error.source(),
        };
    }
    None
}

fn broken(error: &io::Error) -> ApiError {
    ApiError::bad_data(format!("the request body broke off or does not decompress: {error}"))
}

fn decompressed(headers: &HeaderMap, body: Body) -> Result<Plain, ApiError> {
    let raw = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
    Ok(match encoding.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Box::new(raw),
        "gzip" | "x-gzip" => Box::new(gzip(raw)),
        "zstd" => Box::new(zstd(raw)),
        other => {
            let message = format!("unsupported content encoding {other:?}, expected \"gzip\" or \"zstd\"");
            return Err(ApiError::new(ErrorKind::UnsupportedMediaType, message));
        }
    })
}

fn gzip(raw: impl AsyncBufRead + Send + Unpin) -> impl AsyncRead + Send + Unpin {
    let mut decoder = GzipDecoder::new(raw);
    decoder.multiple_members(true);
    decoder
}

fn zstd(raw: impl AsyncBufRead + Send + Unpin) -> impl AsyncRead + Send + Unpin {
    let mut decoder = ZstdDecoder::with_params(raw, &[DParameter::window_log_max(MAX_WINDOW_LOG)]);
    decoder.multiple_members(true);
    decoder
}

fn extra_labels(form: &Form) -> Result<Vec<(String, String)>, ApiError> {
    let labels = form.all("extra_label").into_iter().map(|text| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err(ApiError::parameter("extra_label", format!("{text:?} is not name=value"))),
    });
    labels.collect()
}

fn answer(imported: &Imported) -> Response {
    let mut told = Vec::new();
    if imported.bad_lines > 0 {
        told.push(format!("{} of {} lines cannot be read:", imported.bad_lines, imported.lines));
        told.extend(imported.bad_examples.iter().map(|(line, why)| format!("line {line}: {why}")));
    }
    if !imported.outcome.rejected.is_empty() {
        told.push(imported.outcome.rejected.to_string());
    }
    if told.is_empty() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        let told = told.join("\n");
        let error = match imported.outcome.rejected.retry_after() {
            Some(after) if imported.bad_lines == 0 => {
                ApiError::new(ErrorKind::TooManyRequests, told).retry_after(after)
            }
            Some(_) | None => ApiError::bad_data(told),
        };
        let mut response = error.into_response();
        response.extensions_mut().insert(Refused(Arc::new(imported.outcome.rejected.clone())));
        response
    }
}

fn with_counts(mut response: Response, imported: &Imported) -> Response {
    let Imported { lines, outcome, bad_lines, received, .. } = imported;
    let count = |number: u64| HeaderValue::from(number);
    let checksum = HeaderValue::from_str(&received.checksum().to_string());
    let headers = [
        ("lines", count(*lines)),
        ("bad-lines", count(*bad_lines)),
        ("samples", count(outcome.samples)),
        ("histograms", count(outcome.histograms)),
        ("exemplars", count(outcome.exemplars)),
        ("metadata", count(outcome.metadata)),
        ("rejected", count(outcome.rejected.total)),
        ("checksum", checksum.expect("hexadecimal digits are a legal header value")),
    ];
    for (name, value) in headers {
        let name = HeaderName::try_from(format!("x-luminate-import-{name}"));
        response.headers_mut().insert(name.expect("letters and hyphens are a legal header name"), value);
    }
    response
}
