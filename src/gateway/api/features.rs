//! What is switched on, by Prometheus' names for it: `{category: {feature: bool}}`.
//!
//! Who asks wants to know what to ask for. What a category of Prometheus' is about that we have no part in, such as
//! service discovery, is not there at all.

use axum::{extract::State, response::Response};
use serde_json::{Map, Value, json as value};

use super::{Shared, asker::Asker, respond};
use crate::{
    gateway::{ROUTES, wire::json},
    promql::{
        Features,
        functions::signature,
        parse::{AggregateOp, BinaryOp},
    },
    query::Reader,
};

/// What is switched on for whoever asks.
pub async fn features(State(state): Shared, reader: Reader, asker: Asker) -> Response {
    let features = state.query.features(Some(&reader), asker.features);
    respond(json::document(&value!({
        "api": of_api(),
        "otlp_receiver": { "delta_conversion": false, "native_delta_ingestion": false },
        "prometheus": { "agent_mode": false, "auto_reload_config": false, "server_mode": true },
        "promql": of_language(features),
        "promql_functions": functions(features),
        "promql_operators": operators(features),
        "rules": { "concurrent_rule_eval": false, "keep_firing_for": false, "query_offset": false },
        "tsdb": { "exemplar_storage": true, "native_histograms": true },
    })))
}

fn of_api() -> Value {
    let served = |path: &str| ROUTES.iter().any(|route| route.path == path);
    value!({
        "admin": served("/api/v1/admin/tsdb/delete_series"),
        "exclude_alerts": true,
        "label_values_match": true,
        "lifecycle": served("/-/reload"),
        "openapi_3.1": served("/api/v1/openapi.yaml"),
        "openapi_3.2": served("/api/v1/openapi.yaml"),
        "otlp_write_receiver": served("/api/v1/otlp/v1/metrics"),
        "query_stats": true,
        "query_warnings": true,
        "remote_write_receiver": served("/api/v1/write"),
        "search": served("/api/v1/search/metric_names"),
        "time_range_labels": true,
        "time_range_series": true,
    })
}

fn of_language(features: Features) -> Value {
    value!({
        "anchored": features.extended_range_selectors,
        "at_modifier": true,
        "bool": true,
        "by": true,
        "delayed_name_removal": features.delayed_name_removal,
        "duration_expr": true,
        "fill": features.fill_modifiers,
        "fill_left": features.fill_modifiers,
        "fill_right": features.fill_modifiers,
        "group_left": true,
        "group_right": true,
        "ignoring": true,
        "negative_offset": true,
        "offset": true,
        "on": true,
        "per_query_lookback_delta": true,
        "per_step_stats": true,
        "smoothed": features.extended_range_selectors,
        "subqueries": true,
        "type_and_unit_labels": features.type_and_unit_labels,
        "use_start_timestamps": features.use_start_timestamps,
        "without": true,
    })
}

fn functions(features: Features) -> Map<String, Value> {
    let all = signature::TABLE.iter();
    all.map(|one| (one.name.to_owned(), (features.experimental_functions || !one.experimental).into()))
        .collect()
}

fn operators(features: Features) -> Map<String, Value> {
    let always = BinaryOp::ALL.map(BinaryOp::as_str).into_iter().chain(["=~", "!~", "@"]);
    let aggregations = AggregateOp::ALL
        .into_iter()
        .map(|op| (op.as_str(), features.experimental_functions || !op.is_experimental()));
    always
        .map(|name| (name, true))
        .chain(aggregations)
        .map(|(name, is_on)| (name.to_owned(), is_on.into()))
        .collect()
}
