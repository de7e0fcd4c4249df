//! The catalog: which parts there are, what was deleted, what is known of tenants and metrics.
//!
//! It is a sled database, and sled has traps; this module is the only one that touches it, and these
//! rules keep out of them:
//!
//! * **One writer.** A thread owns the database and is sent [`Change`]s; concurrent batches can hang sled.
//! * **A commit is a batch, a flush and a superblock.** sled flushes when told to and never by itself,
//!   because its flusher aborts the process on an error. When [`Catalog::commit`] returns, the change is
//!   durable, and changes sent at the same time share one flush.
//! * **One tree, one key byte per table.** So a batch is atomic over tables, and no tree is ever dropped.
//! * **Only open-ended walks**, stopped at the first key of another table: bounded ones walk to the end.
//! * **Room first.** A flush on a full disk leaves sled unusable, so free space is looked at before.
//! * **After an error it is not touched again.** Not read, not written, not even dropped, which can hang:
//!   the catalog is dead, and the store makes a new one.
//! * **Never the only copy.** All of it can be rebuilt from part footers, [`ledger`] and log. sled can lose
//!   the end of its log silently and serve an older state; so each commit raises a generation that the
//!   [`superblock`] has too, and a fingerprint over all rows is checked at open. When in doubt:
//!   [`CatalogState::Rebuild`].
//!
//! What was written since sled was opened stays in its memory, so after [`REOPEN_AFTER`] bytes it is closed
//! and opened again. Formats: `schema/disk/catalog.md`, `schema/disk/superblock.md`.

pub mod ledger;
pub mod rows;
pub mod superblock;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};

use self::{
    ledger::Ledger,
    superblock::{Found, Superblock},
    writer::{Job, Writer},
};
use super::disk::Disk;
use crate::storage::{Result, StorageError};

pub use rows::{Cursor, ExemplarRow, MetadataRow, PartRow, Row, Table, TenantRow, Tombstone};

/// The directory of the sled database in the data directory.
pub const CATALOG: &str = "kv";

/// The superblock's name in the data directory.
pub const SUPERBLOCK: &str = "SUPERBLOCK";

/// Bytes written after which sled is closed and opened again.
pub const REOPEN_AFTER: u64 = 32 << 20;

/// Where the catalog lies and how it is kept.
#[derive(Clone, Debug)]
pub struct CatalogConfig {
    /// The store's directory.
    pub data_dir: PathBuf,
    /// Less free space than this refuses commits.
    pub min_free_bytes: u64,
}

/// What opening finds.
#[derive(Debug)]
pub enum CatalogState {
    /// The catalog is as it was promised. `clean` says whether the store was closed in order.
    Ready {
        /// The open catalog.
        catalog: Catalog,
        /// Whether the store was closed in order.
        clean: bool,
    },
    /// There has never been one here, or all of it is gone.
    Absent,
    /// What is there cannot be trusted; [`Catalog::create`] starts a new one.
    Rebuild {
        /// Why, for the log.
        reason: String,
    },
}

/// Rows to put and to remove, all or none.
#[derive(Clone, Debug, Default)]
pub struct Change {
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Change {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a row, in place of the one with the same key.
    pub fn put<R: Row>(&mut self, row: &R) -> &mut Self {
        self.rows.insert(row.full_key(), Some(row.value()));
        self
    }

    /// Removes the row with the same key as this one.
    pub fn remove<R: Row>(&mut self, row: &R) -> &mut Self {
        self.rows.insert(row.full_key(), None);
        self
    }

    /// Puts all rows of a ledger but the exemplars, which are no part of the catalog.
    pub fn put_ledger(&mut self, ledger: &Ledger) -> &mut Self {
        ledger.tenants.iter().for_each(|row| {
            self.put(row);
        });
        ledger.metadata.iter().for_each(|row| {
            self.put(row);
        });
        ledger.tombstones.iter().for_each(|row| {
            self.put(row);
        });
        ledger.cursors.iter().for_each(|row| {
            self.put(row);
        });
        self
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// The open catalog. Its calls wait for the disk, so they are made off the I/O threads.
#[derive(Debug)]
pub struct Catalog {
    jobs: mpsc::Sender<Job>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Catalog {
    /// Opens the catalog and checks that it is the one that was promised.
    ///
    /// An error is the file system's; anything wrong with the catalog itself is a state.
    pub fn open(disk: &Arc<dyn Disk>, config: &CatalogConfig) -> Result<CatalogState> {
        let found = Superblock::read(disk, &config.data_dir.join(SUPERBLOCK))?;
        let listed = disk.list(&config.data_dir.join(CATALOG));
        let listed = listed.map_err(|e| StorageError::io("looking for the catalog", e))?;
        let rebuild = |reason: String| Ok(CatalogState::Rebuild { reason });
        let superblock = match (found, listed.is_empty()) {
            (Found::Missing, true) => return Ok(CatalogState::Absent),
            (Found::Missing, false) => return rebuild("the superblock is missing".into()),
            (Found::Damaged, _) => return rebuild("the superblock is damaged".into()),
            (Found::Valid(_), true) => return rebuild("the catalog is missing".into()),
            (Found::Valid(superblock), false) => superblock,
        };
        match Writer::open(disk, config, superblock.generation) {
            Ok(writer) => Ok(CatalogState::Ready { catalog: Self::start(writer)?, clean: superblock.clean }),
            Err(reason) => rebuild(reason),
        }
    }

    /// Removes what is left of the old catalog and starts a new one with these rows.
    pub fn create(disk: &Arc<dyn Disk>, config: &CatalogConfig, rows: Change) -> Result<Self> {
        let before = match Superblock::read(disk, &config.data_dir.join(SUPERBLOCK))? {
            Found::Valid(superblock) => superblock.generation,
            Found::Missing | Found::Damaged => 0,
        };
        let directory = config.data_dir.join(CATALOG);
        remove_directory(disk, &directory)?;
        disk.create_dir_all(&config.data_dir)
            .map_err(|e| StorageError::io("creating the data directory", e))?;
        let writer = Writer::create(disk, config, before).map_err(|reason| StorageError::Unavailable {
            detail: format!("catalog cannot be made: {reason}"),
            retry_after: None,
        })?;
        let catalog = Self::start(writer)?;
        catalog.commit(rows)?;
        Ok(catalog)
    }

    fn start(writer: Writer) -> Result<Self> {
        let (jobs, receiver) = mpsc::channel();
        let thread = thread::Builder::new().name("catalog".into()).spawn(move || writer.run(&receiver));
        let thread = thread.map_err(|e| StorageError::io("starting the catalog's thread", e))?;
        Ok(Self { jobs, thread: Some(thread) })
    }

    /// Makes a change durable: the generation it is part of.
    pub fn commit(&self, change: Change) -> Result<u64> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Job::Commit { rows: change.rows, reply })?;
        answer.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// All rows of a table, in order of their keys.
    ///
    /// A row that does not decode is an error: its bytes are as they were written, so it was written by
    /// a version that this one does not know.
    pub fn rows<R: Row>(&self) -> Result<Vec<R>> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Job::Rows { table: R::TABLE, reply })?;
        let rows = answer.recv().unwrap_or_else(|_| Err(gone()))?;
        let decoded = rows.iter().map(|(key, value)| R::decode(&key[1..], value));
        decoded.collect::<std::result::Result<_, _>>().map_err(|damaged| StorageError::Corrupt {
            path: PathBuf::from(CATALOG),
            offset: 0,
            detail: format!("a row of table {:?} does not read back: {damaged}", R::TABLE),
        })
    }

    /// The newest durable generation.
    pub fn generation(&self) -> Result<u64> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Job::Generation { reply })?;
        answer.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Marks the store as closed in order and closes the catalog.
    pub fn close(mut self) -> Result<()> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Job::Close { reply })?;
        let closed = answer.recv().unwrap_or_else(|_| Err(gone()));
        self.join();
        closed
    }

    fn send(&self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| gone())
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // What it panicked with was its last answer's error.
            let _ = thread.join();
        }
    }
}

/// Waits until the database's files are let go, so that it can be opened again; marks nothing.
impl Drop for Catalog {
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel();
        self.jobs = closed;
        self.join();
    }
}

fn gone() -> StorageError {
    StorageError::Unavailable { detail: "catalog is closed".into(), retry_after: None }
}

fn remove_directory(disk: &Arc<dyn Disk>, path: &Path) -> Result<()> {
    match disk.remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(StorageError::io("removing the old catalog", e))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
