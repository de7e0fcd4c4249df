//! Looking at a data directory and mending it, for the command line.

use std::{path::Path, sync::Arc};

use anyhow::Context;

use crate::{
    clock::Clock,
    storage::embedded::{
        disk::{Disk, SystemDisk},
        mend,
    },
};

pub use mend::{Access, Finding, Lost, Repair, Report, Unread};

/// Reads everything in a data directory.
pub fn look(data_dir: &Path, access: Access) -> anyhow::Result<Report> {
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    mend::look(&disk, data_dir, access).context("cannot look at the data directory")
}

/// Mends a data directory, or only says what that would do.
pub fn mend(data_dir: &Path, clock: &Arc<dyn Clock>, only_say: bool) -> anyhow::Result<Repair> {
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    mend::mend(&disk, clock, data_dir, only_say).context("cannot mend the data directory")
}
