//! How much is done at one time: requests, and the bytes of their bodies. Above it callers come back.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State as Extract},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    GatewayConfig,
    error::{ApiError, ErrorKind},
};

/// When who was refused should come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Room for requests and their bodies.
#[derive(Debug)]
pub struct InFlight {
    requests: Semaphore,
    bodies: BodyRoom,
}

/// Room for bodies; each request carries a handle to it.
#[derive(Clone, Debug)]
pub struct BodyRoom(Arc<Semaphore>);

/// What a body takes up, until it is dropped.
#[derive(Debug, Default)]
pub struct Share(Option<OwnedSemaphorePermit>);

impl InFlight {
    /// As much room as configured.
    pub fn new(config: &GatewayConfig) -> Arc<Self> {
        let requests = Semaphore::new(config.max_in_flight.clamp(1, Semaphore::MAX_PERMITS));
        Arc::new(Self { requests, bodies: BodyRoom::new(config.max_body_bytes_in_flight) })
    }
}

impl BodyRoom {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Makes a share larger, if there is room.
    pub fn extend(&self, share: &mut Share, bytes: usize) -> Result<(), ApiError> {
        let full = || {
            ApiError::new(ErrorKind::Unavailable, "too many bytes of requests are being read already")
                .retry_after(RETRY_AFTER)
        };
        let bytes = u32::try_from(bytes).map_err(|_| full())?;
        let more = Arc::clone(&self.0).try_acquire_many_owned(bytes).map_err(|_| full())?;
        match &mut share.0 {
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
