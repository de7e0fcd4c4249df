//! A key as its holder has it: `lum_<id>_<secret>`.
//!
//! ```text
//! lum_4fQzR81bXk2C_Tq3…  (43)
//!     └ id, known   └ secret, 43 of 62 letters and digits: 256 bits
//! ```
//!
//! The id finds the record and may be told; of the secret only the SHA-256 is kept, which says nothing of a text that
//! nobody can guess. It is hashed once, without salt, for the same reason.

use std::fmt;

use aws_lc_rs::{
    constant_time,
    digest::{SHA256, digest},
    rand,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::model::Secret;

/// What a key begins with.
pub const PREFIX: &str = "lum_";

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const ID_LETTERS: usize = 12;
/// 62⁴³ is just more than 2²⁵⁶.
const SECRET_LETTERS: usize = 43;

/// A key's name: 12 letters and digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Box<str>);

impl KeyId {
    /// Checks an id.
    pub fn new(text: &str) -> Option<Self> {
        is_made_of_letters(text, ID_LETTERS).then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| {
            D::Error::custom(format!("an id has {ID_LETTERS} letters and digits, nothing else"))
        })
    }
}

/// The SHA-256 of a secret, or of all that was presented.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Hashes a text.
    pub fn of(text: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self(hash)
    }

    /// Whether two are the same, which takes as long whether they are or not.
    pub fn is(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256(…)")
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // What is written may be the secret itself, put here by mistake: it is not repeated.
        let wrong = || D::Error::custom("a SHA-256 is written as 64 hexadecimal digits");
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(hash))
    }
}

/// A key, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Which key.
    pub id: KeyId,
    /// What its holder knows.
    pub secret: Secret,
}

impl Key {
    /// Takes a key apart; none if it does not look like one.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let secret = is_made_of_letters(secret, SECRET_LETTERS).then(|| Secret(secret.to_owned()))?;
        Some(Self { id: KeyId::new(id)?, secret })
    }

    /// Draws a new one.
    pub fn draw() -> Result<Self, NoRandomness> {
        let id = KeyId(draw_letters(ID_LETTERS)?.into());
        Ok(Self { id, secret: Secret(draw_letters(SECRET_LETTERS)?) })
    }

    /// The key as its holder has it.
    pub fn reveal(&self) -> Secret {
        Secret(format!("{PREFIX}{}_{}", self.id, self.secret.0))
    }
}

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no randomness to give")]
pub struct NoRandomness;

/// Draws letters, each as likely as any other.
fn draw_letters(count: usize) -> Result<String, NoRandomness> {
    let mut text = String::with_capacity(count);
    let mut bytes = [0; 64];
    while text.len() < count {
        rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
        // Four times the alphabet fits into a byte; what is beyond would make the first letters likelier.
        let fair = bytes.iter().filter(|byte| usize::from(**byte) < 4 * LETTERS.len());
        let letters = fair.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
        text.extend(letters.take(count - text.len()));
    }
    Ok(text)
}

fn is_made_of_letters(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_key_reads_back_and_no_two_are_the_same() {
        let keys: Vec<Key> = (0..100).map(|_| Key::draw().unwrap()).collect();
        for key in &keys {
            assert_eq!(Key::parse(&key.reveal().0).as_ref(), Some(key));
        }
        let mut ids: Vec<&KeyId> = keys.iter().map(|key| &key.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn every_letter_is_drawn() {
        let drawn = draw_letters(20_000).unwrap();
        for letter in LETTERS {
            // 322 are expected of each; fewer than 200 comes once in 10¹¹ runs.
            assert!(drawn.bytes().filter(|b| b == letter).count() > 200, "{}", char::from(*letter));
        }
    }

    #[test]
    fn what_does_not_look_like_a_key_is_none() {
        let (id, secret) = ("a".repeat(12), "b".repeat(43));
        assert!(Key::parse(&format!("lum_{id}_{secret}")).is_some());
        for wrong in [
            String::new(),
            "lum_".to_owned(),
            format!("LUM_{id}_{secret}"),
            format!("lum_{id}_{secret}b"),
            format!("lum_{id}_{}", &secret[1..]),
            format!("lum_{id}a_{secret}"),
            format!("lum_{id}{secret}"),
            format!("lum_{id}_{}é", &secret[2..]),
            format!("lum_{id}_{}_", &secret[1..]),
            format!("lum_../../../ab_{secret}"),
            format!(" lum_{id}_{secret}"),
            format!("lum_{id}_{}\n", &secret[1..]),
        ] {
            assert_eq!(Key::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_hash_reads_back_and_is_not_shown() {
        let hash = Sha256::of("abc");
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(text, "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"");
        assert!(serde_json::from_str::<Sha256>(&text).unwrap().is(&hash));
        assert!(!hash.is(&Sha256::of("abd")));
        assert_eq!(format!("{hash:?}"), "Sha256(…)");
        for wrong in ["", "hunter2", &"g".repeat(64), &"+1".repeat(32), &"é".repeat(32)] {
            let error = serde_json::from_value::<Sha256>(wrong.into()).unwrap_err().to_string();
            assert!(wrong.is_empty() || !error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_key_shows_its_id_and_not_its_secret() {
        let key = Key::draw().unwrap();
        let shown = format!("{key:?} {:?}", key.reveal());
        assert!(shown.contains(key.id.as_str()) && !shown.contains(&key.secret.0), "{shown}");
    }
}
