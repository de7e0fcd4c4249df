//! Builds what tells callers apart, and what keeps what they did.

use std::sync::Arc;

use anyhow::{Context, bail};

use super::{
    figures,
    keys::{FileKeys, verifier},
    listeners::certificate_rules,
};
use crate::{
    clock::Clock,
    config::{self, AuthMode, Config},
    gateway::{
        audit::Audit,
        auth::{
            Auth, Checks, Known, LimitOverrides, Principal, Scope, Scopes, TenantAccess,
            failures::Failures,
            guard::Guard,
            jwt::{ClaimRules, JwtConfig, JwtVerifier, KeyFile, StandardRules},
            keys::KeyStore,
        },
    },
    telemetry,
};

/// What tells callers apart, and its figures; fetches and re-reads keys from now on.
pub(super) fn auth(
    config: &Config,
    clock: &Arc<dyn Clock>,
    seed: u64,
) -> anyhow::Result<(Arc<Auth>, Vec<telemetry::Source>)> {
    let file = match config.auth.mode {
        AuthMode::None => return Ok((Arc::new(Auth::open()), Vec::new())),
        AuthMode::Token => FileKeys::open(&config.auth.api_keys)?,
    };
    let store = file.as_ref().map(FileKeys::store);
    let auth = Arc::new(Auth::Closed(Box::new(checks(config, store, clock, seed)?)));
    let mut figures = vec![figures::auth::callers(Arc::clone(&auth))];
    if let Some(file) = file {
        figures.push(file.figures());
        file.watch();
    }
    Ok((auth, figures))
}

fn checks(
    config: &Config,
    key_store: Option<Arc<dyn KeyStore>>,
    clock: &Arc<dyn Clock>,
    seed: u64,
) -> anyhow::Result<Checks> {
    let tokens = config.auth.jwt.has_keys().then(|| {
        JwtVerifier::open(&jwt(&config.auth.jwt), Arc::clone(clock))
            .context("cannot verify tokens (auth.jwt)")
    });
    let tokens = tokens.transpose()?;
    if let Some(tokens) = &tokens {
        tokens.start(seed);
    }
    let certificates = certificate_rules(config);
    let proxy_scopes = scopes(&config.auth.proxy_scopes);
    let keys = key_store.map(|store| verifier(store, &config.auth.api_keys, Arc::clone(clock)));
    if tokens.is_none() && keys.is_none() && certificates.is_none() && proxy_scopes.is_empty() {
        bail!(
            "auth.mode is token, and nothing says who may come in: \
             set keys in auth.jwt, or auth.api_keys.file, or auth.client_certificates, or auth.proxy_scopes"
        );
    }
    let header = config.auth.header.as_ref().map(|name| name.parse()).transpose();
    Ok(Checks {
        tokens,
        keys,
        header: header.context("auth.header")?,
        certificates,
        proxies: (!proxy_scopes.is_empty()).then(|| Arc::new(proxy(proxy_scopes))),
        guard: Guard::new(config.auth.max_failures_per_minute, Arc::clone(clock)),
        clock: Arc::clone(clock),
        failures: Failures::default(),
    })
}

/// A proxy that shows nothing and speaks for whom it names.
fn proxy(scopes: Scopes) -> Principal {
    Principal {
        name: "trusted proxy".to_owned(),
        known: Known::TrustedProxy,
        scopes,
        tenants: TenantAccess::any(None),
        stamps: Vec::new(),
        filters: Vec::new(),
        limits: LimitOverrides::default(),
    }
}

/// The scopes of names that were checked.
fn scopes(names: &[String]) -> Scopes {
    names.iter().filter_map(|name| Scope::of_name(name)).collect()
}

/// Which tokens are good, in the gateway's words.
pub(crate) fn jwt(config: &config::Jwt) -> JwtConfig {
    JwtConfig {
        secret: config.secret.clone(),
        secret_file: config.secret_file.clone(),
        secret_algorithms: config.secret_algorithms.clone(),
        keys: config
            .keys
            .iter()
            .map(|key| KeyFile {
                kid: key.kid.clone(),
                path: key.file.clone(),
                algorithms: key.algorithms.clone(),
            })
            .collect(),
        jwks_file: config.jwks_file.clone(),
        jwks_url: config.jwks_url.clone(),
        oidc_issuer: config.oidc_issuer.clone(),
        jwks_algorithms: config.jwks_algorithms.clone(),
        ca_file: config.ca_file.clone(),
        refresh: config.refresh,
        refresh_floor: config.refresh_floor,
        issuer: config.issuer.clone(),
        standard: StandardRules {
            audience: config.audience.clone(),
            typ: config.required_type.clone(),
            leeway: config.leeway,
        },
        claims: ClaimRules {
            tenant: config.tenant_claim.clone(),
            scopes: config.scopes_claim.clone(),
            default_scopes: scopes(&config.default_scopes),
            vm_access: config.vm_access,
        },
        revoked_file: config.revoked_file.clone(),
    }
}

/// What keeps what was denied and changed.
pub(super) fn audit(config: &config::Audit, clock: Arc<dyn Clock>) -> anyhow::Result<Audit> {
    match &config.file {
        None => Ok(Audit::to_log(clock)),
        Some(path) => Audit::to_file(path, config.max_bytes.0, clock)
            .with_context(|| format!("cannot open the audit log {}", path.display())),
    }
}
