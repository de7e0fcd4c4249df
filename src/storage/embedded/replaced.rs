//! Parts that a start found beside others that stand for them.
//!
//! Whoever wrote those ended before it could do away with these. They do not serve, and their files go; those in the
//! quarantine get their mark. Only footers say what stands for what, and go when their parts are merged or dropped:
//!
//! Invariant: whenever a part goes, nothing is left of what it stands for.
//!
//! So where the disk does not let us, the store opens all the same, and until this is done nothing is merged and no file is
//! removed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use hashbrown::HashSet;

use super::{disk::Disk, flush::remove_files, part::PartId, quarantine};
use crate::storage::{Result, StorageError};

/// What is to be done away with.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    /// The directories of the parts that stand for others.
    pub(crate) days: BTreeSet<PathBuf>,
    /// The files of those others.
    pub(crate) files: Vec<PathBuf>,
    /// All that parts stand for.
    pub(crate) ids: HashSet<PartId>,
}

impl Replaced {
    /// Whether all is done.
    pub(crate) fn is_done(&self) -> bool {
        self.days.is_empty()
    }

    /// Does away with them for good; after an error it can be tried again.
    pub(crate) fn remove(&mut self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        if self.is_done() {
            return Ok(());
        }
        let io =
            |what: &Path, e| StorageError::io(format!("removing replaced parts in {}", what.display()), e);
        let aside = dir.join(quarantine::QUARANTINE);
        let mut marked = quarantine::parts(disk, dir).map_err(|e| io(&aside, e))?;
        marked.retain(|id| self.ids.contains(id));
        if !self.files.is_empty() || !marked.is_empty() {
            let parts = dir.join("parts");
            for day in self.days.iter().map(PathBuf::as_path).chain([parts.as_path(), dir]) {
                disk.sync_dir(day).map_err(|e| io(day, e))?;
            }
        }
        quarantine::mark_replaced(disk, dir, &marked).map_err(|e| io(&aside, e))?;
        remove_files(disk, self.files.iter().map(PathBuf::as_path))?;
        *self = Self::default();
        Ok(())
    }
}
