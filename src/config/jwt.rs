//! Which tokens are good.

use std::{path::PathBuf, time::Duration};

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_yaml::Value;

use super::{
    auth::scopes,
    parse::{at_least, boolean, duration, file, kind, list, text},
    reader::Reader,
    value::format_duration,
};
use crate::model::{Secret, secret::weakness_of_signing_secret};

/// Which tokens are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// The secret that signs them.
    pub secret: Option<Secret>,
    /// The file with that secret.
    pub secret_file: Option<PathBuf>,
    /// What the secret may be used with.
    pub secret_algorithms: Vec<Algorithm>,
    /// Keys in files.
    pub keys: Vec<JwtKey>,
    /// A file with a JWK set.
    pub jwks_file: Option<PathBuf>,
    /// Where there is a JWK set.
    pub jwks_url: Option<String>,
    /// An issuer that says by OpenID Connect where its keys are.
    pub oidc_issuer: Option<String>,
    /// What keys of JWK sets may be used with.
    pub jwks_algorithms: Vec<Algorithm>,
    /// Certificates to trust instead of the system's, when fetching keys.
    pub ca_file: Option<PathBuf>,
    /// How often keys are fetched.
    pub refresh: Duration,
    /// How often at most because a token names one that is not known.
    pub refresh_floor: Duration,
    /// Who has to have issued tokens.
    pub issuer: Option<String>,
    /// Whom they have to be for.
    pub audience: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// What `typ` in their headers has to say.
    pub required_type: Option<String>,
    /// The claim that names the tenant.
    pub tenant_claim: String,
    /// The claim that lists scopes.
    pub scopes_claim: String,
    /// Scopes of tokens that list none: their names.
    pub default_scopes: Vec<String>,
    /// Whether VictoriaMetrics' claim is understood.
    pub vm_access: bool,
    /// A file with the names of tokens that were taken back.
    pub revoked_file: Option<PathBuf>,
}

/// A key in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtKey {
    /// What tokens call it.
    pub kid: Option<String>,
    /// A PEM file; or one with a secret, if the algorithms are of that kind.
    pub file: PathBuf,
    /// What it may be used with.
    pub algorithms: Vec<Algorithm>,
}

impl Jwt {
    /// Whether there are keys to hold tokens against.
    pub fn has_keys(&self) -> bool {
        self.has_own_keys() || self.oidc_issuer.is_some()
    }

    /// Whether there are any beside those of an issuer that is discovered.
    fn has_own_keys(&self) -> bool {
        self.secret.is_some()
            || self.secret_file.is_some()
            || !self.keys.is_empty()
            || self.jwks_file.is_some()
            || self.jwks_url.is_some()
    }
}

/// Reads the section.
pub(super) fn jwt(keys: &mut Reader<'_>) -> Jwt {
    let jwt = Jwt {
        secret: keys.get_secret("auth.jwt.secret"),
        secret_file: keys.get("auth.jwt.secret_file", "\"\"", file),
        secret_algorithms: keys.get("auth.jwt.secret_algorithms", "[HS256]", |v| {
            algorithms(
                &list(v)?,
                |algorithm| algorithm.family() == AlgorithmFamily::Hmac,
                "HS256, HS384 or HS512",
            )
        }),
        keys: keys.get("auth.jwt.keys", "[]", key_files),
        jwks_file: keys.get("auth.jwt.jwks_file", "\"\"", file),
        jwks_url: keys.get("auth.jwt.jwks_url", "\"\"", url),
        oidc_issuer: keys.get("auth.jwt.oidc_issuer", "\"\"", url),
        jwks_algorithms: keys.get(
            "auth.jwt.jwks_algorithms",
            "[RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA]",
            |v| {
                let public = |algorithm: Algorithm| algorithm.family() != AlgorithmFamily::Hmac;
                algorithms(&list(v)?, public, "an algorithm of public keys")
            },
        ),
        ca_file: keys.get("auth.jwt.ca_file", "\"\"", file),
        refresh: keys.get("auth.jwt.refresh", "5m", at_least(Duration::from_secs(1))),
        refresh_floor: keys.get("auth.jwt.refresh_floor", "30s", at_least(Duration::from_secs(1))),
        issuer: keys.get("auth.jwt.issuer", "\"\"", optional),
        audience: keys.get("auth.jwt.audience", "[]", names),
        leeway: keys.get("auth.jwt.leeway", "30s", leeway),
        required_type: keys.get("auth.jwt.required_type", "\"\"", optional),
        tenant_claim: keys.get("auth.jwt.claims.tenant", "tenant", claim),
        scopes_claim: keys.get("auth.jwt.claims.scopes", "scope", claim),
        default_scopes: keys.get("auth.jwt.default_scopes", "[]", scopes),
        vm_access: keys.get("auth.jwt.vm_access", "false", boolean),
        revoked_file: keys.get("auth.jwt.revoked_file", "\"\"", file),
    };
    refuse_what_does_not_go_together(&jwt, keys);
    jwt
}

fn refuse_what_does_not_go_together(jwt: &Jwt, keys: &mut Reader<'_>) {
    if jwt.secret.is_some() && jwt.secret_file.is_some() {
        let message = "is set, and auth.jwt.secret too; only one of them can be the secret. For a second one use \
                       auth.jwt.keys";
        keys.refuse("auth.jwt.secret_file", message);
    }
    let secret = jwt.secret.as_ref().map(|secret| secret.0.strip_suffix('\n').unwrap_or(&secret.0));
    if let Some(weakness) = secret.and_then(|secret| weakness_of_signing_secret(secret.as_bytes())) {
        keys.refuse("auth.jwt.secret", weakness);
    }
    if let (Some(issuer), Some(oidc)) = (&jwt.issuer, &jwt.oidc_issuer)
        && issuer != oidc
        && !jwt.has_own_keys()
    {
        let message = format!("is about no key: tokens of auth.jwt.oidc_issuer have to be issued by {oidc}");
        keys.refuse("auth.jwt.issuer", message);
    }
    if jwt.ca_file.is_some() && jwt.jwks_url.is_none() && jwt.oidc_issuer.is_none() {
        keys.refuse("auth.jwt.ca_file", "is set, but no keys are fetched");
    }
}

/// A list of keys, each with its file and its algorithms; from a variable, the same in YAML's short form.
fn key_files(value: &Value) -> Result<Vec<JwtKey>, String> {
    const EXAMPLE: &str = "[{kid: a, file: a.pem, algorithms: [RS256]}]";
    const MOST: usize = 64;
    let parsed: Value;
    let items = match value {
        Value::Sequence(items) => items,
        Value::String(text) => {
            parsed = serde_yaml::from_str(text)
                .map_err(|_| format!("takes a list, write for example {EXAMPLE}"))?;
            parsed.as_sequence().ok_or_else(|| format!("takes a list, write for example {EXAMPLE}"))?
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Mapping(_) | Value::Tagged(_) => {
            return Err(format!("takes a list, not {}", kind(value)));
        }
    };
    if items.len() > MOST {
        return Err(format!("has more than {MOST} keys; use a JWK set"));
    }
    let mut keys: Vec<JwtKey> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let key = key_file(item).map_err(|wrong| format!("key {} {wrong}", i + 1))?;
        if let Some(kid) = &key.kid
            && keys.iter().any(|other| other.kid.as_ref() == Some(kid))
        {
            return Err(format!("key {} has the kid {kid:?} of another one", i + 1));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn key_file(value: &Value) -> Result<JwtKey, String> {
    let entry = value.as_mapping().ok_or_else(|| format!("is {}, not a mapping", kind(value)))?;
    let (mut kid, mut path, mut named) = (None, None, None);
    for (name, value) in entry {
        let about = |wrong: String| format!("has a {} that {wrong}", name.as_str().unwrap_or_default());
        match name.as_str() {
            Some("kid") => {
                let text = text(value).map_err(about)?;
                if text.is_empty() || text.len() > 1024 {
                    return Err("has a kid that is empty or longer than 1024 bytes".to_owned());
                }
                kid = Some(text.to_owned());
            }
            Some("file") => path = file(value).map_err(about)?,
            Some("algorithms") => named = Some(algorithms(&list(value)?, |_| true, "")?),
            Some(_) | None => return Err("has something else than kid, file and algorithms".to_owned()),
        }
    }
    let file = path.ok_or("names no file")?;
    let algorithms = named.ok_or("has no algorithms; nothing but them says what it may be used with")?;
    let family = algorithms[0].family();
    if let Some(other) = algorithms.iter().find(|algorithm| algorithm.family() != family) {
        return Err(format!("is for {:?} and {other:?}, which no key is", algorithms[0]));
    }
    Ok(JwtKey { kid, file, algorithms })
}

fn algorithms(
    names: &[String],
    fits: impl Fn(Algorithm) -> bool,
    which: &str,
) -> Result<Vec<Algorithm>, String> {
    if names.is_empty() {
        return Err("must name an algorithm".to_owned());
    }
    let mut algorithms = Vec::new();
    for name in names {
        let algorithm: Algorithm = name.parse().map_err(|_| {
            format!(
                "{name:?} is not one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, \
                 EdDSA"
            )
        })?;
        if !fits(algorithm) {
            return Err(format!("{name} is not {which}"));
        }
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    Ok(algorithms)
}

/// A URL that keys can be fetched from; whether its host may be asked is checked when it is.
fn url(value: &Value) -> Result<Option<String>, String> {
    let url = text(value)?;
    if url.is_empty() {
        return Ok(None);
    }
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest =
        rest.ok_or_else(|| format!("{url:?} is not a URL, write for example https://id.example.com"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("holds a user".to_owned());
    }
    if authority.is_empty() || url.contains(char::is_whitespace) {
        return Err(format!("{url:?} is not a URL, write for example https://id.example.com"));
    }
    let host = authority.strip_prefix('[').and_then(|host| host.split(']').next());
    let host = host.unwrap_or_else(|| authority.split(':').next().unwrap_or_default());
    let address = host.parse::<std::net::IpAddr>().ok();
    let here = address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback());
    if url.starts_with("http://") && !here {
        return Err(format!("{url:?} is not encrypted; write https://"));
    }
    Ok(Some(url.to_owned()))
}

fn optional(value: &Value) -> Result<Option<String>, String> {
    Ok(Some(text(value)?).filter(|text| !text.is_empty()).map(str::to_owned))
}

fn names(value: &Value) -> Result<Vec<String>, String> {
    let names = list(value)?;
    if names.iter().any(String::is_empty) { Err("has an empty name".to_owned()) } else { Ok(names) }
}

fn leeway(value: &Value) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(120);
    match duration(value)? {
        long if long > MOST => Err(format!("must be at most {}", format_duration(MOST))),
        partial if partial.subsec_nanos() != 0 => Err("takes whole seconds, as tokens have them".to_owned()),
        short => Ok(short),
    }
}

/// A claim's name, with dots between those of claims within claims.
fn claim(value: &Value) -> Result<String, String> {
    let path = text(value)?;
    if path.is_empty() || path.len() > 256 || path.split('.').any(str::is_empty) {
        return Err(format!("{path:?} is not a claim's name, write for example tenant or realm.tenant"));
    }
    Ok(path.to_owned())
}
