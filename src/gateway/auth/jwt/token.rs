//! A token as it comes: three parts, of which nothing is believed yet.
//!
//! ```text
//! base64url(header) . base64url(claims) . base64url(signature)
//!           alg, kid, typ, crit
//! ```
//!
//! Of the header only four names are looked at. Those that bring a key or tell where there is one (`jwk`, `jku`, `x5c`, `x5u`)
//! are not: keys come from the configuration alone.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde_json::{Map, Value};

use super::{
    json,
    refusal::{Reason, Refusal, shown},
};

/// No token is longer.
pub const MAX_BYTES: usize = 8 << 10;

/// A token that was taken apart; its signature was not looked at.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// What it says its algorithm is: one that exists, not necessarily one that is allowed.
    pub algorithm: Algorithm,
    /// What it says its key is.
    pub kid: Option<String>,
    /// What it says it is for.
    pub typ: Option<String>,
    /// All its header says.
    pub header: Map<String, Value>,
    claims: &'a str,
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Parsed<'a> {
    /// Takes a token apart.
    pub fn new(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > MAX_BYTES {
            let detail = format!("it has {} bytes, more than {MAX_BYTES}", token.len());
            return Err(Refusal::new(Reason::TooLong, detail));
        }
        let parts: Vec<&str> = token.splitn(4, '.').collect();
        let [head, claims, signature] = parts[..] else {
            return Err(malformed("it has not three parts"));
        };
        if signature.is_empty() {
            return Err(Refusal::new(Reason::Signature, "it is not signed"));
        }
        let header = part(head).map_err(|wrong| malformed(format!("its header {wrong}")))?;
        if header.contains_key("crit") {
            return Err(malformed("its header asks for something that is not understood (crit)"));
        }
        let algorithm = text(&header, "alg")?.ok_or_else(|| malformed("its header names no algorithm"))?;
        let algorithm = algorithm.parse().map_err(|_| {
            Refusal::new(Reason::Algorithm, format!("{} is no algorithm of ours", shown(&algorithm)))
        })?;
        Ok(Self {
            algorithm,
            kid: text(&header, "kid")?,
            typ: text(&header, "typ")?,
            header,
            claims,
            signed: &token[..head.len() + 1 + claims.len()],
            signature,
        })
    }

    /// Whether it was signed with a key, by the algorithm it names; that the key allows it was checked before.
    pub fn is_signed_with(&self, key: &DecodingKey) -> bool {
        crypto::verify(self.signature, self.signed.as_bytes(), key, self.algorithm).unwrap_or(false)
    }

    /// What it claims; worth something only if its signature is good.
    pub fn claims(&self) -> Result<Map<String, Value>, Refusal> {
        part(self.claims).map_err(|wrong| malformed(format!("what it claims {wrong}")))
    }
}

fn malformed(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Malformed, detail)
}

fn part(encoded: &str) -> Result<Map<String, Value>, String> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| "is not base64url".to_owned())?;
    json::object(&bytes)
}

fn text(header: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(malformed(format!("{name} in its header is no text")))
        }
    }
}
