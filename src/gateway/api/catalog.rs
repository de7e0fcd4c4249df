//! What series, labels and metrics there are.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};

use super::{Shared, respond};
use crate::{
    gateway::{
        error::ApiError,
        form::Form,
        wire::{escaped_name, json},
    },
    query::{CatalogQuery, MetadataQuery, Reader},
};

/// The series that match.
pub async fn series(State(state): Shared, reader: Reader, form: Form) -> Result<Response, ApiError> {
    let listed = state.query.series(&reader, catalog_query(&form)?).await?;
    Ok(respond(json::series(&listed)))
}

/// The names of their labels.
pub async fn label_names(State(state): Shared, reader: Reader, form: Form) -> Result<Response, ApiError> {
    let listed = state.query.label_names(&reader, catalog_query(&form)?).await?;
    Ok(respond(json::names(&listed)))
}

/// The values of one of their labels.
pub async fn label_values(
    State(state): Shared,
    reader: Reader,
    name: Result<Path<String>, PathRejection>,
    form: Form,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|why| ApiError::bad_data(format!("invalid label name: {why}")))?;
    let name = escaped_name::unescape(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    let listed = state.query.label_values(&reader, &name, catalog_query(&form)?).await?;
    Ok(respond(json::names(&listed)))
}

/// Types, help texts and units of metrics.
pub async fn metadata(State(state): Shared, reader: Reader, form: Form) -> Result<Response, ApiError> {
    let query = MetadataQuery {
        metric: form.get("metric").map(str::to_owned),
        // Less than none is all.
        limit: form.count("limit")?.and_then(|limit| usize::try_from(limit).ok()),
        limit_per_metric: form
            .count("limit_per_metric")?
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(0),
    };
    let entries = state.query.metadata(&reader, query).await?;
    Ok(respond(json::metadata(&entries)))
}

/// Reads what selects series.
pub fn catalog_query(form: &Form) -> Result<CatalogQuery, ApiError> {
    Ok(CatalogQuery {
        selectors: form.all("match[]"),
        start: form.time("start")?,
        end: form.time("end")?,
        limit: form.limit()?,
    })
}
