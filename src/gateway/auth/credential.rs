//! What a request shows of its sender.
//!
//! ```text
//! Authorization: Bearer lum_… │ eyJ…
//! Authorization: Basic base64(anything:lum_… │ eyJ…)     for clients that have nothing else
//! <auth.header>: lum_… │ eyJ… │ Bearer … │ Basic …       for proxies that keep Authorization to themselves
//! ```
//!
//! The name before the password of `Basic` is not looked at, and not logged either: it may be a key that somebody put
//! into the wrong field. Nothing is taken from the URL, which ends up in logs.
//!
//! A header that says something we do not understand is an error, not no credential; so are two different credentials.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{AuthError, keys::key::PREFIX};
use crate::model::Secret;

/// The longest header that is read, in bytes.
pub const MAX_BYTES: usize = 8 << 10;

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a request shows of its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Looks like a key of ours.
    ApiKey(Secret),
    /// Anything else, to be read as a JSON Web Token.
    Token(Secret),
}

impl Credential {
    /// What is shown.
    pub fn text(&self) -> &Secret {
        match self {
            Self::ApiKey(text) | Self::Token(text) => text,
        }
    }

    fn new(text: &str) -> Result<Self, AuthError> {
        if text.is_empty() {
            return Err(refused("malformed_credentials", "nothing is where the credential should be"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refused("malformed_credentials", "the credential has characters that none has"));
        }
        let secret = Secret(text.to_owned());
        Ok(if text.starts_with(PREFIX) { Self::ApiKey(secret) } else { Self::Token(secret) })
    }
}

/// Takes the credential out of a request's headers, of which `extra` may carry one, too; none if there is none.
pub fn of(headers: &HeaderMap, extra: Option<&HeaderName>) -> Result<Option<Credential>, AuthError> {
    let standard = one(headers, &AUTHORIZATION)?.map(authorization).transpose()?;
    let other = match extra {
        Some(name) => one(headers, name)?.map(bare_or_authorization).transpose()?,
        None => None,
    };
    match (standard, other) {
        (Some(one), Some(other)) if one != other => {
            Err(refused("several_credentials", "two different credentials are shown"))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// The text of a header that may be there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, AuthError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(refused("several_credentials", format!("{name} is given more than once")));
    }
    let text = |value: &'a HeaderValue| match value.to_str() {
        _ if value.len() > MAX_BYTES => {
            Err(refused("malformed_credentials", format!("{name} is longer than {MAX_BYTES} bytes")))
        }
        Ok(text) => Ok(text),
        Err(_) => {
            Err(refused("malformed_credentials", format!("{name} has characters that it may not have")))
        }
    };
    value.map(text).transpose()
}

fn bare_or_authorization(text: &str) -> Result<Credential, AuthError> {
    let text = text.trim_ascii();
    if text.contains(' ') { authorization(text) } else { Credential::new(text) }
}

fn authorization(text: &str) -> Result<Credential, AuthError> {
    let text = text.trim_ascii();
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        Credential::new(rest)
    } else if scheme.eq_ignore_ascii_case("basic") {
        Credential::new(&password(rest).ok_or_else(|| {
            refused(
                "malformed_credentials",
                "what is shown as Basic is not base64 of a name, ':' and a password",
            )
        })?)
    } else {
        // Not repeated: who forgets the scheme writes the credential in its place.
        Err(refused("unsupported_scheme", "Authorization is neither Bearer nor Basic"))
    }
}

fn password(encoded: &str) -> Option<String> {
    let decoded = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

fn refused(reason: &'static str, detail: impl Into<String>) -> AuthError {
    AuthError::Refused { reason, detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};

    use super::*;

    const OTHER: HeaderName = HeaderName::from_static("x-api-key");

    /// What is read from headers of these names and values.
    fn read(headers: &[(HeaderName, &str)]) -> Result<Option<Credential>, &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        of(&map, Some(&OTHER)).map_err(|error| match error {
            AuthError::Refused { reason, .. } => reason,
            other => panic!("{other}"),
        })
    }

    fn authorized(value: &str) -> Result<Option<Credential>, &'static str> {
        read(&[(AUTHORIZATION, value)])
    }

    fn key(text: &str) -> Result<Option<Credential>, &'static str> {
        Ok(Some(Credential::ApiKey(Secret(text.to_owned()))))
    }

    fn token(text: &str) -> Result<Option<Credential>, &'static str> {
        Ok(Some(Credential::Token(Secret(text.to_owned()))))
    }

    #[test]
    fn keys_are_told_from_tokens_by_how_they_begin() {
        assert_eq!(authorized("Bearer lum_a_b"), key("lum_a_b"));
        assert_eq!(authorized("bEaReR  eyJ.e30.x "), token("eyJ.e30.x"));
        assert_eq!(authorized("Bearer LUM_a_b"), token("LUM_a_b"));
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn a_password_may_be_a_key_or_a_token_whatever_the_name() {
        let basic = |text: &str| authorized(&format!("Basic {}", BASE64_STANDARD.encode(text)));
        assert_eq!(basic("grafana:lum_a_b"), key("lum_a_b"));
        assert_eq!(basic(":eyJ.e30.x"), token("eyJ.e30.x"));
        assert_eq!(basic("a:lum_a:b"), key("lum_a:b"));
        let bare = BASE64_STANDARD_NO_PAD.encode("ab:lum_a_b");
        assert_eq!(authorized(&format!("BASIC {bare}")), key("lum_a_b"));
        for wrong in ["", "lum_a_b", "name:", "name:a\nb", "name:a b", "name:é", "name:a\u{0}"] {
            assert_eq!(basic(wrong), Err("malformed_credentials"), "{wrong:?}");
        }
        for wrong in ["Basic", "Basic ", "Basic !!!!", "Basic /w==", "Basic bmFtZTp4 bmFtZTp4"] {
            assert_eq!(authorized(wrong), Err("malformed_credentials"), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_nothing() {
        for wrong in ["Bearer", "Bearer ", "bearer a b", "Bearer a,b c", "Bearer \u{e9}", "Bearer a\tb"] {
            assert_eq!(authorized(wrong), Err("malformed_credentials"), "{wrong:?}");
        }
        for wrong in ["", " ", "lum_a_b", "Digest username=x", "Bearer\ta", "Bearer,a"] {
            assert_eq!(authorized(wrong), Err("unsupported_scheme"), "{wrong:?}");
        }
        assert_eq!(authorized(&format!("Bearer {}", "a".repeat(MAX_BYTES))), Err("malformed_credentials"));
        assert!(authorized(&format!("Bearer {}", "a".repeat(MAX_BYTES - 7))).is_ok());
    }

    #[test]
    fn only_one_credential_is_shown() {
        let shown = |a, b| read(&[(AUTHORIZATION, a), (AUTHORIZATION, b)]);
        assert_eq!(shown("Bearer a", "Bearer a"), Err("several_credentials"));
        let both = |a, b| read(&[(AUTHORIZATION, a), (OTHER, b)]);
        assert_eq!(both("Bearer lum_a_b", "lum_a_b"), key("lum_a_b"));
        assert_eq!(both("Bearer lum_a_b", "lum_a_c"), Err("several_credentials"));
        assert_eq!(both("Bearer a", ""), Err("malformed_credentials"));
        assert_eq!(both("nonsense", "lum_a_b"), Err("unsupported_scheme"));
        assert_eq!(read(&[(OTHER, "a"), (OTHER, "a")]), Err("several_credentials"));
    }

    #[test]
    fn another_header_carries_a_credential_with_or_without_a_scheme() {
        assert_eq!(read(&[(OTHER, " lum_a_b ")]), key("lum_a_b"));
        assert_eq!(read(&[(OTHER, "Bearer eyJ")]), token("eyJ"));
        assert_eq!(read(&[(OTHER, "Token eyJ")]), Err("unsupported_scheme"));
        let mut headers = HeaderMap::new();
        headers.insert(OTHER, HeaderValue::from_static("lum_a_b"));
        assert_eq!(of(&headers, None), Ok(None));
    }

    #[test]
    fn neither_credentials_nor_errors_show_secrets() {
        for value in
            ["Bearer s3cret", "Bearer s3cret x", "s3cret", "Basic s3cret", "Basic bmFtZTpzM2NyZXQgeA=="]
        {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            let shown = match of(&headers, None) {
                Ok(credential) => format!("{credential:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}
