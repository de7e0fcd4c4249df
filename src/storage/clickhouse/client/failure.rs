//! What can go wrong between us and a server, and what to do about it.

use std::{fmt, time::Duration};

use crate::storage::StorageError;

/// A failed statement.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What to do about it.
    pub class: Class,
    /// ClickHouse's number for it, if the server said so.
    pub code: Option<u32>,
    /// What was said, without the values of the statement.
    pub message: String,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Not reached, or the connection broke: another server may do, and the outcome is not known.
    Unreachable,
    /// The server has too much to do: later, and less.
    Overloaded,
    /// The server takes no writes.
    ReadOnly,
    /// The statement took more memory, time or rows than it may.
    Exhausted,
    /// The tables are not as we need them.
    Schema,
    /// We are not let in.
    Denied,
    /// Our mistake, or one of the crate's.
    Broken,
}

impl Failure {
    /// Reads a failure of the client crate.
    pub fn of(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        match error {
            Error::Network(_) | Error::TimedOut | Error::NotEnoughData => {
                Self { class: Class::Unreachable, code: None, message: chain(&error) }
            }
            Error::BadResponse(text) => {
                let code = code_of(&text);
                Self { class: code.map_or(Class::Unreachable, class_of), code, message: text }
            }
            other => Self { class: Class::Broken, code: None, message: chain(&other) },
        }
    }
}

impl From<Failure> for StorageError {
    fn from(failure: Failure) -> Self {
        let detail = failure.message;
        match failure.class {
            Class::Unreachable => Self::Unavailable { detail, retry_after: None },
            Class::Overloaded => Self::Overloaded { detail, retry_after: Duration::from_secs(5) },
            Class::ReadOnly | Class::Exhausted | Class::Schema | Class::Denied | Class::Broken => {
                Self::Remote { detail }
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The number in `Code: 252. DB::Exception: …`.
fn code_of(text: &str) -> Option<u32> {
    let digits = &text[text.find("Code: ")? + 6..];
    digits[..digits.find('.')?].parse().ok()
}

/// ClickHouse's numbers, as in its `ErrorCodes.cpp`.
fn class_of(code: u32) -> Class {
    match code {
        // SOCKET_TIMEOUT, NETWORK_ERROR, ALL_CONNECTION_TRIES_FAILED, UNKNOWN_STATUS_OF_INSERT, KEEPER_EXCEPTION
        209 | 210 | 279 | 319 | 999 => Class::Unreachable,
        // TOO_MANY_SIMULTANEOUS_QUERIES, TOO_MANY_PARTS
        202 | 252 => Class::Overloaded,
        // READONLY, TABLE_IS_READ_ONLY
        164 | 242 => Class::ReadOnly,
        // TIMEOUT_EXCEEDED, MEMORY_LIMIT_EXCEEDED, TOO_MANY_ROWS, TOO_MANY_BYTES, TOO_MANY_ROWS_OR_BYTES
        159 | 241 | 158 | 307 | 396 => Class::Exhausted,
        // NO_SUCH_COLUMN_IN_TABLE, THERE_IS_NO_COLUMN, UNKNOWN_IDENTIFIER, UNKNOWN_TABLE, UNKNOWN_DATABASE, INCORRECT_DATA
        16 | 8 | 36 | 47 | 60 | 81 | 117 => Class::Schema,
        // UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, ACCESS_DENIED, AUTHENTICATION_FAILED
        192..=194 | 497 | 516 => Class::Denied,
        _ => Class::Broken,
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
