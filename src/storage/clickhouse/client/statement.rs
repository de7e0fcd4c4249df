//! Statements. Their text is ours; whatever comes from outside is a parameter.

use serde::Serialize;

/// A statement, its parameters and its settings.
#[derive(Clone, Debug)]
pub struct Statement {
    pub(super) sql: String,
    pub(super) params: Vec<(String, Param)>,
    pub(super) settings: Vec<(&'static str, String)>,
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
        Self { sql: sql.into(), params: Vec::new(), settings: Vec::new() }
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

    /// The text.
    pub fn sql(&self) -> &str {
        &self.sql
    }
}
