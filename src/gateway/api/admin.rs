//! Orders that change what is kept. Each is logged.

use axum::{extract::State, http::StatusCode};

use super::{Shared, catalog::catalog_query};
use crate::gateway::{error::ApiError, form::Form, tenant::Tenant};

/// Hides the matching series' samples.
pub async fn delete_series(State(state): Shared, tenant: Tenant, form: Form) -> Result<StatusCode, ApiError> {
    let query = catalog_query(&form)?;
    let selectors = query.selectors.join(" ");
    state.query.delete_series(tenant.id(), query).await?;
    tracing::info!(event = "admin", action = "delete_series", tenant = tenant.id().as_str(), selectors);
    Ok(StatusCode::NO_CONTENT)
}

/// Removes for good what was hidden.
pub async fn clean_tombstones(State(state): Shared, tenant: Tenant) -> Result<StatusCode, ApiError> {
    state.storage.clean_tombstones(tenant.id()).await?;
    tracing::info!(event = "admin", action = "clean_tombstones", tenant = tenant.id().as_str());
    Ok(StatusCode::NO_CONTENT)
}

/// Answers when what was in memory is durable in its final place.
pub async fn flush(State(state): Shared) -> Result<StatusCode, ApiError> {
    state.storage.flush().await?;
    tracing::info!(event = "admin", action = "flush");
    Ok(StatusCode::NO_CONTENT)
}
