//! Lets pages of configured origins read answers; off unless configured.

use std::sync::Arc;

use axum::{
    extract::{Request, State as Extract},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::State;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, OPTIONS");
const HEADERS: HeaderValue =
    HeaderValue::from_static("Accept, Authorization, Content-Type, Origin, X-Scope-OrgID, X-Request-Id");
const EXPOSED: HeaderValue = HeaderValue::from_static("Date, Retry-After, X-Request-Id");

/// Answers a browser's `OPTIONS`, and marks answers that a page may read.
pub async fn allow_origins(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let allowed = allowed_origin(request.headers(), &state.config.cors_origins);
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if !state.config.cors_origins.is_empty() {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(origin) = allowed {
        let granted: [(HeaderName, HeaderValue); 4] = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
        ];
        response.headers_mut().extend(granted);
    }
    response
}

fn allowed_origin(headers: &HeaderMap, allowed: &[String]) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?;
    allowed.iter().any(|a| a == "*" || a.eq_ignore_ascii_case(text)).then(|| origin.clone())
}
