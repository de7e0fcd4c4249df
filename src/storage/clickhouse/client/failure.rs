//! What can go wrong between us and a server, and what to do about it.
//!
//! ClickHouse says `Code: 252. DB::Exception: …`, as an answer or, when rows are already on their way,
//! at their end; the number decides the [`Class`]. The message may hold parts of the statement and names
//! of hosts, so it is for the log. What a caller is told is written here.

use std::{fmt, time::Duration};

use crate::storage::StorageError;

/// A failed statement.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What to do about it.
    pub class: Class,
    /// ClickHouse's number for it, if the server said so.
    pub code: Option<u32>,
    /// What was said, without the values of the statement; for the log.
    pub message: String,
    /// When to try again, if that is known.
    pub retry_after: Option<Duration>,
    /// The bound that was hit, for the caller, if it is known.
    pub(super) bound: Option<String>,
    /// Whether the server can know nothing of the statement.
    pub(super) unsent: bool,
    /// Whether all the time there was has been spent.
    pub(super) timed_out: bool,
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
    /// We are not let in, or may not do what we need to.
    Denied,
    /// Our mistake, or one of the crate's.
    Broken,
}

impl Class {
    /// Whether another server, or the same one later, may do what this one did not.
    pub fn may_pass(self) -> bool {
        match self {
            Self::Unreachable | Self::Overloaded | Self::ReadOnly => true,
            Self::Exhausted | Self::Schema | Self::Denied | Self::Broken => false,
        }
    }

    /// Its name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Overloaded => "overloaded",
            Self::ReadOnly => "read_only",
            Self::Exhausted => "exhausted",
            Self::Schema => "schema",
            Self::Denied => "denied",
            Self::Broken => "broken",
        }
    }
}

impl Failure {
    /// A failure without a number.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { class, code: None, message, retry_after: None, bound: None, unsent: false, timed_out: false }
    }

    /// The same with ClickHouse's number.
    #[must_use]
    pub fn with_code(self, code: Option<u32>) -> Self {
        Self { code, ..self }
    }

    /// Reads a failure of the client crate.
    pub fn of(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        match error {
            // Bytes that do not decompress were cut or changed on the way.
            Error::TimedOut | Error::NotEnoughData | Error::Decompression(_) => {
                Self::new(Class::Unreachable, chain(&error))
            }
            Error::Network(ref cause) => Self {
                unsent: cause
                    .downcast_ref::<hyper_util::client::legacy::Error>()
                    .is_some_and(hyper_util::client::legacy::Error::is_connect),
                ..Self::new(Class::Unreachable, chain(&error))
            },
            Error::BadResponse(text) => Self::said(text),
            other => Self::new(Class::Broken, chain(&other)),
        }
    }

    /// Reads what a server said.
    pub(super) fn said(text: String) -> Self {
        let code = code_of(&text);
        // Without a number it is not ClickHouse who speaks, but something on the way to it.
        let class = code.map_or(Class::Unreachable, |code| class_of(code, &text));
        let mut message = text;
        if matches!(code, Some(115 | 452)) || (code == Some(164) && class == Class::Denied) {
            message.push_str(
                "; the server has to know the settings of our statements and let the user change them \
                 (a user that only reads needs readonly = 2)",
            );
        }
        Self { code, ..Self::new(class, message) }
    }

    /// Nothing came within the time there was.
    pub(super) fn timed_out(what: &str, limit: Duration) -> Self {
        Self {
            timed_out: true,
            ..Self::new(Class::Unreachable, format!("{what} within {} s", limit.as_secs_f64()))
        }
    }

    /// Whether the server itself said so: it is there, even if what it stands on is not.
    pub(super) fn is_answer(&self) -> bool {
        self.code.is_some() || self.class != Class::Unreachable
    }

    /// For an insert, whatever a server has no resources for may work later: its sender is not to blame.
    pub fn of_insert(self) -> Self {
        match self.class {
            Class::Exhausted => Self { class: Class::Overloaded, ..self },
            Class::Unreachable
            | Class::Overloaded
            | Class::ReadOnly
            | Class::Schema
            | Class::Denied
            | Class::Broken => self,
        }
    }
}

impl From<Failure> for StorageError {
    fn from(failure: Failure) -> Self {
        let retry_after = failure.retry_after;
        match failure.class {
            Class::Unreachable => {
                Self::Unavailable { detail: "ClickHouse is out of reach".to_owned(), retry_after }
            }
            Class::ReadOnly => {
                Self::Unavailable { detail: "ClickHouse takes no writes now".to_owned(), retry_after }
            }
            Class::Overloaded => Self::Overloaded {
                detail: "ClickHouse has too much to do".to_owned(),
                retry_after: retry_after.unwrap_or(Duration::from_secs(5)),
            },
            Class::Exhausted => {
                Self::Exhausted { detail: failure.bound.unwrap_or_else(|| bound(failure.code).1.to_owned()) }
            }
            Class::Schema | Class::Denied | Class::Broken => Self::Remote { detail: failure.message },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The setting that bounds what a statement ran out of, and what its caller is told.
pub(super) fn bound(code: Option<u32>) -> (Option<&'static str>, &'static str) {
    match code {
        Some(159 | 160) => (Some("max_execution_time"), "the query takes longer in ClickHouse than it may"),
        Some(241) => (Some("max_memory_usage"), "the query takes more memory in ClickHouse than it may"),
        Some(158) => (Some("max_rows_to_read"), "the query reads more rows in ClickHouse than it may"),
        Some(307) => (Some("max_bytes_to_read"), "the query reads more bytes in ClickHouse than it may"),
        Some(396) => (Some("max_result_rows"), "the query answers more in ClickHouse than it may"),
        Some(394) => (None, "the query was ended in ClickHouse"),
        _ => (None, "the query takes more in ClickHouse than it may"),
    }
}

/// The number in `Code: 252. DB::Exception: …`.
pub(super) fn code_of(text: &str) -> Option<u32> {
    let start = text.find("Code: ")? + 6;
    let digits = text[start..].split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// ClickHouse's numbers, as in its `ErrorCodes.cpp`.
fn class_of(code: u32, text: &str) -> Class {
    match code {
        // What the server as a whole has too little of is not this statement's doing.
        241 if text.contains("(total)") => Class::Overloaded,
        // READONLY is said of the statement, and of settings that the user may not change.
        164 if text.contains("setting") => Class::Denied,
        // CANNOT_READ_ALL_DATA, CHECKSUM_DOESNT_MATCH, ATTEMPT_TO_READ_AFTER_EOF: cut or changed on the way
        // CANNOT_READ_FROM_SOCKET, CANNOT_WRITE_TO_SOCKET, DNS_ERROR, NO_FREE_CONNECTION, SOCKET_TIMEOUT,
        // NETWORK_ERROR, NO_ZOOKEEPER, ABORTED, ALL_CONNECTION_TRIES_FAILED
        // TOO_FEW_LIVE_REPLICAS, UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE, REPLICA_IS_NOT_IN_QUORUM,
        // UNKNOWN_STATUS_OF_INSERT, SYSTEM_ERROR, S3_ERROR, KEEPER_EXCEPTION and what has no number of its own
        32 | 33 | 40 | 95 | 96 | 198 | 203 | 209 | 210 | 225 | 236 | 279 | 285 | 286 | 289 | 319 | 425
        | 499 | 999 | 1000 | 1002 => Class::Unreachable,
        // CANNOT_ALLOCATE_MEMORY, QUOTA_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, TOO_MANY_PARTS,
        // CANNOT_SCHEDULE_TASK, DEADLOCK_AVOIDED, SERVER_OVERLOADED
        173 | 201 | 202 | 252 | 439 | 473 | 745 => Class::Overloaded,
        // CANNOT_WRITE_TO_FILE_DESCRIPTOR, READONLY, TABLE_IS_READ_ONLY, NOT_ENOUGH_SPACE
        75 | 164 | 242 | 243 => Class::ReadOnly,
        // TOO_MANY_ROWS, TIMEOUT_EXCEEDED, TOO_SLOW, SET_SIZE_LIMIT_EXCEEDED, MEMORY_LIMIT_EXCEEDED,
        // LIMIT_EXCEEDED, TOO_DEEP_RECURSION, TOO_MANY_BYTES, QUERY_WAS_CANCELLED, TOO_MANY_ROWS_OR_BYTES
        158 | 159 | 160 | 191 | 241 | 290 | 306 | 307 | 394 | 396 => Class::Exhausted,
        // THERE_IS_NO_COLUMN, NO_SUCH_COLUMN_IN_TABLE, BAD_ARGUMENTS, UNKNOWN_FUNCTION, UNKNOWN_IDENTIFIER,
        // TYPE_MISMATCH, UNKNOWN_TABLE, UNKNOWN_DATABASE, UNKNOWN_SETTING, INCORRECT_DATA, TABLE_IS_DROPPED
        8 | 16 | 36 | 46 | 47 | 53 | 60 | 81 | 115 | 117 | 218 => Class::Schema,
        // UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, IP_ADDRESS_NOT_ALLOWED, DATABASE_ACCESS_DENIED,
        // SETTING_CONSTRAINT_VIOLATION, ACCESS_DENIED, SET_NON_GRANTED_ROLE, AUTHENTICATION_FAILED
        192..=195 | 291 | 452 | 497 | 512 | 516 => Class::Denied,
        _ => Class::Broken,
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // The crate puts causes into its own text as well.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Fault;

    fn class(text: &str) -> (Option<u32>, Class) {
        let failure = Failure::said(text.to_owned());
        (failure.code, failure.class)
    }

    #[test]
    fn numbers_decide_the_class() {
        for (text, expected) in [
            (
                "Code: 252. DB::Exception: Too many parts (300). (TOO_MANY_PARTS)",
                (Some(252), Class::Overloaded),
            ),
            ("Code: 60. DB::Exception: Table x does not exist", (Some(60), Class::Schema)),
            ("Code: 516", (Some(516), Class::Denied)),
            ("Code: 241. DB::Exception: Query memory limit exceeded", (Some(241), Class::Exhausted)),
            ("Code: 241. DB::Exception: (total) memory limit exceeded", (Some(241), Class::Overloaded)),
            (
                "Code: 164. DB::Exception: Cannot modify 'x' setting in readonly mode",
                (Some(164), Class::Denied),
            ),
            ("Code: 164. DB::Exception: Cannot execute query in readonly mode", (Some(164), Class::ReadOnly)),
            ("Code: 4294967296. DB::Exception: no such number", (None, Class::Unreachable)),
            ("Code: x", (None, Class::Unreachable)),
            ("502 Bad Gateway", (None, Class::Unreachable)),
            ("Code: 62. DB::Exception: Syntax error", (Some(62), Class::Broken)),
            ("", (None, Class::Unreachable)),
        ] {
            assert_eq!(class(text), expected, "{text}");
        }
    }

    #[test]
    fn a_caller_learns_neither_statements_nor_hosts() {
        let secret = "SELECT secret FROM ch-1.internal";
        for (code, fault) in [
            (209, Fault::Passing),
            (252, Fault::Passing),
            (242, Fault::Passing),
            (159, Fault::Caller),
            (241, Fault::Caller),
            (60, Fault::Ours),
            (516, Fault::Ours),
            (62, Fault::Ours),
        ] {
            let failure = Failure::said(format!("Code: {code}. DB::Exception: {secret}"));
            let error = StorageError::from(failure);
            assert_eq!(error.fault(), fault, "{code}");
            // Whoever is at fault is told the text, but for what is ours: that goes to the log.
            assert_eq!(error.to_string().contains("secret"), fault == Fault::Ours, "{error}");
        }
    }

    #[test]
    fn an_insert_is_never_its_senders_fault() {
        for code in [158, 159, 160, 191, 241, 290, 306, 307, 394, 396] {
            let failure = Failure::said(format!("Code: {code}. DB::Exception: no")).of_insert();
            assert_eq!(StorageError::from(failure).fault(), Fault::Passing, "{code}");
        }
    }

    #[test]
    fn a_refused_setting_says_what_to_do() {
        for text in [
            "Code: 115. DB::Exception: Unknown setting 'x'",
            "Code: 452. DB::Exception: Setting max_threads should not be changed",
            "Code: 164. DB::Exception: Cannot modify 'max_threads' setting in readonly mode",
        ] {
            let failure = Failure::said(text.to_owned());
            assert!(failure.message.contains("readonly = 2"), "{failure}");
            assert!(!failure.class.may_pass());
        }
    }
}
