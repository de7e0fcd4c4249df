//! What a caller is told when there is no answer, and what the log is told.
//!
//! The two are different texts: the caller learns what it can do about it, the log learns the cause.
//! An answer carries the second in its extensions as a [`Cause`], and the request's log line takes it
//! from there, so that a failure is logged once and with the request's id.

use std::{fmt, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::wire::json;
use crate::{
    model::OverLimit,
    promql::QueryError,
    query::QueryFailure,
    storage::{Fault, StorageError},
};

/// When who found no memory should come back.
const MEMORY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The kinds of failure that clients tell apart, each with its usual status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be understood.
    BadData,
    /// The evaluation cannot go on.
    Execution,
    /// The caller went away.
    Canceled,
    /// It took too long.
    Timeout,
    /// Our fault.
    Internal,
    /// Not now.
    Unavailable,
    /// There is nothing at this address.
    NotFound,
    /// Something is here, but not by this method.
    MethodNotAllowed,
    /// We do not know who it is.
    Unauthorized,
    /// Not from there, or not for them.
    Forbidden,
    /// More than a tenant may use.
    TooManyRequests,
    /// The body is larger than we read.
    TooLarge,
    /// The body did not come in time.
    TooSlow,
    /// The body is written in a way we do not read.
    UnsupportedMediaType,
}

impl ErrorKind {
    /// The name in `errorType`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Canceled => "canceled",
            Self::Timeout | Self::TooSlow => "timeout",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TooManyRequests => "too_many_requests",
            Self::TooLarge => "too_large_entry",
            Self::UnsupportedMediaType => "unsupported_media_type",
        }
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Canceled => StatusCode::from_u16(499).expect("499 is within the range of statuses"),
            Self::Timeout | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

/// A failure on its way to the caller.
#[derive(Debug)]
pub struct ApiError {
    kind: ErrorKind,
    message: String,
    cause: Option<String>,
    retry_after: Option<Duration>,
    over_limit: Option<Box<OverLimit>>,
}

/// What the log should know about an answer and the caller should not.
#[derive(Clone, Debug)]
pub struct Cause(pub String);

impl ApiError {
    /// A failure that the caller may know all about.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None, retry_after: None, over_limit: None }
    }

    /// A request that cannot be understood.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadData, message)
    }

    /// A parameter that cannot be used.
    pub fn parameter(name: &str, reason: impl fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {reason}"))
    }

    /// A failure whose cause is only for the log.
    pub fn internal(cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(
                ErrorKind::Internal,
                "internal error; the server's log has it under this X-Request-Id",
            )
        }
    }

    /// A caller who is not known, told without saying why.
    pub fn unauthorized(cause: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unauthorized, "no valid credentials").because(cause)
    }

    /// A caller who may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// Something that does not work now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Tells the log more.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// A body above the limit.
    pub fn body_too_large(max_bytes: usize) -> Self {
        Self::new(ErrorKind::TooLarge, format!("the request body is larger than {max_bytes} bytes"))
    }

    /// A body that took too long.
    pub fn body_too_slow(timeout: Duration) -> Self {
        let message = format!("the request body did not arrive within {} s", timeout.as_secs_f64());
        Self::new(ErrorKind::TooSlow, message)
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The status it will be answered with.
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The text for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json::failure(self.kind.as_str(), &self.message);
        let mut response =
            (self.status(), [(header::CONTENT_TYPE, json::CONTENT_TYPE)], body).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, retry_seconds(after).into());
        }
        if self.kind == ErrorKind::Unauthorized {
            let ask = HeaderValue::from_static("Bearer, Basic realm=\"luminate\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(Cause(cause));
        }
        if let Some(over) = self.over_limit {
            response.extensions_mut().insert(*over);
        }
        response
    }
}

/// When to come again, in whole seconds and at least one; rounded up, for coming back too early would only be refused
/// again.
pub fn retry_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

impl From<QueryFailure> for ApiError {
    fn from(failure: QueryFailure) -> Self {
        match failure {
            QueryFailure::Parameter { .. } | QueryFailure::Request(_) => Self::bad_data(failure.to_string()),
            QueryFailure::Overloaded { retry_after, .. } | QueryFailure::Exporting { retry_after, .. } => {
                Self::new(ErrorKind::Unavailable, failure.to_string()).retry_after(retry_after)
            }
            QueryFailure::OverLimit(over) => over.into(),
            QueryFailure::Query(error) => error.into(),
            QueryFailure::Storage(error) => error.into(),
        }
    }
}

impl From<OverLimit> for ApiError {
    fn from(over: OverLimit) -> Self {
        let message = over.to_string();
        let error = match over.retry_after {
            Some(after) if !over.for_good => {
                Self::new(ErrorKind::TooManyRequests, message).retry_after(after)
            }
            Some(_) | None => Self::bad_data(message),
        };
        Self { over_limit: Some(Box::new(over)), ..error }
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let kind = match error {
            QueryError::Parse(_) | QueryError::BadData(_) => ErrorKind::BadData,
            QueryError::Execution(_) | QueryError::TooManySamples => ErrorKind::Execution,
            // As for too many samples: the same query would be too much each time.
            QueryError::OverLimit(over) => {
                let error = Self::new(ErrorKind::Execution, over.to_string());
                return Self { over_limit: Some(Box::new(over)), ..error };
            }
            QueryError::Canceled(_) => ErrorKind::Canceled,
            QueryError::Memory { for_good: true, .. } => ErrorKind::Execution,
            QueryError::Memory { for_good: false, .. } => {
                return Self::new(ErrorKind::Unavailable, error.to_string()).retry_after(MEMORY_RETRY_AFTER);
            }
            QueryError::Timeout(_) => ErrorKind::Timeout,
            QueryError::Storage(error) => {
                let error = Self::from(error);
                return Self { message: format!("expanding series: {}", error.message), ..error };
            }
        };
        Self::new(kind, error.to_string())
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match (error.fault(), &error) {
            (
                _,
                StorageError::Overloaded { retry_after, .. }
                | StorageError::Unavailable { retry_after: Some(retry_after), .. },
            ) => Self::new(ErrorKind::Unavailable, error.to_string()).retry_after(*retry_after),
            // The detail names files.
            (_, StorageError::DiskFull { .. }) => {
                Self::unavailable("the store's disk is full").because(error.to_string())
            }
            (Fault::Caller, _) => Self::new(ErrorKind::Execution, error.to_string()),
            (Fault::Passing, _) => Self::new(ErrorKind::Unavailable, error.to_string()),
            (Fault::Ours, _) => Self::internal(with_sources(&error)),
        }
    }
}

/// An error and all that caused it, on one line.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: impl Into<ApiError>) -> (u16, &'static str, String) {
        let error = error.into();
        (error.status().as_u16(), error.kind.as_str(), error.message)
    }

    #[test]
    fn each_failure_has_its_status_type_and_text() {
        let text = |s: &str| s.to_owned();
        for (error, expected) in [
            (QueryError::BadData(text("no")), (400, "bad_data", text("no"))),
            (QueryError::Execution(text("no")), (422, "execution", text("no"))),
            (
                QueryError::TooManySamples,
                (
                    422,
                    "execution",
                    text("query processing would load too many samples into memory in query execution"),
                ),
            ),
            (
                QueryError::OverLimit(OverLimit {
                    limit: crate::model::Limit::QuerySamples,
                    allowed: 5,
                    asked: 6,
                    retry_after: None,
                    for_good: true,
                }),
                (422, "execution", text("over the limit max_query_samples of 5: 6")),
            ),
            (
                QueryError::Canceled("query execution"),
                (499, "canceled", text("query was canceled in query execution")),
            ),
            (
                QueryError::Timeout("expression evaluation"),
                (503, "timeout", text("query timed out in expression evaluation")),
            ),
            (
                QueryError::Storage(StorageError::TooManySeries { limit: 5 }),
                (422, "execution", text("expanding series: the query selects more than 5 series")),
            ),
            (
                QueryError::Storage(StorageError::Unavailable { detail: text("closing"), retry_after: None }),
                (503, "unavailable", text("expanding series: store is unavailable: closing")),
            ),
        ] {
            assert_eq!(told(error), expected);
        }
    }

    #[test]
    fn a_caller_is_not_told_of_files_and_the_log_is() {
        let error = ApiError::from(StorageError::Corrupt {
            path: "/secret/parts/7".into(),
            offset: 42,
            detail: "checksum".to_owned(),
        });
        assert_eq!(error.status(), 500);
        assert!(!error.message.contains("secret"), "{}", error.message);
        let response = error.into_response();
        let Cause(cause) = response.extensions().get::<Cause>().unwrap();
        assert_eq!(cause, "/secret/parts/7 is damaged at byte 42: checksum");
        let full = ApiError::from(StorageError::DiskFull { detail: "cannot write /secret/wal/7".to_owned() });
        assert_eq!((full.status().as_u16(), full.message()), (503, "the store's disk is full"));
        let response = full.into_response();
        let Cause(cause) = response.extensions().get::<Cause>().unwrap();
        assert_eq!(cause, "disk is full: cannot write /secret/wal/7");
    }

    #[test]
    fn a_passing_failure_says_when_to_come_back() {
        let error = ApiError::from(QueryFailure::Overloaded {
            waiting: 1,
            limit: 1,
            retry_after: Duration::from_millis(1200),
        });
        assert_eq!(error.into_response().headers()[header::RETRY_AFTER], "2");
        let error = ApiError::from(StorageError::Unavailable {
            detail: "out of reach".to_owned(),
            retry_after: Some(Duration::from_secs(17)),
        });
        assert_eq!(error.into_response().headers()[header::RETRY_AFTER], "17");
    }
}
