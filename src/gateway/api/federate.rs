//! `/federate`: the newest samples of what `match[]` selects, as a target that another Prometheus scrapes.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::{Shared, asker::Asker};
use crate::{
    gateway::{
        error::ApiError,
        form::Form,
        wire::exposition::{self, Exposition},
    },
    query::Reader,
};

/// Exposes the newest samples.
pub async fn newest(
    State(state): Shared,
    reader: Reader,
    asker: Asker,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|field| field.to_str().ok());
    let exposition = Exposition::accepted(accepted);
    let federated = state.query.federate(&reader, &form.all("match[]"), &asker.origin).await?;
    // It is over when its samples are dropped.
    let write = move || exposition::write(&federated.newest, exposition);
    let written = tokio::task::spawn_blocking(write).await;
    let body = written.map_err(|error| ApiError::internal(format!("writing the answer: {error}")))?;
    Ok(([(header::CONTENT_TYPE, exposition.content_type())], body).into_response())
}
