//! `/api/v1/write` and its aliases: reads the body; [`write`](super::write) does the rest.

use axum::{
    extract::{Request, State},
    response::Response,
};

use hyper::body::Body as HttpBody;

use super::{
    Shared,
    write::{over_limit, remote_write},
};
use crate::{
    gateway::{body, error::ApiError},
    ingest::Sender,
    model::Limit,
};

/// Takes samples in.
pub async fn samples(State(state): Shared, sender: Sender, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let announced = HttpBody::size_hint(&body).exact().is_some();
    let body = body::read(body, &parts.extensions, state.config.write_body).await?;
    if !announced {
        let bytes = body.bytes.len() as u64;
        let taken = state.limiter.take(&sender.tenant, &sender.limits, &[(Limit::Bytes, bytes)]).await;
        if let Err(over) = taken {
            return Ok(over_limit(over));
        }
    }
    // The body's share of the room is held until the answer is there: `body` is dropped after it.
    Ok(remote_write(&state.ingest, &sender, &parts.headers, body.bytes.clone()).await)
}
