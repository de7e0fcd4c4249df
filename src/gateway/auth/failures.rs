//! How many callers were not let in, and why.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::AuthError;

/// Counts callers that were not let in, by reason.
#[derive(Debug, Default)]
pub struct Failures(Mutex<BTreeMap<&'static str, u64>>);

impl Failures {
    /// Counts one more.
    pub fn count(&self, error: &AuthError) {
        *self.0.lock().entry(error.reason()).or_default() += 1;
    }

    /// Each reason there was, and how often.
    pub fn by_reason(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().iter().map(|(reason, count)| (*reason, *count)).collect()
    }
}

impl AuthError {
    /// A short name for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Refused { reason, .. } => reason,
            Self::Unavailable(_) => "unavailable",
            Self::TooManyFailures { .. } => "too_many_failures",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_reason() {
        let failures = Failures::default();
        let refused = AuthError::Refused { reason: "expired_key", detail: "a".to_owned() };
        for error in [&refused, &AuthError::Missing, &refused] {
            failures.count(error);
        }
        assert_eq!(failures.by_reason(), [("expired_key", 2), ("missing", 1)]);
    }
}
