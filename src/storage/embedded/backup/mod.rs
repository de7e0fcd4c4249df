//! Backups: whole copies of a store, kept where its disk is not; drawn in `schema/disk/backup.md`.
//!
//! ```text
//!            ┌─ the store's machine ─┐            ┌─ a directory, or a bucket ──────────────┐
//! create     │ snapshot ── files ────┼─ new ones ─▶ objects/ab/ab12…   by their checksum    │
//!            └───────────────────────┘            │ backups/<name>.json  the manifest, last │
//!                                                 │ claims/<kind>-<number>.json  who works  │
//!                                                 └─────────────────────────────────────────┘
//! ```
//!
//! 1. [`create`](create()) has a [snapshot] made, copies what of it is not there yet, and writes the [`Manifest`]. Parts
//!    never change, so a part that the newest backup has is not even read.
//! 2. [`verify`](verify()) reads everything of a backup back, checks every checksum, and opens every part.
//! 3. [`restore`](restore()) writes a backup into an empty directory, which no store opens until all of it is there.
//! 4. [`drill`](drill()) restores one, opens it as a store, and removes it again.
//! 5. [`list`] tells what there is; [`prune`](prune()) removes old backups and what only they had.
//!
//! Where backups are kept is a [`Target`]: a [`Directory`], every byte of it synced, or a [`Bucket`] of an
//! S3-compatible store.
//!
//! # Invariants
//!
//! * An object is called by the SHA-256 of its bytes and is there whole or not at all; nobody ever changes one.
//! * A manifest is written when all that it names is there, and removed before any of it: what was interrupted is no
//!   backup, and the next one goes on from it.
//! * Whoever makes a backup and whoever removes one say so first and look for each other then ([`claim`]), so nothing is
//!   removed that a backup being made counts on.
//! * A directory that is being restored into says so, and the engine does not open it ([`refuse_unfinished`]).

mod bucket;
mod claim;
mod create;
mod directory;
mod drill;
mod manifest;
mod pieces;
mod prune;
mod remote;
mod restore;
mod snapshot;
mod target;
mod verify;

use std::io;

use crate::storage::StorageError;

pub use bucket::{Bucket, S3Settings};
pub use create::{CreateOptions, Made, create};
pub use directory::Directory;
pub use drill::{Drilled, drill};
pub use manifest::{BackedFile, BackupName, FORMAT, Manifest};
pub use prune::{Listed, Pruned, list, prune};
pub(super) use restore::refuse_unfinished;
pub use restore::{RestoreOptions, Restored, restore};
pub use snapshot::{LAST, LastBackup};
pub use target::{Address, Held, Source, Target};
pub use verify::{Finding, Verified, verify};

/// What a backup gives, or why not.
pub type Result<T, E = BackupError> = std::result::Result<T, E>;

/// Why a backup was not made, checked, restored or removed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It was asked for in a way that cannot be, or at a time.
    #[error("{0}")]
    Refused(String),
    /// There is no object of that name.
    #[error("{name} is not at {place}")]
    Missing {
        /// Where it should be.
        place: String,
        /// The object.
        name: String,
    },
    /// Something does not read back as it was written.
    #[error("{name} at {place} is damaged: {why}")]
    Damaged {
        /// Where it is.
        place: String,
        /// The object.
        name: String,
        /// What was expected.
        why: String,
    },
    /// The place where backups are could not be read or written.
    #[error("{doing} at {place}: {why}")]
    Place {
        /// Where backups are.
        place: String,
        /// What was being done.
        doing: String,
        /// What it said.
        why: String,
    },
    /// A file of this machine could not be read or written.
    #[error("{doing}: {source}")]
    Local {
        /// What was being done.
        doing: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The store would not.
    #[error("{}", with_cause(.0))]
    Store(#[from] StorageError),
}

impl BackupError {
    /// An error of this machine's files.
    pub(super) fn local(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Local { doing, source }
    }
}

/// The error and what the operating system said of it.
fn with_cause(error: &StorageError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// How far a command is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files that are done.
    pub files: u64,
    /// Files in all.
    pub of_files: u64,
    /// Bytes that are done.
    pub bytes: u64,
    /// Bytes in all.
    pub of_bytes: u64,
}

/// Is told how far a command is.
pub type Told<'a> = dyn FnMut(Progress) + 'a;

/// Two hexadecimal digits for each byte.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
