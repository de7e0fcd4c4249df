//! Tokens for the command line: signed, and explained.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto};
use serde_json::{Map, Value, json};

use super::jwt;
use crate::{
    clock::Clock,
    config::Jwt,
    gateway::auth::{
        Principal, Scope, TenantPattern,
        jwt::{
            self as tokens, ClaimRules, JwtConfig, JwtVerifier, KeyFile, Unverified,
            key::{Key, without_newline},
        },
    },
    model::{Limit, Timestamp, secret::weakness_of_signing_secret},
};

/// No file with a key is larger.
const MAX_KEY_BYTES: u64 = 64 << 10;

/// Which key a command is about.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// The secret in this file.
    SecretFile(PathBuf),
    /// The key in this PEM file.
    KeyFile(PathBuf),
    /// What the configuration says.
    Config(Box<Jwt>),
}

/// What a new token says.
#[derive(Clone, Debug, Default)]
pub struct NewToken {
    /// The algorithm; none is the usual one of the key.
    pub algorithm: Option<Algorithm>,
    /// The name of the key.
    pub kid: Option<String>,
    /// Tenants or patterns; the first is for requests that name none.
    pub tenants: Vec<String>,
    /// What its bearer may do.
    pub scopes: Vec<String>,
    /// How long it is good.
    pub expires: Duration,
    /// Labels that are stamped on writes.
    pub labels: BTreeMap<String, String>,
    /// Selectors, one of which must match what is read.
    pub filters: Vec<String>,
    /// Limits by name.
    pub limits: BTreeMap<String, String>,
    /// Whom it is for.
    pub audience: Vec<String>,
    /// Who issues it.
    pub issuer: Option<String>,
    /// Who its bearer is.
    pub subject: Option<String>,
    /// Its name, by which it can be taken back.
    pub id: String,
}

/// Signs a token, unless we would not take it ourselves.
pub fn create(source: &KeySource, token: &NewToken, now: Timestamp) -> anyhow::Result<String> {
    let (key, usual) = signing_key(source)?;
    let algorithm = token.algorithm.unwrap_or(usual);
    let claims = claims(source, token, now)?;
    tokens::principal_of(&claims, &ClaimRules::default())
        .map_err(|refusal| anyhow::anyhow!("such a token is not taken: {}", refusal.detail))?;
    let mut header = Header::new(algorithm);
    header.kid = token.kid.clone();
    let signed = jsonwebtoken::encode(&header, &claims, &key)
        .map_err(|_| anyhow::anyhow!("the key does not go with {algorithm:?}"))?;
    if signed.len() > tokens::token::MAX_BYTES {
        bail!(
            "it would have {} bytes, more than the {} that are taken",
            signed.len(),
            tokens::token::MAX_BYTES
        );
    }
    Ok(signed)
}

fn claims(source: &KeySource, token: &NewToken, now: Timestamp) -> anyhow::Result<Map<String, Value>> {
    let seconds = now.millis().div_euclid(1000);
    let lifetime = i64::try_from(token.expires.as_secs()).unwrap_or(i64::MAX);
    let exp = seconds.saturating_add(lifetime);
    // The year 9999, after which no date is read.
    if exp > 253_402_300_799 {
        bail!("nothing is good for so long");
    }
    let mut claims = Map::new();
    claims.insert("iat".to_owned(), seconds.into());
    claims.insert("exp".to_owned(), exp.into());
    claims.insert("jti".to_owned(), token.id.clone().into());
    if let Some(subject) = &token.subject {
        claims.insert("sub".to_owned(), subject.clone().into());
    }
    // What the server will ask for is what its configuration says.
    let (mut issuer, mut audience) = (token.issuer.clone(), token.audience.clone());
    if let KeySource::Config(config) = source {
        issuer = issuer.or_else(|| config.issuer.clone());
        if audience.is_empty() {
            audience.extend(config.audience.first().cloned());
        }
    }
    if let Some(issuer) = issuer {
        claims.insert("iss".to_owned(), issuer.into());
    }
    match &audience[..] {
        [] => {}
        [one] => drop(claims.insert("aud".to_owned(), one.clone().into())),
        more => drop(claims.insert("aud".to_owned(), more.into())),
    }
    let mut ours = Map::new();
    // Our own claim is read wherever a server looks for tenants and scopes otherwise.
    match &token.tenants[..] {
        [one] if !one.ends_with('*') => drop(ours.insert("tenant".to_owned(), one.clone().into())),
        tenants => drop(ours.insert("tenants".to_owned(), tenants.into())),
    }
    if let Some(unknown) = token.scopes.iter().find(|name| Scope::of_name(name).is_none()) {
        let names = Scope::ALL.map(Scope::as_str).join(", ");
        bail!("{unknown:?} is not a scope, only {names} are");
    }
    ours.insert("scopes".to_owned(), token.scopes.clone().into());
    if !token.labels.is_empty() {
        ours.insert("labels".to_owned(), json!(token.labels));
    }
    if !token.filters.is_empty() {
        ours.insert("filters".to_owned(), token.filters.clone().into());
    }
    if !token.limits.is_empty() {
        ours.insert("limits".to_owned(), json!(token.limits));
    }
    claims.insert("luminate".to_owned(), Value::Object(ours));
    Ok(claims)
}

/// The key to sign with, and what it is usually used with.
fn signing_key(source: &KeySource) -> anyhow::Result<(EncodingKey, Algorithm)> {
    let (secret, name, algorithm) = match source {
        KeySource::KeyFile(path) => return private_key(path),
        KeySource::SecretFile(path) => (read(path)?, path.display().to_string(), Algorithm::HS256),
        KeySource::Config(config) => {
            let algorithm = config.secret_algorithms.first().copied().unwrap_or(Algorithm::HS256);
            match (&config.secret, &config.secret_file) {
                (Some(secret), _) => (secret.0.clone().into_bytes(), "auth.jwt.secret".to_owned(), algorithm),
                (None, Some(path)) => (read(path)?, path.display().to_string(), algorithm),
                (None, None) => bail!(
                    "there is no key to sign with: give --secret-file or --key-file, or set auth.jwt.secret or \
                     auth.jwt.secret_file"
                ),
            }
        }
    };
    let secret = without_newline(&secret);
    if let Some(weakness) = weakness_of_signing_secret(secret) {
        bail!("{name} {weakness}");
    }
    Ok((EncodingKey::from_secret(secret), algorithm))
}

fn private_key(path: &Path) -> anyhow::Result<(EncodingKey, Algorithm)> {
    let pem = read(path)?;
    if let Ok(key) = EncodingKey::from_ed_pem(&pem) {
        return Ok((key, Algorithm::EdDSA));
    }
    if let Ok(key) = EncodingKey::from_ec_pem(&pem) {
        let curve = [Algorithm::ES256, Algorithm::ES384];
        let fits = curve.into_iter().find(|algorithm| crypto::sign(b"", &key, *algorithm).is_ok());
        return fits.map(|algorithm| (key, algorithm)).with_context(|| {
            format!("{} holds a key of another curve than P-256 and P-384", path.display())
        });
    }
    let rsa =
        EncodingKey::from_rsa_pem(&pem).ok().filter(|key| crypto::sign(b"", key, Algorithm::RS256).is_ok());
    rsa.map(|key| (key, Algorithm::RS256)).with_context(|| {
        format!(
            "{} holds no private key that can be read; it takes RSA, EC or Ed25519 in PKCS#8 (`openssl pkcs8 -topk8 \
             -nocrypt` converts others)",
            path.display()
        )
    })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    let open = fs::File::open(path).and_then(|file| file.take(MAX_KEY_BYTES + 1).read_to_end(&mut content));
    open.with_context(|| format!("cannot read {}", path.display()))?;
    if content.len() as u64 > MAX_KEY_BYTES {
        bail!("{} is larger than {MAX_KEY_BYTES} bytes", path.display());
    }
    Ok(content)
}

/// What there is to say about a token.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Its header.
    pub header: Value,
    /// Its claims.
    pub claims: Value,
    /// Whether it is good.
    pub verdict: Verdict,
    /// What it makes, or would make, of its bearer; or why it makes nothing.
    pub bearer: Result<Vec<(&'static str, String)>, String>,
}

/// Whether a token is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is, by this key, and until then.
    Good {
        /// Where the key is from.
        key: String,
        /// Until when.
        until: Timestamp,
    },
    /// It is not.
    Bad(String),
    /// There are no keys to hold it against.
    NoKeys,
}

/// Explains a token; an error is that it cannot even be read, or that the keys cannot.
pub async fn inspect(source: &KeySource, token: &str, clock: Arc<dyn Clock>) -> anyhow::Result<Inspection> {
    let tokens::Content { header, claims } = tokens::unverified_content(token)
        .map_err(|refusal| anyhow::anyhow!("it is no token: {}", refusal.detail))?;
    let config = match source {
        KeySource::Config(config) if !config.has_keys() => None,
        KeySource::Config(config) => Some(jwt::config(config)),
        KeySource::SecretFile(path) => Some(JwtConfig {
            secret_file: Some(path.clone()),
            secret_algorithms: vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
            ..JwtConfig::default()
        }),
        KeySource::KeyFile(path) => Some(JwtConfig {
            keys: vec![KeyFile { kid: None, path: path.clone(), algorithms: algorithms_of(path)? }],
            ..JwtConfig::default()
        }),
    };
    let rules = match (&config, source) {
        (Some(config), _) => config.claims.clone(),
        (None, KeySource::Config(config)) => jwt::config(config).claims,
        (None, KeySource::SecretFile(_) | KeySource::KeyFile(_)) => ClaimRules::default(),
    };
    let would_be = tokens::principal_of(&claims, &rules).map(|bearer| told(&bearer)).map_err(|no| no.detail);
    let (verdict, bearer) = match config {
        None => (Verdict::NoKeys, would_be),
        Some(config) => {
            let verifier = JwtVerifier::open(&config, clock)?;
            verifier.refresh_keys().await;
            match verifier.examine(token).await {
                Ok(good) => {
                    let bearer = told(&good.principal);
                    (Verdict::Good { key: good.key, until: good.until }, Ok(bearer))
                }
                Err(Unverified::Refused(refusal)) => (Verdict::Bad(refusal.detail), would_be),
                Err(Unverified::Unavailable(why)) => (Verdict::Bad(why), would_be),
            }
        }
    };
    Ok(Inspection { header: Value::Object(header), claims: Value::Object(claims), verdict, bearer })
}

/// What the public key of a file can be used with.
fn algorithms_of(path: &Path) -> anyhow::Result<Vec<Algorithm>> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let pem = read(path)?;
    let kinds: [&[Algorithm]; 4] =
        [&[RS256, RS384, RS512, PS256, PS384, PS512], &[ES256], &[ES384], &[EdDSA]];
    let fits = kinds.into_iter().find(|algorithms| Key::of_pem(&pem, None, algorithms).is_ok());
    match (fits, Key::of_pem(&pem, None, &[RS256])) {
        (Some(algorithms), _) => Ok(algorithms.to_vec()),
        (None, Err(wrong)) => bail!("{} {wrong}", path.display()),
        (None, Ok(_)) => bail!("{} cannot be used", path.display()),
    }
}

/// A bearer in lines for people.
fn told(bearer: &Principal) -> Vec<(&'static str, String)> {
    let mut lines = vec![("name", bearer.name.clone())];
    let scopes: Vec<&str> =
        Scope::ALL.into_iter().filter(|scope| bearer.scopes.allow(*scope)).map(Scope::as_str).collect();
    lines.push(("may", scopes.join(", ")));
    if let Some(default) = &bearer.tenants.default {
        lines.push(("tenant", default.to_string()));
    }
    let others: Vec<String> = bearer
        .tenants
        .others
        .iter()
        .map(|pattern| match pattern {
            TenantPattern::One(tenant) => tenant.to_string(),
            TenantPattern::Prefix(prefix) => format!("{prefix}*"),
        })
        .collect();
    if !others.is_empty() {
        lines.push(("tenants", format!("{}, if a request names them", others.join(", "))));
    }
    for (name, value) in &bearer.stamps {
        lines.push(("label", format!("{name}={value:?} on writes")));
    }
    for filter in &bearer.filters {
        let matchers: Vec<String> = filter.iter().map(ToString::to_string).collect();
        lines.push(("filter", format!("{{{}}}", matchers.join(","))));
    }
    if let Value::Object(limits) = bearer.limits.to_json() {
        for (name, value) in limits {
            // A name that is no limit's says how limits are told.
            let what = if Limit::of_name(&name).is_some() { "limit" } else { "limits" };
            lines.push((what, format!("{name}={value}")));
        }
    }
    lines
}
