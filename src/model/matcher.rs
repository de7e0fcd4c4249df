//! What a selector asks of a label.

use std::{fmt, sync::Arc};

use super::{
    labels::Quoted,
    regex::{Regex, RegexError},
};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Matches,
    /// `!~`
    NotMatches,
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::NotMatches => "!~",
        })
    }
}

/// One condition on one label. A label that is not there has the value `""`.
#[derive(Clone)]
pub struct Matcher {
    name: Arc<str>,
    op: MatchOp,
    value: Arc<str>,
    /// There for `=~` and `!~` only.
    regex: Option<Arc<Regex>>,
}

impl Matcher {
    /// Makes a matcher; fails if a regular expression does not compile.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, RegexError> {
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Matches | MatchOp::NotMatches => Some(Arc::new(Regex::new(value)?)),
        };
        Ok(Self { name: Arc::from(name), op, value: Arc::from(value), regex })
    }

    /// The matcher `name="value"`.
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: Arc::from(name), op: MatchOp::Equal, value: Arc::from(value), regex: None }
    }

    /// The same condition on another label.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Self {
        Self { name: Arc::from(name), ..self.clone() }
    }

    /// The label it looks at.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it compares.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// What it compares with: a value or a pattern.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The compiled pattern of `=~` and `!~`.
    pub fn regex(&self) -> Option<&Regex> {
        self.regex.as_deref()
    }

    /// About the bytes that the compiled pattern takes.
    pub fn compiled_bytes(&self) -> usize {
        self.regex().map_or(0, Regex::compiled_bytes)
    }

    /// Whether a label with this value passes.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => *self.value == *value,
            (MatchOp::NotEqual, _) => *self.value != *value,
            (MatchOp::Matches, Some(regex)) => regex.is_match(value),
            (MatchOp::NotMatches, Some(regex)) => !regex.is_match(value),
            (MatchOp::Matches | MatchOp::NotMatches, None) => {
                unreachable!("a pattern matcher is only made with its regex")
            }
        }
    }

    /// Whether a series without the label passes.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (self.op, &self.name, &self.value) == (other.op, &other.name, &other.value)
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.op, &self.name, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if super::labels::is_plain_label_name(&self.name) {
            write!(f, "{}{}{}", self.name, self.op, Quoted(&self.value))
        } else {
            write!(f, "{}{}{}", Quoted(&self.name), self.op, Quoted(&self.value))
        }
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
