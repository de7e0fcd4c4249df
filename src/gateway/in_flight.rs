//! How much is done at one time: requests, and the bytes of their bodies. Above it callers come back.
//!
//! Tenants share the room ([`Shares`]): where there are several, none holds more of it than is left for the others. Which
//! tenant a request is for is known only behind [`access`](super::access), so there are two steps: [`limit`] counts a
//! request before anything is done for it, [`InFlight::share`] counts it for its tenant.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State as Extract},
    http::Extensions,
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    GatewayConfig,
    error::{ApiError, ErrorKind},
};
use crate::{
    model::TenantId,
    task::shares::{Held, Shares},
};

/// When who was refused should come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Room for requests and their bodies.
#[derive(Debug)]
pub struct InFlight {
    requests: Semaphore,
    max_requests: usize,
    by_tenant: Shares<TenantId>,
    bodies: BodyRoom,
}

/// Room for bodies; each request carries a handle to it.
#[derive(Clone, Debug)]
pub struct BodyRoom {
    bytes: Arc<Semaphore>,
    by_tenant: Shares<TenantId>,
    tenant: Option<TenantId>,
}

/// What a body takes up, until it is dropped.
#[derive(Debug, Default)]
pub struct Share {
    bytes: Option<OwnedSemaphorePermit>,
    of_tenant: Option<Held<TenantId>>,
}

/// What a request takes up of its tenant's share, until it is dropped.
#[derive(Debug)]
pub struct TenantShare {
    bodies: BodyRoom,
    _request: Held<TenantId>,
}

impl TenantShare {
    /// Has the request's body read within its tenant's share.
    pub fn bind(&self, extensions: &mut Extensions) {
        extensions.insert(self.bodies.clone());
    }
}

impl InFlight {
    /// As much room as configured.
    pub fn new(config: &GatewayConfig) -> Arc<Self> {
        let max_requests = config.max_in_flight.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            requests: Semaphore::new(max_requests),
            max_requests,
            by_tenant: Shares::new(),
            bodies: BodyRoom::new(config.max_body_bytes_in_flight),
        })
    }

    /// Counts a request for its tenant, if that does not hold its share already.
    pub fn share(&self, tenant: &TenantId) -> Result<TenantShare, ApiError> {
        let free = self.requests.available_permits().min(self.max_requests);
        let held = self.by_tenant.take(tenant, 1, free).ok_or_else(|| {
            ApiError::new(
                ErrorKind::Unavailable,
                "too many requests of this tenant are being answered already",
            )
            .retry_after(RETRY_AFTER)
        })?;
        let bodies = BodyRoom { tenant: Some(tenant.clone()), ..self.bodies.clone() };
        Ok(TenantShare { bodies, _request: held })
    }
}

impl BodyRoom {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        let bytes = Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        Self { bytes, by_tenant: Shares::new(), tenant: None }
    }

    /// Makes a share larger, if there is room.
    pub fn extend(&self, share: &mut Share, bytes: usize) -> Result<(), ApiError> {
        let full = || {
            ApiError::new(ErrorKind::Unavailable, "too many bytes of requests are being read already")
                .retry_after(RETRY_AFTER)
        };
        let of_tenant = match &self.tenant {
            Some(tenant) => {
                let (mine, free) = (share.of_tenant.as_ref(), self.bytes.available_permits());
                let held = self.by_tenant.extend(tenant, mine.map_or(0, Held::amount), bytes, free);
                Some(held.ok_or_else(full)?)
            }
            None => None,
        };
        let bytes = u32::try_from(bytes).map_err(|_| full())?;
        let more = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).map_err(|_| full())?;
        match (&mut share.of_tenant, of_tenant) {
            (Some(held), Some(more)) => held.merge(more),
            (none @ None, more) => *none = more,
            (Some(_), None) => {}
        }
        match &mut share.bytes {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// Lets a request on if there is room, and gives it the handle that its body is read by.
pub async fn limit(Extract(in_flight): Extract<Arc<InFlight>>, mut request: Request, next: Next) -> Response {
    match in_flight.requests.try_acquire() {
        Ok(_place) => {
            request.extensions_mut().insert(in_flight.bodies.clone());
            next.run(request).await
        }
        Err(_) => ApiError::new(ErrorKind::Unavailable, "too many requests are being answered already")
            .retry_after(RETRY_AFTER)
            .into_response(),
    }
}
