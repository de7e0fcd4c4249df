//! A snapshot to make a backup of: of a running server by its own hand, of a stopped one by ours.
//!
//! While it is copied, a lock is held on a file in it. A snapshot whose file nobody holds is of a backup that was cut
//! off, and the next one removes it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{
    super::{
        config::EmbeddedConfig,
        disk::{Disk, contents, replace},
        engine::Engine,
        lock::{Lock, refuse_foreign},
        part::TEMPORARY_SUFFIX,
        snapshot::{self, SNAPSHOTS},
    },
    BackupError, Result,
};
use crate::{clock::Clock, storage::StorageError};

/// The file in a snapshot that is held while it is copied.
const HELD: &str = "BACKUP";

/// The file in a data directory that tells of its last backup.
pub const LAST: &str = "LASTBACKUP";

/// The last backup that was made of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub place: String,
    /// When it was made, in milliseconds since the epoch.
    pub made_ms: i64,
}

impl LastBackup {
    /// What a data directory tells of its last backup, if there was one.
    pub fn read(disk: &dyn Disk, data_dir: &Path) -> Option<Self> {
        let bytes = contents(disk, &data_dir.join(LAST)).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    pub(super) fn write(&self, disk: &Arc<dyn Disk>, data_dir: &Path) {
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::other)
            .and_then(|text| replace(disk, &data_dir.join(LAST), &text));
        if let Err(error) = written {
            tracing::warn!(%error, "the store could not be told of its backup");
        }
    }
}

/// A snapshot that is ours until it is dropped from the disk.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) dir: PathBuf,
    disk: Arc<dyn Disk>,
    _held: File,
}

impl Taken {
    /// Has a snapshot made of the store in `data_dir`: by the server that has it, whom `ask` asks for one and its name, or
    /// here, if nobody has it.
    pub(super) fn take(
        disk: &Arc<dyn Disk>,
        clock: &Arc<dyn Clock>,
        data_dir: &Path,
        ask: &mut dyn FnMut() -> Result<String>,
    ) -> Result<Self> {
        let all = data_dir.join(SNAPSHOTS);
        remove_left(disk, &all);
        let name = match Lock::take(data_dir) {
            Ok(lock) => {
                if lock.was_left() {
                    drop(lock)
                } else {
                    lock.give_back()
                }
                by_ourselves(disk, clock, data_dir)?
            }
            Err(StorageError::Unavailable { .. }) => ask()?,
            Err(error) => return Err(error.into()),
        };
        let dir = all.join(&name);
        let is_there = !name.is_empty() && !name.contains('/') && name != ".." && name != ".";
        let held = if is_there {
            File::create(dir.join(HELD))
        } else {
            Err(std::io::ErrorKind::InvalidInput.into())
        };
        let held = held.map_err(|e| {
            BackupError::Refused(format!(
                "the server made the snapshot {name:?}, but {} cannot be used ({e}): is {} the directory of that server?",
                dir.display(),
                data_dir.display()
            ))
        })?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| BackupError::local(format!("locking {}", dir.join(HELD).display()))(e.into()))?;
        Ok(Self { dir, disk: Arc::clone(disk), _held: held })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Err(error) = snapshot::remove(self.disk.as_ref(), &self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "a snapshot could not be removed; the next backup tries again");
        }
    }
}

/// Refuses a directory without a store in it.
pub(super) fn refuse_no_store(disk: &dyn Disk, data_dir: &Path) -> Result<()> {
    let listed =
        disk.list(data_dir).map_err(BackupError::local(format!("listing {}", data_dir.display())))?;
    if listed.iter().any(|entry| entry.is_dir && entry.name == "parts") {
        return Ok(());
    }
    Err(BackupError::Refused(format!("there is no store in {}", data_dir.display())))
}

/// Opens the store as a server would, has the snapshot made, and closes it.
fn by_ourselves(disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>, data_dir: &Path) -> Result<String> {
    refuse_foreign(data_dir)?;
    // Nothing is too old for a backup, and nothing is written but what the log has.
    let config = EmbeddedConfig {
        retention: None,
        ballast_bytes: 0,
        segment_bytes: 1 << 20,
        ..EmbeddedConfig::new(data_dir)
    };
    let engine = Engine::open_at(config, Arc::clone(disk), Arc::clone(clock))?;
    let made = engine.snapshot(false);
    let closed = engine.close();
    let name = made?;
    closed?;
    Ok(name)
}

/// Removes the snapshots of backups that were cut off.
fn remove_left(disk: &Arc<dyn Disk>, all: &Path) {
    let Ok(entries) = disk.list(all) else { return };
    for entry in entries.iter().filter(|entry| entry.is_dir) {
        let dir = all.join(&entry.name);
        let Ok(file) = File::open(dir.join(HELD)) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let removed = if entry.name.ends_with(TEMPORARY_SUFFIX) {
            disk.remove_dir_all(&dir)
        } else {
            snapshot::remove(disk.as_ref(), &dir)
        };
        if let Err(error) = removed {
            tracing::warn!(%error, dir = %dir.display(), "what an earlier backup left could not be removed");
        }
    }
}
