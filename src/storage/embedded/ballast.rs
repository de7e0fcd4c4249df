//! Space held back, so that a full disk can be worked on.
//!
//! A file of reserved space lies in the data directory. When the disk is full it is removed, which lets
//! a flush and the retention finish, and those free more. It is laid down again when there is room.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::disk::Disk;

/// The reserve.
#[derive(Debug)]
pub(crate) struct Ballast {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    bytes: u64,
    held: Mutex<bool>,
}

impl Ballast {
    /// Takes over the reserve that is there; it is laid down by [`restore`](Self::restore).
    pub(crate) fn new(disk: Arc<dyn Disk>, data_dir: &Path, bytes: u64) -> Self {
        Self { disk, path: data_dir.join("BALLAST"), bytes, held: Mutex::new(false) }
    }

    /// Gives the reserve back to the disk.
    pub(crate) fn release(&self) {
        let mut held = self.held.lock();
        match self.disk.remove_file(&self.path) {
            Ok(()) => tracing::warn!(bytes = self.bytes, "disk is full, reserve released"),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!(error = %e, "reserve could not be released"),
        }
        *held = false;
    }

    /// Lays the reserve down if `spare` bytes remain free besides it.
    pub(crate) fn restore(&self, spare: u64) {
        let mut held = self.held.lock();
        if *held || self.bytes == 0 {
            return;
        }
        if self.disk.open(&self.path).and_then(|f| f.len()).is_ok_and(|n| n == self.bytes) {
            *held = true;
            return;
        }
        let free = self.disk.free_bytes(self.path.parent().unwrap_or(Path::new("."))).unwrap_or(0);
        if free < self.bytes.saturating_add(spare) {
            return;
        }
        let laid = self.disk.create(&self.path).and_then(|mut f| {
            f.preallocate(self.bytes)?;
            f.sync_all()
        });
        match laid {
            Ok(()) => *held = true,
            Err(e) => {
                tracing::warn!(error = %e, "reserve could not be laid down");
                let _ = self.disk.remove_file(&self.path);
            }
        }
    }
}
