//! JWK sets: lists of keys as issuers publish them.
//!
//! A key that will not do is left out and told of; the others are taken. A set without a single key that will do is an error:
//! whoever published it did not mean to lock everybody out.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::{Map, Value};

use super::{
    json,
    key::{Key, Kind},
    refusal::shown,
};

/// No set has more keys that are looked at.
const MAX_KEYS: usize = 256;
/// No name of a key is longer.
const MAX_KID_BYTES: usize = 1024;

/// What of a set is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy<'a> {
    /// Algorithms that may be used at all. A key that does not say what it is for is for the first that fits it.
    pub(super) algorithms: &'a [Algorithm],
    /// Whether a secret may be in it: in a file of ours, never in what is fetched.
    pub(super) secrets: bool,
}

/// What a set gave.
#[derive(Debug)]
pub(super) struct JwkSet {
    /// Its keys, at least one.
    pub(super) keys: Vec<Key>,
    /// What is wrong with the others.
    pub(super) left_out: Vec<String>,
}

/// Reads a set.
pub(super) fn read(bytes: &[u8], policy: Policy<'_>) -> Result<JwkSet, String> {
    let set = json::object(bytes)?;
    let Some(Value::Array(entries)) = set.get("keys") else {
        return Err("is no JWK set: it has no list of keys".to_owned());
    };
    if entries.len() > MAX_KEYS {
        return Err(format!("has {} keys, more than {MAX_KEYS}", entries.len()));
    }
    let mut keys: Vec<Key> = Vec::new();
    let mut left_out = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let named = |name: Option<&str>| {
            name.map_or_else(|| format!("key {}", i + 1), |kid| format!("key {}", shown(kid)))
        };
        match entry.as_object().ok_or_else(|| "is no object".to_owned()).and_then(|jwk| key(jwk, policy)) {
            Ok(key) if key.kid.is_some() && keys.iter().any(|other| other.kid == key.kid) => {
                left_out.push(format!("{} is there twice", named(key.kid.as_deref())));
            }
            Ok(key) => keys.push(key),
            Err(wrong) => {
                let kid = entry.get("kid").and_then(Value::as_str);
                left_out.push(format!("{} {wrong}", named(kid)));
            }
        }
    }
    if keys.is_empty() {
        let wrong = if left_out.is_empty() { "it is empty".to_owned() } else { left_out.join("; ") };
        return Err(format!("has no key that can be used: {wrong}"));
    }
    Ok(JwkSet { keys, left_out })
}

fn key(jwk: &Map<String, Value>, policy: Policy<'_>) -> Result<Key, String> {
    let kid = text(jwk, "kid")?.map(str::to_owned);
    if kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
        return Err(format!("has a name of more than {MAX_KID_BYTES} bytes"));
    }
    if let Some(purpose) = text(jwk, "use")?.filter(|purpose| *purpose != "sig") {
        return Err(format!("is not for signatures (use {})", shown(purpose)));
    }
    if let Some(operations) = jwk.get("key_ops") {
        let operations = operations.as_array().ok_or("has key_ops that are no list")?;
        if !operations.iter().any(|operation| operation == "verify") {
            return Err("is not for verifying (key_ops)".to_owned());
        }
    }
    let algorithm = |kind: Kind| algorithm(text(jwk, "alg")?, kind, policy);
    match text(jwk, "kty")?.ok_or("does not say what it is (kty)")? {
        "oct" if !policy.secrets => Err("is a secret, which nobody should publish".to_owned()),
        "oct" => {
            let secret = bytes(jwk, "k")?;
            if text(jwk, "alg")?.is_none() {
                return Err("is a secret and does not say for what (alg)".to_owned());
            }
            Key::of_secret(&secret, kid, &[algorithm(Kind::Secret)?])
        }
        _ if jwk.contains_key("d") => Err("is a private key, which nobody should publish".to_owned()),
        "RSA" => Key::of_rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?, kid, &[algorithm(Kind::Rsa)?]),
        "EC" => {
            let (kind, size) = match text(jwk, "crv")? {
                Some("P-256") => (Kind::P256, 32),
                Some("P-384") => (Kind::P384, 48),
                Some(_) | None => return Err("is of another curve than P-256 and P-384".to_owned()),
            };
            let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
            if (x.len(), y.len()) != (size, size) {
                return Err("is not a point on its curve".to_owned());
            }
            Key::of_point(kind, &[&[4], &*x, &*y].concat(), kid, &[algorithm(kind)?])
        }
        "OKP" => match text(jwk, "crv")? {
            Some("Ed25519") => Key::of_ed25519(&bytes(jwk, "x")?, kid, &[algorithm(Kind::Ed25519)?]),
            Some(_) | None => Err("is of another curve than Ed25519".to_owned()),
        },
        other => Err(format!("is of a kind that is not known (kty {})", shown(other))),
    }
}

/// The one algorithm a key may be used with.
fn algorithm(named: Option<&str>, kind: Kind, policy: Policy<'_>) -> Result<Algorithm, String> {
    let Some(name) = named else {
        let usual = policy.algorithms.iter().copied().find(|algorithm| kind.fits(*algorithm));
        return usual.ok_or_else(|| "goes with none of the algorithms that are allowed".to_owned());
    };
    // The name that RFC 9864 gives to what was EdDSA with this curve.
    let name = if name == "Ed25519" && kind == Kind::Ed25519 { "EdDSA" } else { name };
    let algorithm: Algorithm =
        name.parse().map_err(|_| format!("is for {}, which is no algorithm of ours", shown(name)))?;
    let allowed = policy.algorithms.contains(&algorithm)
        || (policy.secrets && algorithm.family() == AlgorithmFamily::Hmac);
    if allowed { Ok(algorithm) } else { Err(format!("is for {name}, which is not allowed")) }
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(format!("has a {name} that is no text"))
        }
    }
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let encoded = text(jwk, name)?.ok_or_else(|| format!("has no {name}"))?;
    URL_SAFE_NO_PAD.decode(encoded).map_err(|_| format!("has a {name} that is not base64url"))
}
