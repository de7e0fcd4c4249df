mod attacks;
mod bearers;
mod files;
mod issuer;
mod issuers;
mod properties;

use std::{path::Path, sync::LazyLock};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm};
use serde_json::{Value, json};

use super::*;
use crate::clock::HandClock;

/// When all tests take place: seconds since 1970.
const NOW: i64 = 1_800_000_000;
const SECRET: &str = "kH8s1vVxQe0Zt3Wq9LrNb7MyUc5Df2a+4Jg6";

/// A pair of keys.
struct Pair {
    private: EncodingKey,
    public_pem: String,
    pair: KeyPair,
    algorithm: Algorithm,
}

impl Pair {
    fn new(kind: &'static SignatureAlgorithm, algorithm: Algorithm) -> Self {
        let pair = KeyPair::generate_for(kind).unwrap();
        let pem = pair.serialize_pem();
        let private = match algorithm.family() {
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(pem.as_bytes()),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(pem.as_bytes()),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(pem.as_bytes()),
            AlgorithmFamily::Hmac => unreachable!("a secret is no pair"),
        };
        Self { private: private.unwrap(), public_pem: pair.public_key_pem(), pair, algorithm }
    }

    /// The public key as issuers publish it.
    fn jwk(&self, kid: &str) -> Value {
        let point = self.pair.der_bytes();
        let coordinates = |curve: &str| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
        };
        let mut jwk = match self.algorithm {
            Algorithm::ES256 => coordinates("P-256"),
            Algorithm::ES384 => coordinates("P-384"),
            Algorithm::EdDSA => json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(point)}),
            _ => {
                serde_json::to_value(Jwk::from_encoding_key(&self.private, self.algorithm).unwrap()).unwrap()
            }
        };
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk["alg"] = json!(self.algorithm);
        jwk
    }
}

static RSA: LazyLock<Pair> = LazyLock::new(|| Pair::new(&rcgen::PKCS_RSA_SHA256, Algorithm::RS256));
static OTHER_RSA: LazyLock<Pair> = LazyLock::new(|| Pair::new(&rcgen::PKCS_RSA_SHA256, Algorithm::RS256));
static P256: LazyLock<Pair> = LazyLock::new(|| Pair::new(&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256));
static P384: LazyLock<Pair> = LazyLock::new(|| Pair::new(&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384));
static ED25519: LazyLock<Pair> = LazyLock::new(|| Pair::new(&rcgen::PKCS_ED25519, Algorithm::EdDSA));

fn secret() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}

fn encoded(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Signs whatever is there, whether a token may say it or not.
fn signed(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    format!("{message}.{}", crypto::sign(message.as_bytes(), key, algorithm).unwrap())
}

/// Claims that are good.
fn good() -> Value {
    json!({"sub": "agent-7", "exp": NOW + 600, "tenant": "team-a", "scope": "write read"})
}

/// Good claims with others in their place; null takes one away.
fn good_but(others: Value) -> Value {
    let mut claims = good();
    for (name, value) in others.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// A token with these claims, signed with the secret.
fn token_of(claims: &Value) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), &secret(), Algorithm::HS256)
}

/// A token with good claims, signed with a pair by a name.
fn token_by(pair: &Pair, kid: &str) -> String {
    let header = json!({"alg": pair.algorithm, "kid": kid}).to_string();
    signed(&header, &good().to_string(), &pair.private, pair.algorithm)
}

fn clock() -> Arc<HandClock> {
    HandClock::at(Timestamp(NOW * 1000))
}

fn config() -> JwtConfig {
    JwtConfig { secret: Some(Secret(SECRET.to_owned())), ..JwtConfig::default() }
}

fn open(config: &JwtConfig) -> Arc<JwtVerifier> {
    JwtVerifier::open(config, clock()).unwrap()
}

/// The error of a configuration that cannot be used.
fn unusable(config: &JwtConfig) -> String {
    JwtVerifier::open(config, clock()).unwrap_err().to_string()
}

/// In a word, what became of a token: `good`, `unavailable`, or why it was refused.
async fn verdict(verifier: &JwtVerifier, token: &str) -> &'static str {
    match verifier.verify(token).await {
        Ok(_) => "good",
        Err(AuthError::Refused { reason, detail }) => {
            assert!(!detail.contains(SECRET), "{detail}");
            reason.strip_prefix("token_").unwrap()
        }
        Err(AuthError::Unavailable(_)) => "unavailable",
        Err(AuthError::Missing | AuthError::TooManyFailures { .. }) => {
            unreachable!("that is not about tokens")
        }
    }
}

/// The bearer of a token with these claims, or why there is none.
async fn bearer(rules: &ClaimRules, claims: &Value) -> Result<Arc<Principal>, &'static str> {
    let verifier = open(&JwtConfig { claims: rules.clone(), ..config() });
    let token = token_of(claims);
    match verdict(&verifier, &token).await {
        "good" => Ok(verifier.verify(&token).await.unwrap()),
        refused => Err(refused),
    }
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn key_file(path: PathBuf, kid: Option<&str>, algorithms: &[Algorithm]) -> KeyFile {
    KeyFile { kid: kid.map(str::to_owned), path, algorithms: algorithms.to_vec() }
}
