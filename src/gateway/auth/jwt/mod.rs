//! JSON Web Tokens: who signed one, whether it is good now, and what it makes of its bearer.
//!
//! ```text
//! token ─▶ known? ([cache]) ──────────────────────────────────────────▶ Principal
//!            │ no                                                          ▲
//!            ▼                                                             │
//!          take apart ([token]) ─▶ key, signature ([ring]) ─▶ claims ([claims])
//!                                     ▲        │ no such key
//!                     [keychain] ─────┘◀───────┘
//! ```
//!
//! Keys come from the configuration ([`key`]), from files ([`watched`]) and from issuers ([`remote`]); which
//! algorithm goes with a key is said there and never by a token. A token is held against its key first, and only then is
//! anything believed that it says. Whatever is missing, of the wrong kind or ambiguous refuses the token.

mod cache;
mod claims;
mod json;
mod jwks;
pub mod key;
mod keychain;
mod local;
pub mod refusal;
mod remote;
mod ring;
pub mod token;
mod watched;

use std::{
    path::PathBuf,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::{Map, Value};

use super::{AuthError, Principal};
use crate::{
    clock::Clock,
    model::{Secret, Timestamp},
    task,
};

use cache::{Fingerprint, Known, TokenCache};
use claims::standard::{self, Times};
use keychain::{Keychain, Missed, Snapshot};
use refusal::{JwtCounters, Reason, Refusal};
use token::Parsed;

pub use claims::{ClaimRules, standard::StandardRules};
pub use remote::check_url;

/// How often files are to be looked at.
pub const FILE_POLL: Duration = Duration::from_secs(5);
/// How soon keys that could not be fetched at all are asked for again, at first.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// A file with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// What tokens call the key.
    pub kid: Option<String>,
    /// A PEM file; or one with a secret, if its algorithms are of that kind.
    pub path: PathBuf,
    /// What the key may be used with.
    pub algorithms: Vec<Algorithm>,
}

/// Which tokens are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtConfig {
    /// A secret that signs.
    pub secret: Option<Secret>,
    /// The same, in a file.
    pub secret_file: Option<PathBuf>,
    /// What the secret may be used with.
    pub secret_algorithms: Vec<Algorithm>,
    /// Keys in files.
    pub keys: Vec<KeyFile>,
    /// A JWK set.
    pub jwks_file: Option<PathBuf>,
    /// Where there is a JWK set.
    pub jwks_url: Option<String>,
    /// An issuer that says where its keys are.
    pub oidc_issuer: Option<String>,
    /// What keys of JWK sets may be used with.
    pub jwks_algorithms: Vec<Algorithm>,
    /// Certificates to trust instead of the system's, when fetching keys.
    pub ca_file: Option<PathBuf>,
    /// How often keys are fetched.
    pub refresh: Duration,
    /// How often at most because a token names one that is not known.
    pub refresh_floor: Duration,
    /// How long a caller waits for keys that are being fetched; fetching goes on without them.
    pub wait: Duration,
    /// Who has to have issued tokens; none is whoever has a key. Those of `oidc_issuer` have to be its own.
    pub issuer: Option<String>,
    /// What is asked of every token.
    pub standard: StandardRules,
    /// What claims make of a bearer.
    pub claims: ClaimRules,
    /// Names of tokens that were taken back, one a line.
    pub revoked_file: Option<PathBuf>,
}

impl Default for JwtConfig {
    fn default() -> Self {
        use Algorithm::{ES256, ES384, EdDSA, HS256, PS256, PS384, PS512, RS256, RS384, RS512};
        Self {
            secret: None,
            secret_file: None,
            secret_algorithms: vec![HS256],
            keys: Vec::new(),
            jwks_file: None,
            jwks_url: None,
            oidc_issuer: None,
            jwks_algorithms: vec![RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA],
            ca_file: None,
            refresh: Duration::from_secs(300),
            refresh_floor: Duration::from_secs(30),
            wait: Duration::from_secs(5),
            issuer: None,
            standard: StandardRules::default(),
            claims: ClaimRules::default(),
            revoked_file: None,
        }
    }
}

/// Why tokens cannot be verified as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JwtSetupError(String);

/// Tells what a token makes of its bearer.
#[derive(Debug)]
pub struct JwtVerifier {
    keychain: Arc<Keychain>,
    standard: StandardRules,
    claims: ClaimRules,
    refresh: Duration,
    floor: Duration,
    cache: TokenCache,
    clock: Arc<dyn Clock>,
    counters: Arc<JwtCounters>,
}

/// A token that is good.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What it makes of its bearer.
    pub principal: Arc<Principal>,
    /// Where the key is from that it was signed with.
    pub key: String,
    /// Until when it is good, the leeway included.
    pub until: Timestamp,
    generation: u64,
}

impl JwtVerifier {
    /// Reads all keys that are here. Those that are published elsewhere are fetched by [`start`](Self::start).
    pub fn open(config: &JwtConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, JwtSetupError> {
        let counters = Arc::new(JwtCounters::default());
        let keychain =
            Keychain::open(config, Arc::clone(&clock), Arc::clone(&counters)).map_err(JwtSetupError)?;
        Ok(Arc::new(Self {
            keychain,
            standard: config.standard.clone(),
            claims: config.claims.clone(),
            refresh: config.refresh,
            floor: config.refresh_floor,
            cache: TokenCache::new(),
            clock,
            counters,
        }))
    }

    /// Fetches keys from now on, until nobody verifies tokens any more. `seed` keeps processes that were started
    /// together from asking together.
    pub fn start(self: &Arc<Self>, seed: u64) {
        if self.keychain.has_remotes() {
            task::spawn("token_keys", keep_fresh(Arc::downgrade(self), seed));
        }
    }

    /// Fetches keys once, and gives for each place how many can be used and what is wrong with the others, or why
    /// they cannot be had. Nothing is held against them.
    pub async fn fetch_once(&self) -> Vec<(String, Result<(usize, Vec<String>), String>)> {
        self.keychain.fetch_once().await
    }

    /// What has become of tokens so far.
    pub fn counters(&self) -> &Arc<JwtCounters> {
        &self.counters
    }

    /// How old the fetched keys are; none if there are none.
    pub fn keys_age(&self) -> Option<Duration> {
        let at = self.counters.fetched_at_ms.load(Ordering::Relaxed);
        let age = self.clock.now().0.saturating_sub(at);
        (at != 0).then(|| Duration::from_millis(u64::try_from(age).unwrap_or(0)))
    }

    /// How many tokens are known to be good, and to be bad.
    pub fn known_tokens(&self) -> (usize, usize) {
        self.cache.len()
    }

    /// Reads all files again that changed; how they stand, if anything is new about them.
    pub fn look_at_files(&self) -> Option<Result<(), String>> {
        let (is_new, standing) = self.keychain.poll_files();
        is_new.then_some(standing)
    }

    /// Reads all files again that changed, or tells which cannot be used.
    pub fn reload_files(&self) -> Result<(), String> {
        self.keychain.poll_files().1
    }

    /// Fetches all published keys.
    pub async fn refresh_keys(&self) {
        if self.keychain.has_remotes() {
            self.keychain.refresh().await;
        }
    }

    /// Tells what a token makes of its bearer.
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, AuthError> {
        if token.len() > token::MAX_BYTES {
            // Before anything is done with each of its bytes.
            return Err(self.refused(Parsed::new(token).err().unwrap_or_else(too_long)));
        }
        let fingerprint = Fingerprint::of(token);
        let (generation, elapsed) = (self.keychain.generation(), self.clock.elapsed());
        match self.cache.get(fingerprint, generation, self.clock.now(), elapsed) {
            Some(Known::Good(principal)) => {
                self.counters.cached.fetch_add(1, Ordering::Relaxed);
                return Ok(principal);
            }
            Some(Known::Bad(refusal)) => {
                self.counters.cached_refusals.fetch_add(1, Ordering::Relaxed);
                return Err(self.refused(refusal));
            }
            None => {}
        }
        match self.examine(token).await {
            Ok(verified) => {
                self.counters.verified.fetch_add(1, Ordering::Relaxed);
                let principal = Arc::clone(&verified.principal);
                self.cache.put_good(fingerprint, verified.principal, verified.until, verified.generation);
                Ok(principal)
            }
            Err(Unverified::Refused(refusal)) => {
                if is_for_long(refusal.reason) {
                    self.cache.put_bad(fingerprint, refusal.clone(), elapsed, generation);
                }
                Err(self.refused(refusal))
            }
            Err(Unverified::Unavailable(why)) => {
                self.counters.unavailable.fetch_add(1, Ordering::Relaxed);
                Err(AuthError::Unavailable(why))
            }
        }
    }

    /// Whether a token was found to be good, and still is.
    pub fn is_known(&self, token: &str) -> bool {
        let known = || {
            let (generation, elapsed) = (self.keychain.generation(), self.clock.elapsed());
            self.cache.get(Fingerprint::of(token), generation, self.clock.now(), elapsed)
        };
        token.len() <= token::MAX_BYTES && matches!(known(), Some(Known::Good(_)))
    }

    fn refused(&self, refusal: Refusal) -> AuthError {
        self.counters.count_refused(refusal.reason);
        refusal.into()
    }

    /// Checks a token from the beginning, whatever is known of it.
    pub async fn examine(&self, token: &str) -> Result<Verified, Unverified> {
        let parsed = Parsed::new(token).map_err(Unverified::Refused)?;
        let snapshot = self.keychain.snapshot();
        let refusal = match self.check(&parsed, &snapshot) {
            Err(refusal) if may_be_unfetched(&refusal, &parsed) && self.keychain.has_remotes() => refusal,
            checked => return checked.map_err(Unverified::Refused),
        };
        let missed = self.keychain.refresh_for_miss().await;
        let snapshot = self.keychain.snapshot();
        match self.check(&parsed, &snapshot) {
            Err(again) if may_be_unfetched(&again, &parsed) => Err(match missed {
                _ if snapshot.incomplete => {
                    Unverified::Unavailable("the keys of tokens were not fetched yet".to_owned())
                }
                Missed::Busy => Unverified::Unavailable("the keys of tokens are being fetched".to_owned()),
                Missed::Refreshed | Missed::TooSoon => Unverified::Refused(refusal),
            }),
            checked => checked.map_err(Unverified::Refused),
        }
    }

    fn check(&self, token: &Parsed<'_>, snapshot: &Snapshot) -> Result<Verified, Refusal> {
        standard::check_type(token.typ.as_deref(), &self.standard)?;
        let key = snapshot.ring.key_of(token)?;
        let claims = token.claims()?;
        let times = Times::of(&claims)?;
        times.check(self.clock.now(), self.standard.leeway)?;
        standard::check_issuer(&claims, key.issuer.as_deref())?;
        standard::check_audience(&claims, &self.standard.audience)?;
        if standard::id(&claims)?.is_some_and(|id| snapshot.revoked.contains(id)) {
            return Err(Refusal::new(Reason::Revoked, "it was taken back"));
        }
        let principal = Arc::new(claims::principal(&claims, &self.claims)?);
        let until = times.end(self.standard.leeway);
        Ok(Verified { principal, key: key.source.clone(), until, generation: snapshot.generation })
    }
}

/// Why a token was not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// It is bad.
    Refused(Refusal),
    /// It cannot be told.
    Unavailable(String),
}

/// What a token says, whether it is true or not.
#[derive(Clone, Debug)]
pub struct Content {
    /// Of itself.
    pub header: Map<String, Value>,
    /// Of its bearer.
    pub claims: Map<String, Value>,
}

/// Reads what a token says, for people to look at.
pub fn unverified_content(token: &str) -> Result<Content, Refusal> {
    let parsed = Parsed::new(token)?;
    let claims = parsed.claims()?;
    Ok(Content { header: parsed.header, claims })
}

/// What claims would make of the bearer of a token that has them.
pub fn principal_of(claims: &Map<String, Value>, rules: &ClaimRules) -> Result<Principal, Refusal> {
    claims::principal(claims, rules)
}

/// Whether a key for it is a secret.
pub fn is_hmac(algorithm: Algorithm) -> bool {
    algorithm.family() == AlgorithmFamily::Hmac
}

fn too_long() -> Refusal {
    Refusal::new(Reason::TooLong, "it is too long")
}

/// Whether a key that was not fetched could change the verdict. Nobody publishes secrets.
fn may_be_unfetched(refusal: &Refusal, token: &Parsed<'_>) -> bool {
    let about_keys = match refusal.reason {
        Reason::UnknownKey => true,
        Reason::Algorithm | Reason::Signature => token.kid.is_none(),
        Reason::Malformed
        | Reason::TooLong
        | Reason::Type
        | Reason::Expired
        | Reason::NotYet
        | Reason::Issuer
        | Reason::Audience
        | Reason::Revoked
        | Reason::Tenant
        | Reason::Scope
        | Reason::Claims => false,
    };
    about_keys && !is_hmac(token.algorithm)
}

/// Whether it took work to see that a token is bad, and a moment later it still is.
fn is_for_long(reason: Reason) -> bool {
    match reason {
        Reason::Signature
        | Reason::Expired
        | Reason::Issuer
        | Reason::Audience
        | Reason::Revoked
        | Reason::Tenant
        | Reason::Scope
        | Reason::Claims => true,
        // No work, or another verdict soon.
        Reason::Malformed
        | Reason::TooLong
        | Reason::Algorithm
        | Reason::UnknownKey
        | Reason::Type
        | Reason::NotYet => false,
    }
}

/// Fetches keys again and again.
async fn keep_fresh(verifier: Weak<JwtVerifier>, seed: u64) {
    loop {
        let wait = {
            let Some(verifier) = verifier.upgrade() else { return };
            verifier.keychain.refresh().await;
            let incomplete = verifier.keychain.snapshot().incomplete;
            next_refresh(verifier.refresh, verifier.floor, verifier.keychain.failures(), incomplete, seed)
        };
        tokio::time::sleep(wait).await;
    }
}

/// When to ask again: after the usual time if all went well, soon if it did not, sooner if there are no keys at all.
fn next_refresh(usual: Duration, floor: Duration, failures: u64, incomplete: bool, seed: u64) -> Duration {
    let wait = if failures == 0 {
        usual
    } else if incomplete {
        let doubled = u32::try_from(failures.saturating_sub(1).min(16)).unwrap_or(16);
        (FIRST_RETRY * 2_u32.pow(doubled)).min(floor)
    } else {
        floor.min(usual)
    };
    // Between nine and eleven tenths, in steps of a thousandth.
    wait * u32::try_from(900 + seed % 201).unwrap_or(1000) / 1000
}

#[cfg(test)]
mod tests;
