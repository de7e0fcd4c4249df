//! What must not be seen.

use std::fmt;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The shortest secret that may sign: as long as the shortest hash it is used with.
pub const MIN_SIGNING_BYTES: usize = 32;

/// What people leave where a secret belongs, without case and punctuation.
const PLACEHOLDERS: &[&str] = &[
    "yourstrongsecret",
    "yoursecret",
    "your256bitsecret",
    "your384bitsecret",
    "your512bitsecret",
    "astringsecretatleast",
    "changeme",
    "changethis",
    "replaceme",
    "replacethis",
    "placeholder",
    "supersecret",
    "topsecret",
    "mysecret",
    "jwtsecret",
    "secretkey",
    "defaultsecret",
    "examplesecret",
    "password",
];

/// Why a secret must not sign tokens; none if nothing speaks against it.
///
/// Who guesses the secret of a signature can sign whatever they like, and can try as fast as they compute.
pub fn weakness_of_signing_secret(secret: &[u8]) -> Option<String> {
    if secret.iter().all(u8::is_ascii_whitespace) {
        return Some("is blank".to_owned());
    }
    if secret.len() < MIN_SIGNING_BYTES {
        return Some(format!("has {} bytes; it takes at least {MIN_SIGNING_BYTES}", secret.len()));
    }
    let plain = plain(secret);
    if plain.starts_with("secret") || PLACEHOLDERS.iter().any(|word| plain.contains(word)) {
        return Some("is a placeholder; draw one, for example with `openssl rand -base64 48`".to_owned());
    }
    let mut seen = [false; 256];
    secret.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    if seen.iter().filter(|seen| **seen).count() < 8 || repeats(secret) {
        return Some("is the same few characters over and over".to_owned());
    }
    None
}

/// Whether it stands where somebody's own name, host or password belongs, as guides have it: `your-clickhouse-host`.
///
/// Whoever left one there has not come to that line yet; what would fail later is better told at the start.
pub fn is_placeholder(text: &str) -> bool {
    const OURS: &[&str] = &["your", "yourclickhouse", "yourredis"];
    const WHAT: &[&str] =
        &["host", "hostname", "server", "address", "username", "user", "password", "secret"];
    const BARE: &[&str] = &["changeme", "changethis", "replaceme", "replacethis", "placeholder"];
    let plain = plain(text.as_bytes());
    let of_guide = OURS.iter().any(|ours| plain.strip_prefix(ours).is_some_and(|what| WHAT.contains(&what)));
    of_guide || BARE.contains(&plain.as_str())
}

/// Why a password cannot be meant; none if nothing speaks against it. Whether it is good is for the servers to say.
pub fn weakness_of_password(username: &str, password: &Secret) -> Option<&'static str> {
    if is_placeholder(&password.0) {
        Some("is a placeholder; put the real password there")
    } else if (username, password.0.as_str()) == ("admin", "admin") {
        Some("of user admin is admin, which is the first that everybody tries; set another")
    } else {
        None
    }
}

/// A text without case and punctuation.
fn plain(text: &[u8]) -> String {
    let letters = text.iter().filter(|byte| byte.is_ascii_alphanumeric());
    letters.map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

/// Whether it is one beginning again and again, of at most half its length.
fn repeats(secret: &[u8]) -> bool {
    (1..=secret.len() / 2).any(|period| secret.iter().skip(period).eq(&secret[..secret.len() - period]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weak_secret_does_not_sign() {
        for (secret, why) in [
            ("", "blank"),
            (&*" ".repeat(40), "blank"),
            ("\t\n \n", "blank"),
            ("kH8s1vVxQe0Zt3Wq9LrNb7MyUc5Df2a", "31 bytes"),
            ("your-strong-secret-here-your-strong-secret-here", "placeholder"),
            ("Change-Me-kH8s1vVxQe0Zt3Wq9LrNb7MyUc5Df2a", "placeholder"),
            ("secret-kH8s1vVxQe0Zt3Wq9LrNb7MyUc5Df2a", "placeholder"),
            ("a-string-secret-at-least-256-bits-long", "placeholder"),
            ("your-256-bit-secret-kH8s1vVxQe0Zt3Wq9LrNb", "placeholder"),
            (&*"a".repeat(64), "over and over"),
            (&*"abcdefgh1234".repeat(3), "over and over"),
            ("0123456789abcdef0123456789abcdef", "over and over"),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "over and over"),
        ] {
            let weakness = weakness_of_signing_secret(secret.as_bytes());
            assert!(
                weakness.as_ref().is_some_and(|weakness| weakness.contains(why)),
                "{secret:?}: {weakness:?}"
            );
        }
        for secret in [
            "kH8s1vVxQe0Zt3Wq9LrNb7MyUc5Df2a+",
            "9f86d081884c7d659a2feaa0c55ad015",
            "correct horse battery staple, twice a day",
        ] {
            assert_eq!(weakness_of_signing_secret(secret.as_bytes()), None);
        }
    }

    #[test]
    fn what_guides_leave_to_be_filled_in_is_known() {
        for text in [
            "your-clickhouse-password",
            "your-password",
            "your-username",
            "Your_ClickHouse_Username",
            "<your-clickhouse-host>",
            "your-redis-password",
            "changeme",
            "Change-Me!",
            "PLACEHOLDER",
        ] {
            assert!(is_placeholder(text), "{text}");
        }
        for text in ["", "password", "clickhouse", "yourself", "your-company-db", "changeme2", "hunter2"] {
            assert!(!is_placeholder(text), "{text}");
        }
    }
}
