//! Why a token is not taken, and how often that was.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::gateway::auth::AuthError;

/// Why a token is not taken, in a word for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is no token at all, or one that two readers could read in two ways.
    Malformed,
    /// It is longer than any token of ours.
    TooLong,
    /// Its algorithm is not one of its key.
    Algorithm,
    /// There is no such key.
    UnknownKey,
    /// It was not signed with the key.
    Signature,
    /// It is for another use than ours.
    Type,
    /// It was good once.
    Expired,
    /// It is not good yet.
    NotYet,
    /// Another one issued it.
    Issuer,
    /// It is for another one.
    Audience,
    /// It was taken back.
    Revoked,
    /// It does not say for which tenant.
    Tenant,
    /// It does not say what its bearer may do.
    Scope,
    /// Some other claim is missing or wrong.
    Claims,
}

impl Reason {
    /// All there are.
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::TooLong,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Type,
        Self::Expired,
        Self::NotYet,
        Self::Issuer,
        Self::Audience,
        Self::Revoked,
        Self::Tenant,
        Self::Scope,
        Self::Claims,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::TooLong => "token_too_long",
            Self::Algorithm => "token_algorithm",
            Self::UnknownKey => "token_unknown_key",
            Self::Signature => "token_signature",
            Self::Type => "token_type",
            Self::Expired => "token_expired",
            Self::NotYet => "token_not_yet_valid",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Revoked => "token_revoked",
            Self::Tenant => "token_tenant",
            Self::Scope => "token_scope",
            Self::Claims => "token_claims",
        }
    }
}

/// Why one token is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In a word.
    pub reason: Reason,
    /// In a sentence for the log; never a secret.
    pub detail: String,
}

impl Refusal {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        const MOST: usize = 512;
        let mut detail: String = detail.into();
        if let Some((at, _)) = detail.char_indices().nth(MOST) {
            detail.truncate(at);
            detail.push('…');
        }
        Self { reason, detail }
    }
}

impl From<Refusal> for AuthError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { reason: refusal.reason.as_str(), detail: refusal.detail }
    }
}

/// Text of a token as it may go into logs: short, on one line.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 64;
    let end = text.char_indices().nth(MOST).map_or(text.len(), |(at, _)| at);
    let more = if end < text.len() { "…" } else { "" };
    format!("{:?}{more}", &text[..end])
}

/// What became of tokens, and of the keys they are held against.
#[derive(Debug, Default)]
pub struct JwtCounters {
    /// Tokens that were good, their signatures verified.
    pub verified: AtomicU64,
    /// Tokens that were known to be good.
    pub cached: AtomicU64,
    /// Tokens that were known to be bad.
    pub cached_refusals: AtomicU64,
    /// Tokens that could not be checked, there being no keys yet.
    pub unavailable: AtomicU64,
    /// Fetches of keys that gave some.
    pub refreshes: AtomicU64,
    /// Fetches of keys that failed.
    pub failed_refreshes: AtomicU64,
    /// Files that were read again and taken.
    pub file_reloads: AtomicU64,
    /// Files that were read again and could not be used.
    pub failed_file_reloads: AtomicU64,
    /// Keys that tokens are held against.
    pub keys: AtomicU64,
    /// When keys were last fetched, in milliseconds since 1970; 0 is never.
    pub fetched_at_ms: AtomicI64,
    refused: [AtomicU64; Reason::ALL.len()],
}

impl JwtCounters {
    /// Tokens that were refused for a reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count_refused(&self, reason: Reason) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_words_and_counters_of_their_own() {
        let counters = JwtCounters::default();
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
            counters.count_refused(reason);
            assert_eq!(counters.refused(reason), 1);
            assert_eq!(Reason::ALL.iter().filter(|other| other.as_str() == reason.as_str()).count(), 1);
        }
    }

    #[test]
    fn what_is_shown_of_a_token_is_short_and_on_one_line() {
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert_eq!(shown("\u{1b}[31m"), "\"\\u{1b}[31m\"");
        assert!(shown(&"é".repeat(1000)).chars().count() < 70);
    }
}
