//! Keys that signatures are held against, and where they come from: secrets, PEM files, JWK sets.
//!
//! A key has the algorithms it may be used with from whoever configured it. What a token's header says is only looked up
//! among them: an RSA key never becomes the secret of an HMAC.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use x509_parser::{
    asn1_rs::oid,
    pem::Pem,
    prelude::{FromDer, X509Certificate},
    public_key::{PublicKey, RSAPublicKey},
    x509::SubjectPublicKeyInfo,
};

use crate::model::secret::weakness_of_signing_secret;

/// The public keys of RSA that are taken, in bits.
pub(super) const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key.
#[derive(Clone)]
pub struct Key {
    /// The name that tokens call it by; none is for tokens that name no other.
    pub kid: Option<String>,
    /// What it may be used with; all of one kind, which is the key's.
    pub algorithms: Vec<Algorithm>,
    /// Who has to have issued what is signed with it; none is whoever.
    pub issuer: Option<String>,
    /// Where it is from, for people.
    pub source: String,
    pub(super) decoding: DecodingKey,
    /// Tells it from others, without saying what it is.
    pub(super) fingerprint: [u8; 32],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kid, algorithms, issuer, source, .. } = self;
        f.debug_struct("Key")
            .field("kid", kid)
            .field("algorithms", algorithms)
            .field("issuer", issuer)
            .field("source", source)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.kid, &self.algorithms, &self.issuer, self.fingerprint)
            == (&other.kid, &other.algorithms, &other.issuer, other.fingerprint)
    }
}

/// The material of a key, of a kind that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A secret.
    Secret,
    /// RSA.
    Rsa,
    /// The curve P-256.
    P256,
    /// The curve P-384.
    P384,
    /// The curve Ed25519.
    Ed25519,
}

impl Kind {
    /// Whether it can be used with an algorithm.
    pub fn fits(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Secret => algorithm.family() == AlgorithmFamily::Hmac,
            Self::Rsa => algorithm.family() == AlgorithmFamily::Rsa,
            Self::P256 => algorithm == Algorithm::ES256,
            Self::P384 => algorithm == Algorithm::ES384,
            Self::Ed25519 => algorithm == Algorithm::EdDSA,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Secret => "a secret",
            Self::Rsa => "an RSA key",
            Self::P256 => "a key of the curve P-256",
            Self::P384 => "a key of the curve P-384",
            Self::Ed25519 => "an Ed25519 key",
        }
    }
}

impl Key {
    /// The key of a secret, unless it can be guessed.
    pub fn of_secret(secret: &[u8], kid: Option<String>, algorithms: &[Algorithm]) -> Result<Self, String> {
        if let Some(weakness) = weakness_of_signing_secret(secret) {
            return Err(weakness);
        }
        Self::new(Kind::Secret, secret, DecodingKey::from_secret(secret), kid, algorithms)
    }

    /// The one key of a PEM file: a public key, or that of a certificate. Whether the certificate still holds is not
    /// asked: who configures it trusts the key.
    pub fn of_pem(pem: &[u8], kid: Option<String>, algorithms: &[Algorithm]) -> Result<Self, String> {
        let mut blocks =
            Pem::iter_from_buffer(pem).collect::<Result<Vec<_>, _>>().map_err(|_| "is not PEM")?;
        let block = blocks.pop().ok_or("is not PEM")?;
        if !blocks.is_empty() {
            return Err("holds more than one key or certificate; give each a file of its own".to_owned());
        }
        let wrong = |_| format!("holds a {} that cannot be read", block.label);
        match block.label.as_str() {
            "PUBLIC KEY" => {
                let (_, info) = SubjectPublicKeyInfo::from_der(&block.contents).map_err(wrong)?;
                Self::of_info(&info, kid, algorithms)
            }
            "CERTIFICATE" => {
                let (_, certificate) = X509Certificate::from_der(&block.contents).map_err(wrong)?;
                Self::of_info(certificate.public_key(), kid, algorithms)
            }
            "RSA PUBLIC KEY" => {
                let (_, rsa) = RSAPublicKey::from_der(&block.contents).map_err(wrong)?;
                Self::of_rsa(rsa.modulus, rsa.exponent, kid, algorithms)
            }
            private if private.ends_with("PRIVATE KEY") => {
                Err("holds a private key; to check signatures takes only the public one".to_owned())
            }
            other => Err(format!("holds a {}, neither a public key nor a certificate", shown_label(other))),
        }
    }

    fn of_info(
        info: &SubjectPublicKeyInfo<'_>,
        kid: Option<String>,
        algorithms: &[Algorithm],
    ) -> Result<Self, String> {
        let bytes: &[u8] = &info.subject_public_key.data;
        if info.algorithm.algorithm == oid!(1.3.101.112) {
            return Self::of_ed25519(bytes, kid, algorithms);
        }
        match info.parsed().map_err(|_| "holds a public key that cannot be read")? {
            PublicKey::RSA(rsa) => Self::of_rsa(rsa.modulus, rsa.exponent, kid, algorithms),
            PublicKey::EC(_) => {
                let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
                let kind = match curve {
                    Some(curve) if curve == oid!(1.2.840.10045.3.1.7) => Kind::P256,
                    Some(curve) if curve == oid!(1.3.132.0.34) => Kind::P384,
                    Some(_) | None => {
                        return Err("holds a key of another curve than P-256 and P-384".to_owned());
                    }
                };
                Self::of_point(kind, bytes, kid, algorithms)
            }
            PublicKey::DSA(_)
            | PublicKey::GostR3410(_)
            | PublicKey::GostR3410_2012(_)
            | PublicKey::Unknown(_) => Err("holds a key of another kind than RSA, EC and Ed25519".to_owned()),
        }
    }

    /// The key of an RSA modulus and exponent, both big-endian.
    pub(super) fn of_rsa(
        modulus: &[u8],
        exponent: &[u8],
        kid: Option<String>,
        algorithms: &[Algorithm],
    ) -> Result<Self, String> {
        let modulus = without_zeros(modulus);
        let exponent = without_zeros(exponent);
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
            return Err(format!("is an RSA key of {bits} bits; it takes {least} to {most}"));
        }
        let odd = exponent.last().is_some_and(|last| last % 2 == 1);
        if !odd || exponent.len() > 4 || exponent == [1] {
            return Err("is an RSA key with an exponent that nobody uses".to_owned());
        }
        let decoding = DecodingKey::from_rsa_raw_components(modulus, exponent);
        let material = [modulus, b"/", exponent].concat();
        Self::new(Kind::Rsa, &material, decoding, kid, algorithms)
    }

    /// The key of a point on a curve, uncompressed.
    pub(super) fn of_point(
        kind: Kind,
        point: &[u8],
        kid: Option<String>,
        algorithms: &[Algorithm],
    ) -> Result<Self, String> {
        let on_curve = match kind {
            Kind::P256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point),
            Kind::P384 => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point),
            Kind::Secret | Kind::Rsa | Kind::Ed25519 => return Err("is not on a curve".to_owned()),
        };
        on_curve.map_err(|_| "is not a point on its curve")?;
        Self::new(kind, point, DecodingKey::from_ec_der(point), kid, algorithms)
    }

    pub(super) fn of_ed25519(
        bytes: &[u8],
        kid: Option<String>,
        algorithms: &[Algorithm],
    ) -> Result<Self, String> {
        ParsedPublicKey::new(&ED25519, bytes).map_err(|_| "is not an Ed25519 key")?;
        Self::new(Kind::Ed25519, bytes, DecodingKey::from_ed_der(bytes), kid, algorithms)
    }

    /// `algorithms` are all meant for this key: one that does not fit is a mistake; none at all is the usual one.
    fn new(
        kind: Kind,
        material: &[u8],
        decoding: DecodingKey,
        kid: Option<String>,
        algorithms: &[Algorithm],
    ) -> Result<Self, String> {
        if algorithms.is_empty() {
            return Err("has no algorithm it may be used with".to_owned());
        }
        if let Some(wrong) = algorithms.iter().find(|algorithm| !kind.fits(**algorithm)) {
            return Err(format!("is {}, which {wrong:?} does not go with", kind.noun()));
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, material);
        let fingerprint = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
        let algorithms = algorithms.to_vec();
        Ok(Self { kid, algorithms, issuer: None, source: String::new(), decoding, fingerprint })
    }

    /// The same key, told where it is from.
    #[must_use]
    pub fn from_source(mut self, source: impl Into<String>, issuer: Option<&str>) -> Self {
        self.source = source.into();
        self.issuer = issuer.map(str::to_owned);
        self
    }
}

/// Takes the last newline off a file's content, which is its editor's.
pub fn without_newline(content: &[u8]) -> &[u8] {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    content.strip_suffix(b"\r").unwrap_or(content)
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    &number[first..]
}

fn shown_label(label: &str) -> String {
    label.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ').take(40).collect()
}
