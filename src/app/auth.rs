//! Builds what tells callers apart, and what keeps what they did.

use std::sync::Arc;

use anyhow::{Context, bail};
use axum::http::HeaderName;

use super::{
    figures, jwt,
    keys::{self, FileKeys},
    listeners::certificate_rules,
    redis,
};
use crate::{
    clock::Clock,
    config::{self, AuthMode, Config},
    gateway::{
        audit::Audit,
        auth::{
            Auth, Checks, Known, LimitOverrides, Principal, Scope, Scopes, TenantAccess, failures::Failures,
            guard::Guard,
        },
        redis::RedisLink,
        reload::Reload,
    },
    telemetry,
};

/// What tells callers apart.
pub(super) struct Callers {
    pub(super) auth: Auth,
    pub(super) figures: Vec<telemetry::Source>,
    /// What of it is read again while we run.
    pub(super) reloads: Vec<Arc<dyn Reload>>,
}

/// What tells callers apart; published keys are fetched from now on.
pub(super) fn callers(
    config: &Config,
    clock: &Arc<dyn Clock>,
    seed: u64,
    link: Option<&Arc<RedisLink>>,
) -> anyhow::Result<Callers> {
    let mut callers = Callers { auth: Auth::open(), figures: Vec::new(), reloads: Vec::new() };
    match config.auth.mode {
        AuthMode::None => {}
        AuthMode::Token => {
            let checks = checks(config, clock, seed, link, &mut callers)?;
            callers.auth = Auth::Closed(Box::new(checks));
        }
    }
    Ok(callers)
}

fn checks(
    config: &Config,
    clock: &Arc<dyn Clock>,
    seed: u64,
    link: Option<&Arc<RedisLink>>,
    callers: &mut Callers,
) -> anyhow::Result<Checks> {
    let auth = &config.auth;
    let tokens =
        jwt::verifier(&auth.jwt, Arc::clone(clock), seed).context("cannot verify tokens (auth.jwt)")?;
    callers.figures.extend(tokens.clone().map(jwt::figures));
    callers.reloads.extend(tokens.clone().map(|tokens| Arc::new(jwt::TokenFiles(tokens)) as Arc<dyn Reload>));
    let file = FileKeys::open(&auth.api_keys).context("cannot read API keys (auth.api_keys.file)")?;
    let keys = file.map(|file| {
        callers.figures.push(file.figures());
        callers.reloads.push(file.reload());
        keys::verifier(file.store(), keys::rules(config), Arc::clone(clock))
    });
    let in_redis = redis::key_store(&config.redis, link);
    let keys = keys.or_else(|| Some(keys::verifier(in_redis?, keys::rules(config), Arc::clone(clock))));
    callers.figures.extend(keys.clone().map(figures::auth::keys));
    let guard = Arc::new(Guard::new(auth.max_failures_per_minute, Arc::clone(clock)));
    let failures = Arc::new(Failures::default());
    callers.figures.push(figures::auth::callers(Arc::clone(&failures), Arc::clone(&guard)));
    let certificates = certificate_rules(config);
    let proxy_scopes: Scopes = auth.proxy_scopes.iter().filter_map(|name| Scope::of_name(name)).collect();
    if tokens.is_none() && keys.is_none() && certificates.is_none() && proxy_scopes.is_empty() {
        bail!(
            "auth.mode is token, and nothing says who may come in: \
             set keys in auth.jwt, auth.api_keys, redis.key_store, auth.client_certificates or auth.proxy_scopes"
        );
    }
    Ok(Checks {
        tokens,
        keys,
        header: auth.header.as_deref().map(HeaderName::try_from).transpose().context("auth.header")?,
        certificates,
        proxies: (!proxy_scopes.is_empty()).then(|| Arc::new(proxy(proxy_scopes))),
        guard,
        clock: Arc::clone(clock),
        failures,
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

/// What keeps what was denied and changed.
pub(super) fn audit(config: &config::Audit, clock: Arc<dyn Clock>) -> anyhow::Result<Audit> {
    match &config.file {
        None => Ok(Audit::to_log(clock)),
        Some(path) => Audit::to_file(path, config.max_bytes.0, clock)
            .with_context(|| format!("cannot open the audit log {}", path.display())),
    }
}
