//! All keys together, and which of them a token means.

use jsonwebtoken::Algorithm;

use super::{
    key::Key,
    refusal::{Reason, Refusal, shown},
    token::Parsed,
};

/// No token is held against more keys: every one costs a signature.
const MAX_CANDIDATES: usize = 16;

/// Keys as they stand; another ring takes its place when they change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ring {
    keys: Vec<Key>,
}

impl Ring {
    /// Keys in the order of their sources: of two by one name the first is it, so that nobody who
    /// publishes keys can put theirs in the place of one of ours.
    pub(super) fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        let mut ring = Self::default();
        for key in keys {
            if key.kid.is_none() || !ring.knows(key.kid.as_deref()) {
                ring.keys.push(key);
            }
        }
        ring
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    fn knows(&self, kid: Option<&str>) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == kid)
    }

    /// The key that a token was signed with.
    ///
    /// A token that names a key means that one. If there is none of that name, or it names none, it may be one of those
    /// without a name, and if there is but one key for its algorithm, that.
    pub(super) fn key_of(&self, token: &Parsed<'_>) -> Result<&Key, Refusal> {
        let algorithm = token.algorithm;
        if let Some(kid) = &token.kid
            && let Some(key) = self.keys.iter().find(|key| key.kid.as_ref() == Some(kid))
        {
            return if !key.algorithms.contains(&algorithm) {
                Err(Refusal::new(Reason::Algorithm, format!("key {} is not for {algorithm:?}", shown(kid))))
            } else if token.is_signed_with(&key.decoding) {
                Ok(key)
            } else {
                Err(Refusal::new(Reason::Signature, format!("it was not signed with key {}", shown(kid))))
            };
        }
        let candidates = self.candidates(token.kid.is_some(), algorithm);
        if let Some(key) = candidates.iter().find(|key| token.is_signed_with(&key.decoding)) {
            return Ok(key);
        }
        Err(match &token.kid {
            Some(kid) => Refusal::new(Reason::UnknownKey, format!("there is no key {}", shown(kid))),
            None if !candidates.is_empty() => {
                Refusal::new(Reason::Signature, "it was not signed with any key it could mean")
            }
            None if self.keys.iter().any(|key| key.algorithms.contains(&algorithm)) => {
                Refusal::new(Reason::UnknownKey, "it does not say which key it was signed with (kid)")
            }
            None => Refusal::new(Reason::Algorithm, format!("there is no key for {algorithm:?}")),
        })
    }

    fn candidates(&self, named: bool, algorithm: Algorithm) -> Vec<&Key> {
        let fit = || self.keys.iter().filter(|key| key.algorithms.contains(&algorithm));
        let nameless: Vec<&Key> = fit().filter(|key| key.kid.is_none()).take(MAX_CANDIDATES).collect();
        if nameless.is_empty() && !named && fit().count() == 1 { fit().collect() } else { nameless }
    }
}
