//! `/api/v1/write` and its aliases: reads the body; [`write`](super::write) does the rest.

use axum::{
    extract::{Request, State},
    response::Response,
};

use super::{Shared, write::remote_write};
use crate::{
    gateway::{body, error::ApiError},
    ingest::Sender,
};

/// Takes samples in.
pub async fn samples(State(state): Shared, sender: Sender, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = body::read(body, &parts.extensions, state.config.write_body).await?;
    // The body's share of the room is held until the answer is there: `body` is dropped after it.
    Ok(remote_write(&state.ingest, &sender, &parts.headers, body.bytes.clone()).await)
}
