//! `/federate`: the newest samples of what `match[]` selects, as a target that another Prometheus scrapes.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::Shared;
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
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|field| field.to_str().ok());
    let exposition = Exposition::accepted(accepted);
    let newest = state.query.federate(&reader, &form.all("match[]")).await?;
    let written = tokio::task::spawn_blocking(move || exposition::write(&newest, exposition)).await;
    let body = written.map_err(|error| ApiError::internal(format!("writing the answer: {error}")))?;
    Ok(([(header::CONTENT_TYPE, exposition.content_type())], body).into_response())
}
