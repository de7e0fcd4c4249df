//! Who may do what: each route says what it needs, and [`enter`] stands before it.
//!
//! ```text
//! head ─▶ who (auth) ─▶ scope ─▶ for whom (tenant) ─▶ limits ─▶ handler, which takes a Sender or a Reader
//! ```
//!
//! Nothing else makes a [`Sender`] or a [`Reader`]: a handler that takes one cannot be reached without.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State as Extract},
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    State,
    auth::{AuthError, Principal, Scope},
    error::ApiError,
    peer::Peer,
    tenant,
};
use crate::{
    ingest::{Sender, WriteQuota},
    model::{TenantId, TenantLimits},
    query::Reader,
    storage::View,
};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Open,
    /// To be somebody.
    Known,
    /// To write as one tenant.
    Write,
    /// To read one tenant's data, or several tenants'.
    Read,
    /// To delete of one tenant's data.
    Delete,
    /// To operate the server.
    Admin,
}

impl Access {
    /// The scope it takes.
    fn scope(self) -> Option<Scope> {
        match self {
            Self::Open | Self::Known => None,
            Self::Write => Some(Scope::Write),
            Self::Read => Some(Scope::Read),
            Self::Delete => Some(Scope::Delete),
            Self::Admin => Some(Scope::Admin),
        }
    }

    fn is_about_tenants(self) -> bool {
        match self {
            Self::Write | Self::Read | Self::Delete => true,
            Self::Open | Self::Known | Self::Admin => false,
        }
    }
}

/// A caller who was let in, and for whom; in the extensions of the request, and of its answer for the log.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub principal: Arc<Principal>,
    /// For whom: none for what is not about tenants, one for writes, one or more for reads; sorted.
    pub tenants: Arc<[TenantId]>,
    /// The limits that hold.
    pub limits: Arc<TenantLimits>,
}

impl Caller {
    /// The tenants' names, for logs.
    pub fn tenant_names(&self) -> String {
        self.tenants.iter().map(TenantId::as_str).collect::<Vec<_>>().join("|")
    }
}

/// Lets a caller through to a route, or tells them why not.
pub async fn enter(
    Extract((state, access)): Extract<(Arc<State>, Access)>,
    request: Request,
    next: Next,
) -> Response {
    if access == Access::Open {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    match admit(&state, access, &parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller.clone());
            let mut response = next.run(Request::from_parts(parts, body)).await;
            response.extensions_mut().insert(caller);
            response
        }
        Err(error) => error.into_response(),
    }
}

async fn admit(state: &State, access: Access, parts: &Parts) -> Result<Caller, ApiError> {
    let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_default();
    let principal = state.auth.authenticate(&parts.headers, &peer).await.map_err(|error| match error {
        AuthError::Missing | AuthError::Refused { .. } => ApiError::unauthorized(error.to_string()),
        AuthError::Unavailable(why) => {
            ApiError::unavailable("credentials cannot be checked now").because(why)
        }
    })?;
    if let Some(scope) = access.scope().filter(|scope| !principal.scopes.allow(*scope)) {
        return Err(ApiError::forbidden(format!("this needs the scope {}", scope.as_str())));
    }
    let tenants = if access.is_about_tenants() {
        tenant::named(&parts.headers, &principal.tenants, access == Access::Read)?
    } else {
        Vec::new()
    };
    let limits = match tenants.first() {
        Some(tenant) => state.limiter.table().limits_of(tenant, &principal.limits),
        None => Arc::new(TenantLimits::unlimited()),
    };
    Ok(Caller { principal, tenants: tenants.into(), limits })
}

/// Takes the caller out of a request.
fn caller(parts: &Parts) -> Result<&Caller, ApiError> {
    let caller = parts.extensions.get::<Caller>();
    caller.ok_or_else(|| ApiError::internal("a route that needs a caller has no `enter` before it"))
}

impl FromRequestParts<Arc<State>> for Sender {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, ApiError> {
        let caller = caller(parts)?;
        let [tenant] = &*caller.tenants else {
            return Err(ApiError::internal("a route that writes is not for one tenant"));
        };
        Ok(Self {
            tenant: tenant.clone(),
            limits: Arc::clone(&caller.limits),
            stamps: caller.principal.stamps.clone().into(),
            quota: Arc::clone(&state.limiter) as Arc<dyn WriteQuota>,
        })
    }
}

impl FromRequestParts<Arc<State>> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Self, ApiError> {
        let caller = caller(parts)?;
        let view = View::new(caller.tenants.to_vec(), caller.principal.filters.clone());
        let view = view.ok_or_else(|| ApiError::internal("a route that reads is for no tenant"))?;
        Ok(Self { view, limits: Arc::clone(&caller.limits) })
    }
}
