//! Orders that change what is kept. Each goes to the audit log.

use axum::{
    Extension,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{Shared, catalog::catalog_query, respond};
use crate::{
    gateway::{
        error::{ApiError, ErrorKind},
        form::Form,
        request::Detail,
        wire::json,
    },
    query::Reader,
    storage::StorageError,
};

/// Hides the matching series' samples.
pub async fn delete_series(State(state): Shared, reader: Reader, form: Form) -> Result<Response, ApiError> {
    let query = catalog_query(&form)?;
    let selectors = query.selectors.join(" ");
    state.query.delete_series(&reader, query).await?;
    Ok(done(selectors))
}

/// Removes for good what was hidden.
pub async fn clean_tombstones(State(state): Shared, reader: Reader) -> Result<Response, ApiError> {
    if !reader.view.is_whole() {
        return Err(ApiError::forbidden("this concerns series that the caller may not see"));
    }
    for tenant in reader.view.tenants() {
        state.storage.clean_tombstones(tenant).await?;
    }
    Ok(done(String::new()))
}

/// Answers when what was in memory is durable in its final place.
pub async fn flush(State(state): Shared) -> Result<Response, ApiError> {
    state.storage.flush().await?;
    Ok(done(String::new()))
}

/// Makes a snapshot, and answers its name.
pub async fn snapshot(State(state): Shared, form: Form) -> Result<Response, ApiError> {
    let skip_head = form.flag("skip_head").map_err(|text| {
        // In the words of what Prometheus reads it with.
        let why = format!("unable to parse boolean: strconv.ParseBool: parsing {text:?}: invalid syntax");
        ApiError::parameter("skip_head", why)
    })?;
    let name = state.storage.snapshot(skip_head.unwrap_or(false)).await.map_err(|error| match error {
        StorageError::Unsupported(why) => ApiError::unavailable(why),
        other => other.into(),
    })?;
    let answer = respond(json::document(&serde_json::json!({ "name": name })));
    Ok((Extension(Detail(name)), answer).into_response())
}

/// Done, and what the audit log should know of it.
fn done(detail: String) -> Response {
    (StatusCode::NO_CONTENT, Extension(Detail(detail))).into_response()
}

/// Reads again what is read while we run, and answers when that is done.
pub async fn reload(State(state): Shared) -> Result<StatusCode, ApiError> {
    match state.reloads.reload().await {
        Ok(()) => Ok(StatusCode::OK),
        Err(errors) => {
            let message = format!("this is as it was before: {}", errors.join("; "));
            Err(ApiError::new(ErrorKind::Internal, message))
        }
    }
}
