//! How long a request may take.
//!
//! The clock of a request runs from its head to the last byte of its answer. Here its handler is held to it;
//! the rest of the time, while the answer is on its way, the [`listener`](super::listener) holds its peer to it.
//! What carries as much as there is, and orders, may take as long as they need: they are [`Unhurried`].

use std::time::Duration;

use axum::{
    extract::{Request, State as Extract},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    error::{ApiError, ErrorKind},
    listener::Unhurried,
};

/// Answers what is not answered in time.
pub async fn hurry(Extract(limit): Extract<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("not answered within {} s", limit.as_secs_f64());
            ApiError::new(ErrorKind::Timeout, message).into_response()
        }
    }
}

/// Marks an answer that may take as long as it keeps flowing.
pub async fn take_time(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.extensions_mut().insert(Unhurried);
    response
}
