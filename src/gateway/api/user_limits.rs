//! Which limits hold, and giving tenants limits of their own.
//!
//! | | |
//! |---|---|
//! | `GET /api/v1/user_limits` | every limit of the caller's tenant, and where it comes from |
//! | `GET /api/v1/user-overrides` | what a tenant was given |
//! | `POST /api/v1/user-overrides` | gives it limits, in the place of all it had before: `{"samples_per_second": 50000}` |
//! | `DELETE /api/v1/user-overrides` | takes them back |
//!
//! The tenant is named by `X-Scope-OrgID` or by `?tenant=`.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, Uri, request::Parts},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json as value};

use super::{Shared, respond};
use crate::{
    gateway::{
        self,
        access::{Caller, refuse_disabled},
        body::{self, BodyLimits},
        error::ApiError,
        form::Form,
        limit::overrides::{LimitOverrides, value_json},
        request::Detail,
        tenant,
        wire::json,
    },
    model::{Limit, TenantId},
};

/// No tenant's limits take more to write.
const MAX_BYTES: usize = 64 << 10;

/// The tenant that a request is about.
#[derive(Debug)]
pub struct About(TenantId);

impl FromRequestParts<Arc<gateway::State>> for About {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<gateway::State>) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>();
        let caller = caller.ok_or_else(|| ApiError::internal("a route that needs a caller has none"))?;
        about(caller, &parts.headers, &parts.uri).map(Self)
    }
}

fn about(caller: &Caller, headers: &HeaderMap, uri: &Uri) -> Result<TenantId, ApiError> {
    let access = &caller.principal.tenants;
    let form = Form::parse(uri.query().unwrap_or_default(), b"")?;
    let names = form.all("tenant");
    let Some(name) = names.first() else {
        let tenants = tenant::named(headers, access, false)?;
        return tenants.into_iter().next().ok_or_else(|| ApiError::internal("no tenant is named"));
    };
    let tenant = TenantId::new(name).map_err(|why| ApiError::parameter("tenant", why))?;
    if names.len() > 1 {
        return Err(ApiError::parameter("tenant", "is given more than once"));
    }
    if !access.allows(&tenant) {
        return Err(ApiError::forbidden(format!("not allowed to act for tenant {tenant}")));
    }
    if tenant::is_named(headers) && tenant::named(headers, access, false)? != [tenant.clone()] {
        return Err(ApiError::parameter("tenant", "the header names another one"));
    }
    Ok(tenant)
}

/// Every limit of the caller's tenant, where it comes from, and what is used of it where that is known.
pub async fn of_caller(
    State(state): Shared,
    About(tenant): About,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    refuse_disabled(&state, &tenant)?;
    let explained = state.limiter.table().explain(&tenant, &caller.principal.limits);
    let limits: Map<String, Value> = Limit::ALL
        .into_iter()
        .map(|limit| {
            let mut told = value!({
                "value": value_json(limit, explained.limits.get(limit)),
                "source": explained.origins[limit as usize].as_str(),
            });
            // How much others use that the caller may not see is not theirs to know.
            if let Some(used) = used(&state, &tenant, limit).filter(|_| caller.principal.filters.is_empty()) {
                told["used"] = used.into();
            }
            let remaining = state.limiter.remaining_of(&tenant, &explained.limits, limit);
            if let Some(level) = remaining.and_then(|remaining| remaining.level) {
                told["left"] = level.left.into();
            }
            (limit.name().to_owned(), told)
        })
        .collect();
    let answer_400: Vec<&str> = Limit::ALL
        .into_iter()
        .filter(|limit| explained.limits.refuses_for_good(*limit))
        .map(Limit::name)
        .collect();
    let (on_conflict, source) = explained.on_conflict;
    Ok(respond(json::document(&value!({
        "tenant": tenant.as_str(),
        "limits": limits,
        "answer_400": answer_400,
        "on_conflict": {"value": on_conflict.as_str(), "source": source.as_str()},
        "features": explained.limits.features.names().collect::<Vec<_>>(),
    }))))
}

fn used(state: &gateway::State, tenant: &TenantId, limit: Limit) -> Option<u64> {
    match limit {
        Limit::ActiveSeries => state.storage.active_series(tenant),
        _ => None,
    }
}

/// What a tenant was given.
pub async fn overrides(State(state): Shared, About(tenant): About) -> Response {
    let overrides = state.limiter.table().user(&tenant).unwrap_or_default();
    respond(json::document(&told(&tenant, &overrides)))
}

/// Gives a tenant limits, in the place of all it was given before.
pub async fn set_overrides(
    State(state): Shared,
    About(tenant): About,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let limits = BodyLimits { max_bytes: MAX_BYTES, ..state.config.form_body };
    let body = body::read(body, &parts.extensions, limits).await?;
    let written: Value = serde_json::from_slice(&body.bytes)
        .map_err(|error| ApiError::bad_data(format!("the body is not JSON: {error}")))?;
    if !written.is_object() {
        return Err(ApiError::bad_data("the body is no object of limits by their names"));
    }
    let overrides =
        LimitOverrides::read(&written).map_err(|errors| ApiError::bad_data(errors.to_string()))?;
    let rules = state.limiter.table().rules();
    rules.check(&overrides).map_err(|errors| ApiError::bad_data(errors.to_string()))?;
    let answer = told(&tenant, &overrides);
    state.user_overrides.set(&tenant, Some(overrides)).await?;
    let detail = Extension(Detail(answer.to_string()));
    Ok((detail, respond(json::document(&answer))).into_response())
}

/// Takes back what a tenant was given.
pub async fn remove_overrides(State(state): Shared, About(tenant): About) -> Result<Response, ApiError> {
    state.user_overrides.set(&tenant, None).await?;
    let detail = Extension(Detail(told(&tenant, &LimitOverrides::default()).to_string()));
    Ok((StatusCode::NO_CONTENT, detail).into_response())
}

fn told(tenant: &TenantId, overrides: &LimitOverrides) -> Value {
    value!({"tenant": tenant.as_str(), "limits": overrides.to_json()})
}
