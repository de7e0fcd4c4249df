//! Who may do what: each route says what it needs, and [`enter`] stands before it.
//!
//! ```text
//! head ─▶ who (auth) ─▶ scope ─▶ for whom (tenant) ─▶ limits ─▶ handler, which takes a Sender or a Reader
//! ```
//!
//! Nothing else makes a [`Sender`] or a [`Reader`]: a handler that takes one cannot be reached without.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    extract::{FromRequestParts, Request, State as Extract},
    http::{HeaderMap, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    State,
    auth::{AuthError, Principal, Scope},
    error::{ApiError, ErrorKind},
    narrow::Narrowed,
    peer::Peer,
    routes::Door,
    tenant,
};
use crate::{
    ingest::{Sender, WriteQuota},
    model::{TenantId, TenantLimits},
    query::Reader,
    storage::View,
};

/// When one whose credentials cannot be checked should come again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

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
    /// The same; or nothing, behind [`Door::Admin`] where that is open to scrapers.
    Watch,
}

impl Access {
    /// The scope it takes.
    fn scope(self) -> Option<Scope> {
        match self {
            Self::Open | Self::Known => None,
            Self::Write => Some(Scope::Write),
            Self::Read => Some(Scope::Read),
            Self::Delete => Some(Scope::Delete),
            Self::Admin | Self::Watch => Some(Scope::Admin),
        }
    }

    /// Whether it changes what is kept or how the server works.
    pub fn is_administrative(self) -> bool {
        match self {
            Self::Delete | Self::Admin => true,
            Self::Open | Self::Known | Self::Write | Self::Read | Self::Watch => false,
        }
    }

    /// Whether it is done for tenants that the request names.
    pub fn is_about_tenants(self) -> bool {
        match self {
            Self::Write | Self::Read | Self::Delete => true,
            Self::Open | Self::Known | Self::Admin | Self::Watch => false,
        }
    }
}

/// A caller who is known, and for whom they act; in the extensions of the request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What the route asks.
    pub access: Access,
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

/// Where whoever watches a request learns who sent it, even if there is never an answer; in its extensions.
#[derive(Clone, Debug, Default)]
pub struct CallerSlot(Arc<OnceLock<Caller>>);

impl CallerSlot {
    /// Who, if that is known by now.
    pub fn caller(&self) -> Option<&Caller> {
        self.0.get()
    }
}

/// Lets a caller through to a route, or tells them why not.
pub async fn enter(
    Extract((state, access)): Extract<(Arc<State>, Access)>,
    request: Request,
    next: Next,
) -> Response {
    if is_open(&state, access, &request) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let principal = match authenticate(&state, &parts).await {
        Ok(principal) => principal,
        Err(error) => return error.into_response(),
    };
    let limits = Arc::new(TenantLimits::unlimited());
    let mut caller = Caller { access, principal, tenants: Arc::new([]), limits };
    let authorised = caller.authorise(&state, &parts.headers);
    if let Some(CallerSlot(slot)) = parts.extensions.get() {
        // It is set once, for a route has one such layer.
        let _ = slot.set(caller.clone());
    }
    match authorised {
        Ok(()) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) => error.into_response(),
    }
}

fn is_open(state: &State, access: Access, request: &Request) -> bool {
    let by = |door| request.extensions().get::<Peer>().is_some_and(|peer| peer.door == door);
    access == Access::Open || access == Access::Watch && state.config.open_to_scrapers && by(Door::Admin)
}

async fn authenticate(state: &State, parts: &Parts) -> Result<Arc<Principal>, ApiError> {
    let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_default();
    state.auth.authenticate(&parts.headers, &peer).await.map_err(|error| match error {
        AuthError::Missing | AuthError::Refused { .. } => ApiError::unauthorized(error.to_string()),
        AuthError::Unavailable(why) => {
            ApiError::unavailable("credentials cannot be checked now").retry_after(RETRY_AFTER).because(why)
        }
        AuthError::TooManyFailures { retry_after } => {
            ApiError::new(ErrorKind::TooManyRequests, error.to_string()).retry_after(retry_after)
        }
    })
}

impl Caller {
    /// Checks what the caller may do, and finds for whom and within which limits.
    fn authorise(&mut self, state: &State, headers: &HeaderMap) -> Result<(), ApiError> {
        if let Some(scope) = self.access.scope().filter(|scope| !self.principal.scopes.allow(*scope)) {
            return Err(ApiError::forbidden(format!("this needs the scope {}", scope.as_str())));
        }
        if !self.access.is_about_tenants() {
            return Ok(());
        }
        self.tenants = tenant::named(headers, &self.principal.tenants, self.access == Access::Read)?.into();
        self.tenants.iter().try_for_each(|tenant| refuse_disabled(state, tenant))?;
        let table = state.limiter.table();
        // Of several tenants the strictest limit holds.
        let limits = self.tenants.iter().map(|tenant| table.limits_of(tenant, &self.principal.limits));
        let strictest = limits.reduce(|mut strictest, limits| {
            Arc::make_mut(&mut strictest).cap(&limits);
            strictest
        });
        self.limits = strictest.unwrap_or_else(|| Arc::clone(&self.limits));
        Ok(())
    }
}

/// Refuses to act for a tenant that is closed; only who may act for it is told so.
pub fn refuse_disabled(state: &State, tenant: &TenantId) -> Result<(), ApiError> {
    if state.config.disabled_tenants.contains(tenant) {
        return Err(ApiError::forbidden(format!("tenant {tenant} is disabled")));
    }
    Ok(())
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
        let narrowed = parts.extensions.get::<Narrowed>();
        let narrowed =
            narrowed.ok_or_else(|| ApiError::internal("a route that reads has no `narrow` before it"));
        let view = narrowed?.apply(&view)?;
        Ok(Self { view, limits: Arc::clone(&caller.limits) })
    }
}
