//! Statements. Their text is ours; whatever comes from outside is a parameter.

use std::time::Duration;

use serde::Serialize;

use super::failure::{Class, Failure};

/// What a server reads of one value, or of a text that has values, at most (`http_max_field_value_size`).
pub const MAX_FIELD_BYTES: usize = 128 << 10;

/// From how many bytes on a text needs `max_query_size`, which is 256 KiB by default.
const LARGE_TEXT: usize = 200 << 10;

/// A statement, its parameters and its settings.
#[derive(Clone, Debug)]
pub struct Statement {
    pub(super) sql: String,
    pub(super) params: Vec<(String, Param)>,
    pub(super) settings: Vec<(&'static str, String)>,
    pub(super) timeout: Option<Duration>,
}

/// The value of a `{name:Type}` in a statement.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Param {
    /// Int64 and smaller.
    Int(i64),
    /// UInt64 and smaller.
    Unsigned(u64),
    /// Float64.
    Float(f64),
    /// String.
    Text(String),
    /// Array(UInt64).
    Ids(Vec<u64>),
    /// Array(String).
    Texts(Vec<String>),
}

macro_rules! params {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $(impl From<$from> for Param {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}
params!(i64 => Int, u64 => Unsigned, f64 => Float, &str => Text, String => Text, Vec<u64> => Ids, Vec<String> => Texts);

impl Statement {
    /// A statement; `sql` is text of ours with a `{name:Type}` for each value.
    pub fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), params: Vec::new(), settings: Vec::new(), timeout: None }
    }

    /// Gives the value of a `{name:Type}`.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Param>) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    /// Sets a setting for this statement.
    #[must_use]
    pub fn setting(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.push((name, value.to_string()));
        self
    }

    /// Bounds the time it may take, instead of what is configured.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Fails if a server would not read it: then it has to be cut into several.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let too_long = |what: &str, bytes: usize| {
            let message = format!("{what} has {bytes} bytes, and a server reads {MAX_FIELD_BYTES}");
            Err(Failure::new(Class::Broken, message))
        };
        if self.params.is_empty() {
            return Ok(());
        }
        if self.sql.len() > MAX_FIELD_BYTES {
            return too_long("the text of a statement with values", self.sql.len());
        }
        for (name, value) in &self.params {
            let bytes = value.bytes();
            if bytes > MAX_FIELD_BYTES {
                return too_long(&format!("the value {name}"), bytes);
            }
        }
        Ok(())
    }

    /// The settings that its size asks for.
    pub(super) fn size_settings(&self) -> Option<(&'static str, String)> {
        (self.sql.len() > LARGE_TEXT).then(|| ("max_query_size", (self.sql.len() * 2).to_string()))
    }

    /// The tenant it is for, if it names one.
    pub(super) fn tenant(&self) -> Option<&str> {
        self.params.iter().find_map(|(name, value)| match value {
            Param::Text(text) if name == "tenant" => Some(text.as_str()),
            _ => None,
        })
    }

    /// The text.
    pub fn sql(&self) -> &str {
        &self.sql
    }
}

impl Param {
    /// The bytes it takes when it is sent, escapes included; no less than that.
    pub fn bytes(&self) -> usize {
        /// Quotes within an array, and each escape of theirs escaped once more.
        const ESCAPED: usize = 4;
        let text = |text: &str| {
            text.len() + (ESCAPED - 1) * text.bytes().filter(|b| matches!(b, b'\\' | b'\'' | 0..0x20)).count()
        };
        match self {
            Self::Int(_) | Self::Unsigned(_) | Self::Float(_) => 32,
            Self::Text(value) => text(value),
            Self::Ids(ids) => {
                2 + ids.iter().map(|id| 2 + id.checked_ilog10().unwrap_or(0) as usize).sum::<usize>()
            }
            Self::Texts(texts) => 2 + texts.iter().map(|value| text(value) + 3).sum::<usize>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_would_not_read_is_refused() {
        let statement = |value: Param| Statement::new("SELECT {x:String}").param("x", value);
        assert!(statement("x".repeat(MAX_FIELD_BYTES).into()).check().is_ok());
        assert!(statement("x".repeat(MAX_FIELD_BYTES + 1).into()).check().is_err());
        assert!(statement("'".repeat(MAX_FIELD_BYTES / 4 + 1).into()).check().is_err());
        assert!(statement(vec![u64::MAX; 6000].into()).check().is_ok());
        assert!(statement(vec![u64::MAX; 7000].into()).check().is_err());
        assert!(Statement::new("x".repeat(1 << 20)).check().is_ok());
        assert!(Statement::new("x".repeat(1 << 20)).param("x", 1_u64).check().is_err());
    }

    #[test]
    fn a_long_text_asks_for_room() {
        assert_eq!(Statement::new("SELECT 1").size_settings(), None);
        let long = Statement::new("x".repeat(1 << 20)).size_settings();
        assert_eq!(long, Some(("max_query_size", (2 << 20).to_string())));
    }

    #[test]
    fn the_tenant_is_found_among_the_values() {
        let statement = Statement::new("…").param("x", 1_i64).param("tenant", "acme");
        assert_eq!(statement.tenant(), Some("acme"));
        assert_eq!(Statement::new("…").tenant(), None);
    }
}
