//! Tokens as an issuer makes them, and a server that takes them.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::server::{Options, Server, now_ms};

/// What tokens are signed with.
pub const SECRET: &str = "correct horse battery staple, twice over";

/// Whom they are for.
pub const AUDIENCE: &str = "luminate";

/// The environment of a server that takes such tokens.
pub fn options() -> Options {
    Options::default()
        .env("LUMINATE_AUTH__MODE", "token")
        .env("LUMINATE_AUTH__JWT__SECRET", SECRET)
        .env("LUMINATE_AUTH__JWT__AUDIENCE", AUDIENCE)
        .env("LUMINATE_AUTH__MAX_FAILURES_PER_MINUTE", "0")
        .env("LUMINATE_STORAGE__RETENTION__DEFAULT", "0")
}

/// Such a server.
pub fn start(data_dir: &Path) -> Server {
    Server::start(data_dir, &options())
}

/// Claims for a tenant, good for an hour.
pub fn claims(tenant: &str, scope: &str) -> Value {
    json!({"sub": format!("{tenant}'s {scope}"), "tenant": tenant, "scope": scope, "aud": AUDIENCE, "exp": now_ms() / 1000 + 3600})
}

/// The claims, with others put in or in their place.
pub fn with(mut claims: Value, others: Value) -> Value {
    let others = others.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(others);
    claims
}

/// A token.
pub fn sign(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// A token for a tenant.
pub fn token(tenant: &str, scope: &str) -> String {
    sign(&claims(tenant, scope))
}
