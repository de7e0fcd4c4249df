//! Who is calling.
//!
//! [`Auth`] is asked once for each request, before anything of it is read but its head. What it answers, a
//! [`Principal`], is all the rest of the gateway knows of tokens, keys and certificates.
//!
//! * [`credential`]: what a request shows; [`jwt`], [`keys`] and [`certificate`]: who that is.
//! * [`grant`]: what credentials let their holders do, from text to types.
//! * [`guard`]: slows down who tries credentials out; [`failures`]: who was not let in, and why.

pub mod certificate;
pub mod credential;
pub mod failures;
pub mod grant;
pub mod guard;
pub mod jwt;
pub mod keys;
pub mod principal;

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName};

use super::peer::Peer;
use crate::clock::Clock;

use certificate::CertificateRules;
use credential::Credential;
use failures::Failures;
use guard::Guard;
use jwt::JwtVerifier;
use keys::ApiKeys;

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
    /// Everybody is asked, and whoever cannot say is turned away.
    Closed(Box<Checks>),
}

/// What is looked at, in this order: a token or key in a header, the connection's certificate, whether a trusted proxy
/// speaks. What is not configured is not looked at.
#[derive(Debug)]
pub struct Checks {
    /// Tells what a token makes of its bearer.
    pub tokens: Option<Arc<JwtVerifier>>,
    /// Tells who holds a key.
    pub keys: Option<Arc<ApiKeys>>,
    /// Another header that may carry a token or key.
    pub header: Option<HeaderName>,
    /// What holders of verified certificates may do.
    pub certificates: Option<CertificateRules>,
    /// What trusted proxies may do that show nothing, for the tenant they name.
    pub proxies: Option<Arc<Principal>>,
    /// Slows down who guesses.
    pub guard: Arc<Guard>,
    /// Tells which certificates have ended.
    pub clock: Arc<dyn Clock>,
    /// Who was not let in.
    pub failures: Arc<Failures>,
}

impl Auth {
    /// Nobody is asked.
    pub fn open() -> Self {
        Self::Open(Arc::new(Principal::anyone()))
    }

    /// What is looked at; none if nobody is asked.
    pub fn checks(&self) -> Option<&Checks> {
        match self {
            Self::Open(_) => None,
            Self::Closed(checks) => Some(checks),
        }
    }

    /// Finds out who sent a request with these headers.
    pub async fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<Arc<Principal>, AuthError> {
        match self {
            Self::Open(anyone) => Ok(Arc::clone(anyone)),
            Self::Closed(checks) => {
                let found = checks.authenticate(headers, peer).await;
                found.inspect_err(|error| checks.failures.count(error))
            }
        }
    }
}

impl Checks {
    async fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<Arc<Principal>, AuthError> {
        match credential::of(headers, self.header.as_ref())? {
            Some(credential) => {
                let checked = self.check(&credential, peer).await;
                if matches!(checked, Err(AuthError::Refused { .. })) {
                    self.guard.refused(peer.client, &credential.text().0);
                }
                checked
            }
            None => self.known_by_connection(peer),
        }
    }

    /// Who shows this; one that is known to be good is never asked to wait for others from the same address.
    async fn check(&self, credential: &Credential, peer: &Peer) -> Result<Arc<Principal>, AuthError> {
        let may_try = self.guard.check(peer.client);
        let wait = |known: bool| match may_try {
            Err(retry_after) if !known => Err(AuthError::TooManyFailures { retry_after }),
            Err(_) | Ok(()) => Ok(()),
        };
        let not_taken =
            |what: &str| AuthError::Refused { reason: "not_taken", detail: format!("{what} are not taken") };
        match credential {
            Credential::ApiKey(key) => {
                let keys = self.keys.as_ref().ok_or_else(|| not_taken("API keys"))?;
                wait(may_try.is_ok() || keys.is_known(&key.0))?;
                keys.verify(&key.0).await
            }
            Credential::Token(token) => {
                let tokens = self.tokens.as_ref().ok_or_else(|| not_taken("tokens"))?;
                wait(may_try.is_ok() || tokens.is_known(&token.0))?;
                tokens.verify(&token.0).await
            }
        }
    }

    /// Who sends without showing anything: the holder of a certificate, or a proxy that is trusted.
    fn known_by_connection(&self, peer: &Peer) -> Result<Arc<Principal>, AuthError> {
        if let (Some(rules), Some(certificate)) = (&self.certificates, &peer.certificate) {
            return certificate::principal(certificate, rules, self.clock.now()).map(Arc::new);
        }
        match &self.proxies {
            Some(proxy) if peer.trusted_proxy => Ok(Arc::clone(proxy)),
            Some(_) | None => Err(AuthError::Missing),
        }
    }
}
