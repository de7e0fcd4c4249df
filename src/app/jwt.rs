//! Tokens as the configuration has them, and what is counted of them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    clock::Clock,
    config::Jwt,
    gateway::{
        auth::{
            Scope,
            jwt::{ClaimRules, FILE_POLL, JwtConfig, JwtVerifier, KeyFile, StandardRules, refusal::Reason},
        },
        reload::Reload,
    },
    telemetry::{Figure, Source, as_value},
};

/// What verifies tokens, if there are keys to hold them against. `seed` is unlike that of other processes.
pub fn verifier(config: &Jwt, clock: Arc<dyn Clock>, seed: u64) -> anyhow::Result<Option<Arc<JwtVerifier>>> {
    if !config.has_keys() {
        return Ok(None);
    }
    let verifier = JwtVerifier::open(&self::config(config), clock)?;
    verifier.start(seed);
    Ok(Some(verifier))
}

/// The files of tokens' keys, and of revoked tokens, as something that is read again while we run.
#[derive(Debug)]
pub(super) struct TokenFiles(pub(super) Arc<JwtVerifier>);

#[async_trait]
impl Reload for TokenFiles {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn every(&self) -> Duration {
        FILE_POLL
    }

    async fn reload(self: Arc<Self>) -> Result<(), String> {
        // Reading may take as long as the disk likes.
        let read = tokio::task::spawn_blocking(move || self.0.reload_files()).await;
        read.unwrap_or_else(|stopped| Err(stopped.to_string()))
    }

    async fn look(self: Arc<Self>) -> Option<Result<(), String>> {
        let looked = tokio::task::spawn_blocking(move || self.0.look_at_files()).await;
        looked.unwrap_or_else(|stopped| Some(Err(stopped.to_string())))
    }
}

/// Whether tokens could be verified as configured: reads all files, and asks no issuer.
pub fn check(config: &Jwt, clock: Arc<dyn Clock>) -> anyhow::Result<()> {
    if config.has_keys() {
        JwtVerifier::open(&self::config(config), clock)?;
    }
    Ok(())
}

/// Which tokens are good.
pub(super) fn config(config: &Jwt) -> JwtConfig {
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
            default_scopes: config.default_scopes.iter().filter_map(|name| Scope::of_name(name)).collect(),
            vm_access: config.vm_access,
        },
        revoked_file: config.revoked_file.clone(),
        ..JwtConfig::default()
    }
}

/// Gives the figures of tokens.
pub fn figures(verifier: Arc<JwtVerifier>) -> Source {
    Box::new(move || {
        let c = verifier.counters();
        let read = |counter: &std::sync::atomic::AtomicU64| as_value(counter.load(Ordering::Relaxed));
        let size = |n: usize| as_value(u64::try_from(n).unwrap_or(u64::MAX));
        let (good, bad) = verifier.known_tokens();
        let mut figures = vec![
            Figure::counter(
                "luminate_auth_tokens_verified",
                "Tokens whose signature was verified",
                read(&c.verified),
            ),
            Figure::counter(
                "luminate_auth_tokens_recognised",
                "Tokens that were known to be good",
                read(&c.cached),
            ),
            Figure::counter(
                "luminate_auth_tokens_recognised_bad",
                "Tokens that were known to be bad",
                read(&c.cached_refusals),
            ),
            Figure::counter(
                "luminate_auth_tokens_undecided",
                "Tokens that could not be checked for want of keys",
                read(&c.unavailable),
            ),
        ];
        figures.extend(Reason::ALL.into_iter().map(|reason| {
            Figure::counter(
                "luminate_auth_tokens_refused",
                "Tokens that were refused",
                as_value(c.refused(reason)),
            )
            .with("reason", reason.as_str())
        }));
        for (result, counter) in [("ok", &c.refreshes), ("failed", &c.failed_refreshes)] {
            let fetched =
                Figure::counter("luminate_auth_token_key_fetches", "Fetches of tokens' keys", read(counter));
            figures.push(fetched.with("result", result));
        }
        for (result, counter) in [("ok", &c.file_reloads), ("failed", &c.failed_file_reloads)] {
            let help = "Files of tokens' keys, or of revoked tokens, that changed";
            figures.push(
                Figure::counter("luminate_auth_token_file_reloads", help, read(counter))
                    .with("result", result),
            );
        }
        figures.push(Figure::gauge(
            "luminate_auth_token_keys",
            "Keys that tokens are held against",
            read(&c.keys),
        ));
        figures.push(Figure::gauge("luminate_auth_known_tokens", "Tokens known to be good", size(good)));
        figures.push(Figure::gauge("luminate_auth_known_bad_tokens", "Tokens known to be bad", size(bad)));
        if let Some(age) = verifier.keys_age() {
            let help = "Since keys were last fetched";
            figures.push(Figure::gauge("luminate_auth_token_keys_age_seconds", help, age.as_secs_f64()));
        }
        figures
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::HandClock,
        config::{Config, ConfigFile, Sources},
        model::Timestamp,
    };

    fn jwt(yaml: &str) -> Jwt {
        let file = ConfigFile::parse("luminate.yaml", yaml).unwrap();
        Config::check(&Sources { file, ..Sources::none() }).unwrap().0.auth.jwt
    }

    #[test]
    fn the_defaults_are_those_of_the_verifier() {
        assert_eq!(config(&jwt("")), JwtConfig::default());
    }

    #[tokio::test]
    async fn there_is_a_verifier_if_there_are_keys_and_they_are_good() {
        let clock: Arc<dyn Clock> = HandClock::at(Timestamp(0));
        assert!(verifier(&jwt(""), Arc::clone(&clock), 0).unwrap().is_none());
        let secret = "{mode: token, jwt: {secret: \"kH8s1vVxQe0Zt3Wq9LrNb7MyUc5Df2a+\"}}";
        let some = verifier(&jwt(&format!("auth: {secret}")), Arc::clone(&clock), 0).unwrap().unwrap();
        let figures = figures(some)();
        assert!(figures.iter().all(|figure| figure.name.starts_with("luminate_auth_")));
        let missing = jwt("auth: {mode: token, jwt: {secret_file: /nowhere/secret}}");
        let error = verifier(&missing, clock, 0).unwrap_err().to_string();
        assert!(error.starts_with("auth.jwt.secret_file: /nowhere/secret cannot be read"), "{error}");
    }
}
