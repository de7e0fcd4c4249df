//! What whoever operates the process is told of it: set when it starts.

use crate::model::Timestamp;

/// A process and what it was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// The configuration in effect, as YAML; secrets are not in it.
    pub config: String,
    /// When it started.
    pub started: Timestamp,
    /// The directory it works in.
    pub directory: String,
    /// The host it is on.
    pub host: String,
    /// How long samples are kept; nothing is forever.
    pub retention: String,
    /// Bytes of memory it may take, if that is bounded.
    pub memory_limit: Option<u64>,
}
