//! Why a query has no answer.

use crate::{
    model::{ByteSize, OverLimit},
    promql::parse::Span,
    storage::StorageError,
};

/// A query's failure; each kind has its own status at the API.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is not PromQL. Prints `LINE:COL: parse error: MESSAGE`.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// The request makes no sense for this expression (`invalid expression type "range vector" for range query, …`).
    #[error("{0}")]
    BadData(String),
    /// The evaluation cannot go on (`many-to-many matching not allowed …`).
    #[error("{0}")]
    Execution(String),
    /// More samples than the query may load.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// More than the caller may ask.
    #[error(transparent)]
    OverLimit(#[from] OverLimit),
    /// More memory than queries may have together.
    #[error("over the limit query.max_memory of {most}, which all queries share")]
    Memory {
        /// What they may have.
        most: ByteSize,
        /// Whether this query would be too much even beside none.
        for_good: bool,
    },
    /// The caller went away, or somebody stopped the query.
    #[error("query was canceled in {0}")]
    Canceled(&'static str),
    /// The query's time is over.
    #[error("query timed out in {0}")]
    Timeout(&'static str),
    /// The store could not answer.
    #[error("expanding series: {0}")]
    Storage(#[from] StorageError),
}

/// What is wrong in a query's text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Prometheus' words.
    pub message: String,
    /// The place.
    pub span: Span,
    /// Its line, from 1; 0 if the text is empty and has no places.
    pub line: u32,
    /// Its byte in the line, from 1.
    pub column: u32,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line == 0 {
            return write!(f, "unknown position: parse error: {}", self.message);
        }
        write!(f, "{}:{}: parse error: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ParseError {}
