//! Who is calling.
//!
//! [`Auth`] is asked once for each request, before anything of it is read but its head. What it answers, a
//! [`Principal`], is all the rest of the gateway knows of tokens, keys and certificates.

pub mod certificate;
pub mod credential;
pub mod grant;
pub mod guard;
pub mod jwt;
pub mod keys;
pub mod principal;

use std::{sync::Arc, time::Duration};

use axum::http::HeaderMap;

use super::peer::Peer;

pub use super::limit::overrides::LimitOverrides;
pub use principal::{Known, Principal, Scope, Scopes, TenantAccess, TenantPattern};

/// Why a caller is not let in. What they are told is the same for all of these but [`Unavailable`](Self::Unavailable);
/// the reason is for the log and the counters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// They showed nothing.
    #[error("no credentials")]
    Missing,
    /// What they showed will not do.
    #[error("{reason}: {detail}")]
    Refused {
        /// A short name for counters.
        reason: &'static str,
        /// More, for the log; never a secret.
        detail: String,
    },
    /// What they showed cannot be checked now.
    #[error("cannot be checked now: {0}")]
    Unavailable(String),
    /// Too much of what came from their address will not do, so that this was not looked at.
    #[error("too many bad credentials from this address")]
    TooManyFailures {
        /// When the next one will be.
        retry_after: Duration,
    },
}

/// Tells who is calling.
#[derive(Debug)]
pub enum Auth {
    /// Nobody is asked.
    Open(Arc<Principal>),
}

impl Auth {
    /// Nobody is asked.
    pub fn open() -> Self {
        Self::Open(Arc::new(Principal::anyone()))
    }

    /// Finds out who sent a request with these headers.
    pub async fn authenticate(
        &self,
        _headers: &HeaderMap,
        _peer: &Peer,
    ) -> Result<Arc<Principal>, AuthError> {
        match self {
            Self::Open(anyone) => Ok(Arc::clone(anyone)),
        }
    }
}
