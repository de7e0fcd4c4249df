//! What can go wrong in a store, by what it means to the caller.

use std::{path::PathBuf, time::Duration};

/// A store's failure.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The selection matches more series than the request allows.
    #[error("the query selects more than {limit} series")]
    TooManySeries {
        /// The bound that was set.
        limit: usize,
    },
    /// The labels of the series take more than the request allows.
    #[error("the labels of the series that the query selects take more than {limit} bytes")]
    TooManyLabelBytes {
        /// The bound that was set.
        limit: u64,
    },
    /// Nobody waits for the answer any more.
    #[error("nobody waits for the answer any more")]
    Stopped,
    /// The disk is full; reads go on.
    #[error("disk is full: {detail}")]
    DiskFull {
        /// Which volume and how much is needed.
        detail: String,
    },
    /// Too much is waiting to be written.
    #[error("store is overloaded: {detail}")]
    Overloaded {
        /// What is full.
        detail: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Not ready yet, closing, or out of reach.
    #[error("store is unavailable: {detail}")]
    Unavailable {
        /// The cause.
        detail: String,
        /// When to try again, if that is known.
        retry_after: Option<Duration>,
    },
    /// It takes more than a server that the store stands on gives one request.
    #[error("{detail}")]
    Exhausted {
        /// Which bound it is.
        detail: String,
    },
    /// Something on disk does not read back.
    #[error("{path} is damaged at byte {offset}: {detail}", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was expected.
        detail: String,
    },
    /// The operating system refused.
    #[error("{context}")]
    Io {
        /// What was being done.
        context: String,
        /// What it said.
        source: std::io::Error,
    },
    /// A server that the store stands on said no.
    #[error("{detail}")]
    Remote {
        /// What it said.
        detail: String,
    },
    /// The store does not do this.
    #[error("{0}")]
    Unsupported(String),
}

/// Whose fault an error is, which decides the status code, the log level and whether to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller can fix it, and sending again will not.
    Caller,
    /// Likely over in a moment.
    Passing,
    /// A human has to look.
    Ours,
}

impl StorageError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::TooManySeries { .. }
            | Self::TooManyLabelBytes { .. }
            | Self::Exhausted { .. }
            | Self::Stopped
            | Self::Unsupported(_) => Fault::Caller,
            Self::DiskFull { .. } | Self::Overloaded { .. } | Self::Unavailable { .. } => Fault::Passing,
            Self::Corrupt { .. } | Self::Io { .. } | Self::Remote { .. } => Fault::Ours,
        }
    }

    /// Wraps what the operating system said, telling a full disk from other trouble.
    pub fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        let context = context.into();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { detail: context }
            }
            _ => Self::Io { context, source },
        }
    }
}
