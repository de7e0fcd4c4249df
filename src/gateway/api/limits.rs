//! What tenants were refused.

use axum::{Extension, extract::State, response::Response};
use serde_json::{Value, json as value};

use super::{Shared, respond};
use crate::{
    gateway::{access::Caller, limit::overrides::value_json, wire::json},
    model::Limit,
};

/// `/api/v1/status/rejections`: what was refused of the caller's tenants, what was met last first.
pub async fn rejections(State(state): Shared, Extension(caller): Extension<Caller>) -> Response {
    // Which series were refused, and how many there are, is not for one who may only see some.
    let sees_all = caller.principal.filters.is_empty();
    let mut told: Vec<Value> = Vec::new();
    for tenant in &*caller.tenants {
        told.extend(state.limiter.rejections().of(tenant).into_iter().map(|rejected| {
            let limit = Limit::of_name(rejected.reason);
            let number =
                |number: u64| limit.map_or_else(|| number.into(), |limit| value_json(limit, Some(number)));
            value!({
                "tenant": tenant.as_str(),
                "reason": rejected.reason,
                "limit": rejected.limit.map(number),
                "current": rejected.current.filter(|_| sees_all).map(number),
                "example": rejected.example.filter(|_| sees_all),
                "firstSeen": rejected.first_seen.millis(),
                "lastSeen": rejected.last_seen.millis(),
                "count": rejected.count,
            })
        }));
    }
    respond(json::document(&Value::Array(told)))
}
