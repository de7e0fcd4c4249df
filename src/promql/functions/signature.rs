//! What each function takes and returns: the parser checks calls against this table.

use crate::promql::parse::ValueType;

/// A function's name and types.
#[derive(Debug, PartialEq, Eq)]
pub struct Signature {
    /// As written; case matters.
    pub name: &'static str,
    /// What it takes. With `variadic`, the last ones may be absent or repeated.
    pub args: &'static [ValueType],
    /// 0: exactly `args`. n > 0: the last n may be absent or repeat up to n times. −1: the last repeats without bound.
    pub variadic: i32,
    /// What it gives.
    pub returns: ValueType,
    /// Behind Prometheus' `promql-experimental-functions`.
    pub experimental: bool,
}

/// The function called `name`.
pub fn lookup(name: &str) -> Option<&'static Signature> {
    TABLE.iter().find(|s| s.name == name)
}

const TABLE: &[Signature] = &[];
