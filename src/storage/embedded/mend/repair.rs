//! Mending a data directory.
//!
//! Which file goes when, so that a crash in between costs nothing:
//!
//! 1. What is damaged gets a second name in `quarantine/`, durably.
//! 2. What of a part reads back is written to a new part, which names the old one as replaced.
//! 3. The old one's name in `parts/` is removed. If that was not reached, the next start does it. Its name in
//!    `quarantine/` is marked by the next start, too: the new part knows what it stands for only until it is merged.
//! 4. The store is opened, which reads what it can of the log and the books; that is flushed and written anew,
//!    and then the log is let go.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Access, Broken, Finding, Looked, Report, look, look_closely, relative};
use crate::{
    clock::Clock,
    model::Timestamp,
    storage::{
        Result, StorageError,
        embedded::{
            EmbeddedConfig,
            backup::refuse_unfinished,
            ballast::Ballast,
            catalog::ledger::LEDGER,
            disk::Disk,
            engine::Engine,
            lock::{Lock, refuse_foreign},
            part::{PartFacts, PartId, PartWriter, mended},
            quarantine,
        },
    },
};

/// What was mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// What was found before.
    pub before: Report,
    /// What was done, or would be. Nothing is while there is something that could not be read.
    pub steps: Vec<String>,
    /// What is found now; none if nothing was done.
    pub after: Option<Report>,
}

/// Makes a data directory one that reads back, without what does not; or only says what it would do.
pub fn mend(disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>, data_dir: &Path, only_say: bool) -> Result<Repair> {
    let held = Lock::hold(data_dir)?;
    refuse_unfinished(disk.as_ref(), data_dir)?;
    if !only_say {
        refuse_foreign(data_dir)?;
    }
    let looked = look_closely(disk, data_dir, Access::Alone)?;
    let mut work = Work { disk, data_dir, only_say, next: looked.last_part + 1, steps: Vec::new() };
    if looked.report.findings.is_empty() || !looked.report.unread.is_empty() {
        return Ok(Repair { before: looked.report, ..Repair::default() });
    }
    work.parts(&looked)?;
    work.rest(&looked)?;
    let mut repair = Repair { before: looked.report, steps: work.steps, after: None };
    if !only_say {
        drop(held);
        write_anew(disk, clock, data_dir)?;
        repair.after = Some(look(disk, data_dir, Access::Alone)?);
    }
    Ok(repair)
}

struct Work<'a> {
    disk: &'a Arc<dyn Disk>,
    data_dir: &'a Path,
    only_say: bool,
    next: u64,
    steps: Vec<String>,
}

impl Work<'_> {
    fn parts(&mut self, looked: &Looked) -> Result<()> {
        for Broken { path, opens, aside } in &looked.parts {
            let file = relative(self.data_dir, path);
            if *aside {
                let new = PartId(self.next);
                self.next += 1;
                self.steps.push(format!("what of {file} reads back goes to part {new}"));
                if !self.only_say {
                    self.salvage(path, new)?;
                }
                continue;
            }
            if !opens {
                self.steps.push(format!("{file} goes to quarantine/: nothing of it reads back"));
                if !self.only_say {
                    self.keep_aside(path)?;
                    self.remove(path)?;
                }
                continue;
            }
            let new = PartId(self.next);
            self.next += 1;
            self.steps.push(format!("{file} goes to quarantine/; what of it reads back goes to part {new}"));
            if self.only_say {
                continue;
            }
            self.keep_aside(path)?;
            self.salvage(path, new)?;
            self.remove(path)?;
        }
        Ok(())
    }

    /// Says what opening and writing anew does about the rest.
    fn rest(&mut self, looked: &Looked) -> Result<()> {
        let findings = &looked.report.findings;
        if findings.iter().any(Finding::is_of_log) {
            self.steps
                .push("what of the log reads back goes to parts; damaged segments to quarantine/".to_owned());
        }
        if looked.ledger_is_damaged {
            self.steps.push(format!("{LEDGER} goes to quarantine/, and is written anew"));
            if !self.only_say {
                self.keep_aside(&self.data_dir.join(LEDGER))?;
            }
        }
        if findings.iter().any(|f| f.file == crate::storage::embedded::documents::DOCUMENTS) {
            self.steps.push("DOCUMENTS goes to quarantine/, and is written anew".to_owned());
        }
        if findings.iter().any(|f| f.file.starts_with("snapshots/")) {
            self.steps.push("snapshots stay as they are: remove a damaged one, and make another".to_owned());
        }
        self.steps.push("the catalog is made anew".to_owned());
        Ok(())
    }

    /// Gives a file a second name in the quarantine, durably.
    fn keep_aside(&self, path: &Path) -> Result<()> {
        quarantine::keep(self.disk.as_ref(), self.data_dir, path)
            .map_err(|e| StorageError::io(format!("keeping {} aside", path.display()), e))
    }

    /// Writes what of a part reads back to a new one, with the reserve if there is no other room.
    fn salvage(&self, path: &Path, new: PartId) -> Result<()> {
        match self.write_part(path, new) {
            Err(StorageError::DiskFull { .. }) => {
                Ballast::new(Arc::clone(self.disk), self.data_dir, 0).release();
                self.write_part(path, new)
            }
            other => other,
        }
    }

    fn write_part(&self, path: &Path, new: PartId) -> Result<()> {
        let old = mended(self.disk, path)?;
        let meta = old.part.meta();
        let at = meta.range.map_or(Timestamp(0), |range| range.start());
        let new_path = new.path(&self.data_dir.join("parts"), at);
        let mut writer = PartWriter::create(self.disk, &new_path)?;
        let mut written = false;
        old.examine(|tenant, labels, samples| {
            written |= !samples.is_empty();
            writer.add(tenant, labels, samples)
        })?;
        if !written {
            return Ok(());
        }
        let mut replaces = meta.replaces.clone();
        replaces.push(meta.id);
        writer.finish(PartFacts {
            id: new,
            covers_wal: meta.covers_wal,
            replaces,
            downsampled: meta.downsampled,
        })?;
        let parts = self.data_dir.join("parts");
        for dir in [parts.as_path(), self.data_dir] {
            self.disk.sync_dir(dir).map_err(|e| StorageError::io(format!("syncing {}", dir.display()), e))?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        crate::storage::embedded::flush::remove_files(self.disk.as_ref(), [path].into_iter())
    }
}

impl Engine {
    /// Puts what the log has into parts, writes the books anew, and lets the log go.
    fn write_anew(&self) -> Result<()> {
        let upkeep = &mut *self.upkeep.lock();
        self.flush_with(upkeep)?;
        // As if all of it had changed.
        self.register.settled(false);
        let covers = upkeep.covers.max(self.replay.last);
        self.write_ledger(upkeep, covers)?;
        self.documents.write_anew()?;
        upkeep.books.abandon(self.disk.as_ref());
        let parts = self.view.load().parts.clone();
        upkeep.books.settle(&self.disk, &parts, upkeep.ledger.take(), covers);
        self.wal.release(self.replay.last)
    }
}

/// Opens the store, writes everything that it has to files of its own making, and closes it.
fn write_anew(disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>, data_dir: &Path) -> Result<()> {
    let mut config = EmbeddedConfig::new(PathBuf::from(data_dir));
    // What is too old is for the server to remove.
    config.retention = None;
    config.ballast_bytes = 0;
    let engine = Engine::open_at(config, Arc::clone(disk), Arc::clone(clock))?;
    let written = engine.write_anew();
    let closed = engine.close();
    written.and(closed)
}
