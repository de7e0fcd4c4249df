//! Every route, and the stack before it.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State as Extract},
    http::{Method, Uri},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tower_http::{
    CompressionLevel,
    compression::{CompressionLayer, predicate::SizeAbove},
};

use super::{
    State,
    api::{admin, catalog, export, health, import, metrics, page, query, receive, rules, status},
    cors,
    error::{ApiError, ErrorKind},
    in_flight::{self, InFlight},
    request, tenant,
};

/// Smaller answers are not worth compressing.
const COMPRESSED_FROM: u16 = 1024;

/// Builds the router.
pub fn router(state: Arc<State>) -> Router {
    let in_flight = InFlight::new(&state.config);

    // What is about a tenant's data. A layer stands before those above it: read them from below.
    let tenants = Router::new()
        .route("/write", post(receive::samples))
        .route("/push", post(receive::samples))
        .route("/receive", post(receive::samples))
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/query_exemplars", get(query::exemplars).post(query::exemplars))
        .route("/series", get(catalog::series).post(catalog::series))
        .route("/labels", get(catalog::label_names).post(catalog::label_names))
        .route("/label/{name}/values", get(catalog::label_values))
        .route("/metadata", get(catalog::metadata))
        .route("/export", get(export::export).post(export::export))
        .route("/export/plan", get(export::plan).post(export::plan))
        .route("/import", post(import::import))
        .route("/status/tsdb", get(status::tsdb))
        .route("/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series))
        .route("/admin/tsdb/clean_tombstones", post(admin::clean_tombstones).put(admin::clean_tombstones))
        .route_layer(from_fn(tenant::identify));

    let api = tenants
        .route("/admin/tsdb/flush", post(admin::flush))
        .route("/status/storage", get(status::storage))
        .route("/format_query", get(query::format).post(query::format))
        .route("/rules", get(rules::groups))
        .route("/alerts", get(rules::alerts))
        .route("/status/buildinfo", get(status::build_info))
        .route_layer(from_fn_with_state(in_flight, in_flight::limit))
        // Health is answered however much else there is to do.
        .route("/health", get(health::report));

    Router::new()
        .nest("/api/v1", api.clone())
        .nest("/prometheus/api/v1", api)
        .route("/-/healthy", get(health::healthy))
        .route("/-/ready", get(health::ready))
        .route("/health/live", get(health::healthy))
        .route("/health/ready", get(health::ready))
        .route("/health/startup", get(health::started))
        .route("/health/deep", get(health::deep))
        .route("/metrics", get(metrics::render))
        .route("/", get(page::home))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // 4. Large answers are compressed, if the caller can read that.
        .layer(
            CompressionLayer::new()
                .quality(CompressionLevel::Fastest)
                .compress_when(SizeAbove::new(COMPRESSED_FROM)),
        )
        // 3. Pages of configured origins may read the answer.
        .layer(from_fn_with_state(Arc::clone(&state), cors::allow_origins))
        // 2. Web pages are kept out while there is no other door.
        .layer(from_fn_with_state(Arc::clone(&state), guard_host))
        // 1. An id, a log line, a place in the counters.
        .layer(from_fn_with_state(Arc::clone(&state), request::observe))
        .with_state(state)
}

async fn guard_host(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let checked = match &state.config.host_guard {
        Some(guard) => guard.check(request.method(), request.uri(), request.headers()),
        None => Ok(()),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => ApiError::new(ErrorKind::Forbidden, refusal.to_string()).into_response(),
    }
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("page not found: there is nothing at {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ErrorKind::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}
