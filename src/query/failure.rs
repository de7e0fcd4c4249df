//! Why a request for data has no answer.

use std::time::Duration;

use crate::{model::OverLimit, promql::QueryError, storage::StorageError};

/// A request's failure, by what it means to the caller.
#[derive(Debug, thiserror::Error)]
pub enum QueryFailure {
    /// A parameter has a value that cannot be used.
    #[error("invalid parameter \"{name}\": {reason}")]
    Parameter {
        /// Which.
        name: &'static str,
        /// Why not.
        reason: String,
    },
    /// The request as a whole makes no sense.
    #[error("{0}")]
    Request(String),
    /// Too many queries wait already.
    #[error("too many queries are waiting for a place ({waiting} of {limit})")]
    Overloaded {
        /// How many wait.
        waiting: usize,
        /// How many may.
        limit: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// As many exports run as may.
    #[error("no more exports may run now; there are {limit} places, shared between tenants")]
    Exporting {
        /// How many may run.
        limit: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// More than the tenant may ask.
    #[error(transparent)]
    OverLimit(#[from] OverLimit),
    /// The engine has no answer.
    #[error("{0}")]
    Query(QueryError),
    /// The store has no answer.
    #[error("{0}")]
    Storage(#[from] StorageError),
}

impl QueryFailure {
    /// What one query may cost was not enough for it: it makes no sense to ask the same again.
    pub(super) fn costs(over: OverLimit) -> Self {
        Self::Query(QueryError::OverLimit(over))
    }

    /// The limit of the tenant that was in the way.
    pub fn over_limit(&self) -> Option<&OverLimit> {
        match self {
            Self::OverLimit(over) | Self::Query(QueryError::OverLimit(over)) => Some(over),
            _ => None,
        }
    }

    /// A parameter that cannot be used.
    pub fn parameter(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Parameter { name, reason: reason.into() }
    }
}

/// What is wrong with the text itself is the fault of the parameter that carried it.
impl From<QueryError> for QueryFailure {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Parse(_) | QueryError::BadData(_) => Self::parameter("query", error.to_string()),
            QueryError::Execution(_)
            | QueryError::TooManySamples
            | QueryError::OverLimit(_)
            | QueryError::Memory { .. }
            | QueryError::Canceled(_)
            | QueryError::Timeout(_)
            | QueryError::Storage(_) => Self::Query(error),
        }
    }
}
