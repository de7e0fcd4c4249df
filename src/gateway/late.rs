//! What comes when no more is wanted: questions about our health are answered, all else is sent elsewhere.

use std::time::Duration;

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::error::ApiError;

/// When who came too late should come back, and then to another.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// In the extensions of a request whose connection came while we were on our way out.
#[derive(Clone, Copy, Debug)]
pub struct Late;

/// Refuses what comes too late, before anything is done for it.
pub async fn refuse(request: Request, next: Next) -> Response {
    if request.extensions().get::<Late>().is_some() {
        return ApiError::unavailable("shutting down").retry_after(RETRY_AFTER).into_response();
    }
    next.run(request).await
}
