//! Remote write: which version a request is, and what its sender is told.
//!
//! | what happened | status |
//! |---|---|
//! | all written | 204 |
//! | another content type, message or compression | 415 |
//! | does not decode | 400 |
//! | some of it refused, the rest written | 400, the body says what and why |
//! | … only for limits on series, which may pass | 429 with `Retry-After`, the body says which limit |
//! | more than a request may be | 413 |
//! | no room now | 503 with `Retry-After` |
//! | the store failed | 503 with `Retry-After`, or 500, with it if the fault may be mended elsewhere |
//!
//! "No room" is 503 and not 429, because Prometheus drops what is answered 429 unless told otherwise;
//! 429 is what rate limits answer, before a request comes here.
//!
//! A limit on series lets those that are there go on, so that what a sender sends again after a 429 is mostly
//! there already, and the same bits twice are a success. A tenant whose senders would try forever has the
//! limit refuse for good, with 400; so does a bad sample beside it, since it would be refused each time.
//!
//! From the moment the version is agreed on, every answer says what was written
//! (`X-Prometheus-Remote-Write-Samples-Written` and its like): a 2.0 sender takes their absence as
//! "this receiver does not speak 2.0".

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;

use crate::{
    gateway::{
        error::{Cause, retry_seconds, with_sources},
        limit::door::Refused,
    },
    ingest::{Ingest, IngestError, Outcome, Sender},
    model::OverLimit,
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
pub async fn remote_write(ingest: &Ingest, sender: &Sender, headers: &HeaderMap, body: Bytes) -> Response {
    let message = match negotiate(headers) {
        Ok(message) => message,
        Err(detail) => return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail),
    };
    let result = match message {
        Message::V1 => ingest.remote_write_v1(sender, body).await,
        Message::V2 => ingest.remote_write_v2(sender, body).await,
    };
    match result {
        Ok(outcome) => {
            let response = if outcome.rejected.is_empty() {
                StatusCode::NO_CONTENT.into_response()
            } else {
                let told = outcome.rejected.to_string();
                let mut response = match outcome.rejected.retry_after() {
                    Some(after) => with_retry(text(StatusCode::TOO_MANY_REQUESTS, told), after),
                    None => text(StatusCode::BAD_REQUEST, told),
                };
                response.extensions_mut().insert(Refused(Arc::new(outcome.rejected.clone())));
                response
            };
            with_written(response, &outcome)
        }
        Err(error) => with_written(refuse(&error), &Outcome::default()),
    }
}

/// What a sender is told who is over a limit before anything of its request is read.
pub fn over_limit(over: OverLimit) -> Response {
    with_written(refuse(&over.into()), &Outcome::default())
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
pub fn refuse(error: &IngestError) -> Response {
    match error {
        IngestError::TooLarge { .. } => text(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        IngestError::Decode(_) => text(StatusCode::BAD_REQUEST, error.to_string()),
        IngestError::OverLimit(over) => {
            let mut response = match over.retry_after {
                Some(after) if !over.for_good => {
                    with_retry(text(StatusCode::TOO_MANY_REQUESTS, error.to_string()), after)
                }
                Some(_) | None => text(StatusCode::BAD_REQUEST, error.to_string()),
            };
            response.extensions_mut().insert(over.clone());
            response
        }
        IngestError::Overloaded { retry_after } => {
            with_retry(text(StatusCode::SERVICE_UNAVAILABLE, error.to_string()), *retry_after)
        }
        IngestError::Storage(error) => match error.fault() {
            // A sender drops what is answered 4xx, and it is not to blame for what a server can take.
            Fault::Caller if matches!(error, StorageError::Exhausted { .. }) => later(error, RETRY_AFTER),
            Fault::Caller => text(StatusCode::BAD_REQUEST, error.to_string()),
            Fault::Passing => {
                let retry_after = match error {
                    StorageError::Overloaded { retry_after, .. } => *retry_after,
                    StorageError::Unavailable { retry_after, .. } => retry_after.unwrap_or(RETRY_AFTER),
                    StorageError::TooManySeries { .. }
                    | StorageError::TooManyLabelBytes { .. }
                    | StorageError::DiskFull { .. }
                    | StorageError::Exhausted { .. }
                    | StorageError::Stopped
                    | StorageError::Corrupt { .. }
                    | StorageError::Io { .. }
                    | StorageError::Remote { .. }
                    | StorageError::Unsupported(_) => RETRY_AFTER,
                };
                later(error, retry_after)
            }
            Fault::Ours => {
                let refusal = text(StatusCode::INTERNAL_SERVER_ERROR, "the store failed");
                // What another server refuses us, for its schema or its users, is set right without us.
                let passes = matches!(error, StorageError::Remote { .. });
                with_cause(if passes { with_retry(refusal, RETRY_AFTER) } else { refusal }, error)
            }
        },
    }
}

/// Tells the sender to come again, and only the log why.
fn later(error: &StorageError, after: Duration) -> Response {
    let refusal = text(StatusCode::SERVICE_UNAVAILABLE, "the store cannot take writes now");
    with_cause(with_retry(refusal, after), error)
}

/// Gives the request's log line what the sender is not told.
fn with_cause(mut response: Response, error: &StorageError) -> Response {
    response.extensions_mut().insert(Cause(with_sources(error)));
    response
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

/// Says when to come again.
fn with_retry(mut response: Response, after: Duration) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, retry_seconds(after).into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::HandClock,
        ingest::{
            IngestLimits,
            decode::encode::{Series, compress, write_request, write_request2},
            tests::store::RecordingStore,
        },
        model::{Limit, TenantId, TenantLimits, Timestamp},
    };

    const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

    struct Receiver {
        store: Arc<RecordingStore>,
        ingest: Ingest,
    }

    impl Receiver {
        fn new() -> Self {
            let store = Arc::new(RecordingStore::default());
            let clock = HandClock::at(Timestamp(0));
            let ingest = Ingest::new(Arc::clone(&store) as _, clock, IngestLimits::default(), (1, 2));
            Self { store, ingest }
        }

        /// Sends a body; gives the status, what the headers say was written, and the body.
        async fn send(&self, headers: &[(&str, &str)], body: Bytes) -> (u16, [Option<String>; 4], String) {
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
                .collect();
            let response =
                remote_write(&self.ingest, &Sender::of(TenantId::anonymous()), &headers, body).await;
            let status = response.status().as_u16();
            let shown = [SAMPLES_WRITTEN, HISTOGRAMS_WRITTEN, EXEMPLARS_WRITTEN, header::RETRY_AFTER]
                .map(|name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()));
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            (status, shown, String::from_utf8(body.to_vec()).unwrap())
        }
    }

    fn written(samples: &str, histograms: &str, exemplars: &str) -> [Option<String>; 4] {
        [Some(samples.into()), Some(histograms.into()), Some(exemplars.into()), None]
    }

    fn up() -> Series {
        Series::new(&[("__name__", "up")]).sample(1, 1.0).sample(2, 1.0).exemplar(&[("t", "1")], 1.0, 1)
    }

    #[tokio::test]
    async fn what_is_written_is_said_in_headers() {
        let receiver = Receiver::new();
        let v1 = compress(&write_request(&[up()], &[]));
        let v2 = compress(&write_request2(&[up()]));
        for content_type in [
            "application/x-protobuf",
            "application/x-protobuf;proto=prometheus.WriteRequest",
            "Application/X-Protobuf ; Proto = \"prometheus.WriteRequest\"; charset=utf-8",
            "",
        ] {
            let headers = [("content-type", content_type), ("content-encoding", "snappy")];
            let answer = receiver.send(&headers, v1.clone()).await;
            assert_eq!(answer, (204, written("2", "0", "1"), String::new()), "{content_type}");
        }
        assert_eq!(receiver.send(&[], v1).await.0, 204);
        let answer = receiver.send(&[("content-type", V2), ("content-encoding", " Snappy ")], v2).await;
        assert_eq!(answer, (204, written("2", "0", "1"), String::new()));
    }

    #[tokio::test]
    async fn what_is_not_remote_write_is_not_read() {
        let receiver = Receiver::new();
        for headers in [
            [("content-type", "application/json"), ("content-encoding", "snappy")],
            [("content-type", "image/png"), ("content-encoding", "snappy")],
            [("content-type", "text/plain;proto=prometheus.WriteRequest"), ("content-encoding", "snappy")],
            [("content-type", "application/x-protobuf;proto=x"), ("content-encoding", "snappy")],
            [("content-type", "application/x-protobuf;proto="), ("content-encoding", "snappy")],
            [("content-type", V2), ("content-encoding", "gzip")],
            [("content-type", V2), ("content-encoding", "zstd")],
            [("content-type", ""), ("content-encoding", "deflate")],
        ] {
            let (status, shown, _) = receiver.send(&headers, Bytes::from_static(b"x")).await;
            assert_eq!((status, shown), (415, [None, None, None, None]), "{headers:?}");
        }
        let strange = HeaderValue::from_bytes(b"\xff").unwrap();
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, strange)]);
        assert!(negotiate(&headers).is_err());
    }

    #[tokio::test]
    async fn a_partial_write_is_400_and_says_why() {
        let receiver = Receiver::new();
        let bad = Series::new(&[("job", "a")]).sample(1, 1.0);
        let body = compress(&write_request2(&[bad, up()]));
        let (status, shown, text) = receiver.send(&[("content-type", V2)], body).await;
        assert_eq!((status, shown), (400, written("2", "0", "1")));
        assert_eq!(text, "1 rejected: 1 missing_metric_name\n{job=\"a\"}: the series has no metric name");
    }

    #[tokio::test]
    async fn failures_have_the_status_their_fault_asks_for() {
        let receiver = Receiver::new();
        let body = compress(&write_request2(&[up()]));
        let headers = [("content-type", V2)];
        let none = written("0", "0", "0");
        let retry = |after: &str| {
            let mut shown = written("0", "0", "0");
            shown[3] = Some(after.to_owned());
            shown
        };
        let (status, shown, _) = receiver.send(&headers, Bytes::from_static(b"\x05hello")).await;
        assert_eq!((status, &shown), (400, &none));
        let (status, shown, text) = receiver.send(&headers, compress(&vec![0; 40 << 20])).await;
        assert_eq!((status, &shown), (413, &none));
        assert_eq!(text, "the request has more than 33554432 decompressed bytes");
        let io = std::io::Error::other("sector 7");
        for (error, expected, shown) in [
            (StorageError::DiskFull { detail: "/data".to_owned() }, 503, retry("5")),
            (StorageError::Unavailable { detail: "closing".to_owned(), retry_after: None }, 503, retry("5")),
            (
                StorageError::Overloaded {
                    detail: "wal".to_owned(),
                    retry_after: Duration::from_millis(1500),
                },
                503,
                retry("2"),
            ),
            (
                StorageError::Unavailable {
                    detail: "out of reach".to_owned(),
                    retry_after: Some(Duration::from_secs(17)),
                },
                503,
                retry("17"),
            ),
            (StorageError::Exhausted { detail: "max_memory_usage".to_owned() }, 503, retry("5")),
            (StorageError::Remote { detail: "no table /data".to_owned() }, 500, retry("5")),
            (StorageError::Io { context: "cannot write".to_owned(), source: io }, 500, none.clone()),
            (StorageError::Unsupported("no".to_owned()), 400, none.clone()),
        ] {
            let text = error.to_string();
            *receiver.store.fail.lock() = Some(error);
            let (status, got, body) = receiver.send(&headers, body.clone()).await;
            assert_eq!((status, got), (expected, shown), "{text}");
            assert!(!body.contains("/data") && !body.contains("sector"), "{body}");
        }
        assert_eq!(receiver.send(&headers, body).await.0, 204);
    }

    #[test]
    fn the_log_learns_what_the_sender_does_not() {
        let io = || StorageError::Io {
            context: "cannot write /data/wal".to_owned(),
            source: std::io::Error::other("sector 7"),
        };
        for error in
            [io(), StorageError::Unavailable { detail: "/data/wal: sector 7".to_owned(), retry_after: None }]
        {
            let response = refuse(&IngestError::Storage(error));
            let Cause(cause) = response.extensions().get().unwrap();
            assert!(cause.contains("/data/wal") && cause.contains("sector 7"), "{cause}");
        }
    }

    #[tokio::test]
    async fn limits_on_series_are_told_apart_from_what_is_wrong() {
        let store = crate::storage::memory::MemoryStore::new(HandClock::at(Timestamp(0)), None);
        let ingest = Ingest::new(store, HandClock::at(Timestamp(0)), IngestLimits::default(), (1, 2));
        let mut limits = TenantLimits::default().with(Limit::ActiveSeries, 1);
        let series = |name, at| Series::new(&[("__name__", name)]).sample(at, 1.0);
        let send = |limits: &TenantLimits, all: &[Series]| {
            let sender = Sender { limits: Arc::new(limits.clone()), ..Sender::of(TenantId::anonymous()) };
            let (body, ingest) = (compress(&write_request(all, &[])), &ingest);
            async move {
                let response = remote_write(ingest, &sender, &HeaderMap::new(), body).await;
                let header = |name: HeaderName| {
                    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
                };
                let headers = (header(SAMPLES_WRITTEN), header(header::RETRY_AFTER));
                let status = response.status().as_u16();
                let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
                (status, headers, String::from_utf8(body.to_vec()).unwrap())
            }
        };
        let one = || Some("1".to_owned());
        assert_eq!(send(&limits, &[series("a", 1)]).await.0, 204);
        // What is there is written, the other is to come again.
        let (status, headers, text) = send(&limits, &[series("a", 2), series("b", 2)]).await;
        assert_eq!((status, headers), (429, (one(), Some("60".to_owned()))));
        assert_eq!(
            text,
            "1 rejected: 1 max_active_series\nover the limit max_active_series of 1: 2\n\
             {__name__=\"b\"} at 2: the series would be new, and max_active_series allows no more"
        );
        // A bad sample would be refused again.
        let bad = series("c", 9_999_999_999);
        assert_eq!(send(&limits, &[series("a", 3), series("b", 3), bad]).await.0, 400);
        limits.refuse_for_good(Limit::ActiveSeries, true);
        let (status, headers, _) = send(&limits, &[series("a", 4), series("b", 4)]).await;
        assert_eq!((status, headers), (400, (one(), None)));
    }
}
