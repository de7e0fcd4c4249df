//! Whose data it is.

use std::{fmt, sync::Arc};

/// A tenant's name: 1–150 bytes of `[A-Za-z0-9!_.*'()-]`, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// Why a text is not a tenant's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantIdError {
    /// Nothing there.
    #[error("tenant id is empty")]
    Empty,
    /// Longer than 150 bytes.
    #[error("tenant id is longer than 150 bytes")]
    TooLong,
    /// A character outside the allowed set.
    #[error("tenant id contains the unsupported character {0:?}")]
    Character(char),
    /// `.` or `..`.
    #[error("tenant id must not be \".\" or \"..\"")]
    Dots,
}

impl TenantId {
    /// The longest name allowed, in bytes.
    pub const MAX_BYTES: usize = 150;

    /// Checks a name.
    pub fn new(name: &str) -> Result<Self, TenantIdError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!_.*'()-".contains(c);
        if name.is_empty() {
            return Err(TenantIdError::Empty);
        }
        if name.len() > Self::MAX_BYTES {
            return Err(TenantIdError::TooLong);
        }
        if let Some(c) = name.chars().find(|c| !allowed(*c)) {
            return Err(TenantIdError::Character(c));
        }
        if name == "." || name == ".." {
            return Err(TenantIdError::Dots);
        }
        Ok(Self(Arc::from(name)))
    }

    /// The tenant of those who name none: `anonymous`.
    pub fn anonymous() -> Self {
        Self(Arc::from("anonymous"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_checked_once() {
        assert_eq!(TenantId::new("team-a.(b)!_*'").unwrap().as_str(), "team-a.(b)!_*'");
        assert_eq!(TenantId::new(""), Err(TenantIdError::Empty));
        assert_eq!(TenantId::new(".."), Err(TenantIdError::Dots));
        assert_eq!(TenantId::new("a/b"), Err(TenantIdError::Character('/')));
        assert_eq!(TenantId::new("a|b"), Err(TenantIdError::Character('|')));
        assert_eq!(TenantId::new(&"x".repeat(151)), Err(TenantIdError::TooLong));
    }
}
