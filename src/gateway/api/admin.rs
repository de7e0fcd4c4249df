//! Orders that change what is kept. Each is logged.

use axum::{extract::State, http::StatusCode};

use super::{Shared, catalog::catalog_query};
use crate::{
    gateway::{error::ApiError, form::Form},
    query::Reader,
};

/// Hides the matching series' samples.
pub async fn delete_series(State(state): Shared, reader: Reader, form: Form) -> Result<StatusCode, ApiError> {
    let query = catalog_query(&form)?;
    let selectors = query.selectors.join(" ");
    state.query.delete_series(&reader, query).await?;
    tracing::info!(event = "admin", action = "delete_series", tenant = %reader, selectors);
    Ok(StatusCode::NO_CONTENT)
}

/// Removes for good what was hidden.
pub async fn clean_tombstones(State(state): Shared, reader: Reader) -> Result<StatusCode, ApiError> {
    if !reader.view.filters().is_empty() {
        return Err(ApiError::forbidden("this concerns series that the caller may not see"));
    }
    for tenant in reader.view.tenants() {
        state.storage.clean_tombstones(tenant).await?;
    }
    tracing::info!(event = "admin", action = "clean_tombstones", tenant = %reader);
    Ok(StatusCode::NO_CONTENT)
}

/// Answers when what was in memory is durable in its final place.
pub async fn flush(State(state): Shared) -> Result<StatusCode, ApiError> {
    state.storage.flush().await?;
    tracing::info!(event = "admin", action = "flush");
    Ok(StatusCode::NO_CONTENT)
}
