//! Snapshots: copies in the data directory that can be opened as stores of their own.
//!
//! ```text
//! snapshots/<time>-<number>/  LEDGER  DOCUMENTS  parts/<yyyymmdd>/<id>.part
//! ```
//!
//! Parts never change, so a copy of one is a second name for its file: a snapshot takes no space until a merge, a
//! delete or the retention has done away with parts that it holds. What is in memory is flushed into parts before.
//! There is no log in a snapshot, and no catalog, which is made anew by whoever opens it.
//!
//! It is put together under a name that says it is not finished, made durable, and given its own name last. What a
//! crash leaves unfinished is removed at the next start.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    catalog::{
        ExemplarRow,
        ledger::{self, LEDGER, Ledger},
    },
    disk::Disk,
    documents::DOCUMENTS,
    engine::{Engine, Upkeep},
    part::TEMPORARY_SUFFIX,
    view::View,
};
use crate::{
    model::Timestamp,
    storage::{Result, StorageError},
};

/// The directory they are in.
pub(super) const SNAPSHOTS: &str = "snapshots";

impl Engine {
    /// Makes a snapshot of what is in parts, and of what is in memory unless that is to be left out: its name.
    pub(crate) fn snapshot(&self, skip_head: bool) -> Result<String> {
        // Nobody changes the parts meanwhile.
        let upkeep = &mut *self.upkeep.lock();
        if !skip_head {
            self.flush_with(upkeep)?;
        }
        let all = self.config.data_dir.join(SNAPSHOTS);
        let name = name(self.disk.as_ref(), &all, self.clock.now(), upkeep.next_part)?;
        let unfinished = all.join(format!("{name}{TEMPORARY_SUFFIX}"));
        let made = self.fill(upkeep, &unfinished).and_then(|()| {
            self.disk
                .rename(&unfinished, &all.join(&name))
                .and_then(|()| self.disk.sync_dir(&all))
                .and_then(|()| self.disk.sync_dir(&self.config.data_dir))
                .map_err(|e| StorageError::io("giving a snapshot its name", e))
        });
        if let Err(error) = made {
            if let Err(error) = self.disk.remove_dir_all(&unfinished)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "an unfinished snapshot could not be removed yet");
            }
            return Err(error);
        }
        tracing::info!(name, skip_head, "made a snapshot");
        Ok(name)
    }

    /// Puts a snapshot together, durably.
    fn fill(&self, upkeep: &Upkeep, into: &Path) -> Result<()> {
        let disk = self.disk.as_ref();
        let view = self.view.load_full();
        let context = |e| StorageError::io("making a snapshot", e);
        let parts = into.join("parts");
        disk.create_dir_all(&parts).map_err(context)?;
        let mut days = BTreeSet::new();
        for (day, file, path) in part_files(&view) {
            let to = parts.join(&day);
            if days.insert(day) {
                disk.create_dir_all(&to).map_err(context)?;
            }
            disk.hard_link(path, &to.join(file)).map_err(context)?;
        }
        let mut ledger = Ledger { covers_wal: upkeep.covers, ..Ledger::default() };
        self.register.enter(&mut ledger);
        let row = |(tenant, series, exemplars)| ExemplarRow { tenant, series, exemplars };
        ledger.exemplars = self.exemplars.everything().into_iter().map(row).collect();
        ledger::write(&self.disk, &into.join(LEDGER), &ledger)?;
        match disk.hard_link(&self.config.data_dir.join(DOCUMENTS), &into.join(DOCUMENTS)) {
            // There are none.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            linked => linked.map_err(context)?,
        }
        days.iter().map(|day| parts.join(day)).chain([parts.clone(), into.to_owned()]).try_for_each(|dir| {
            disk.sync_dir(&dir).map_err(|e| StorageError::io(format!("syncing {}", dir.display()), e))
        })
    }

    /// Bytes that nothing but snapshots holds.
    pub(crate) fn snapshots_only(&self) -> io::Result<u64> {
        let all = self.config.data_dir.join(SNAPSHOTS);
        let mut held: BTreeSet<PathBuf> =
            part_files(&self.view.load()).map(|(day, file, _)| Path::new(&day).join(file)).collect();
        let mut bytes = 0;
        for snapshot in self.disk.list(&all)?.into_iter().filter(|entry| entry.is_dir) {
            let mut left = vec![all.join(&snapshot.name)];
            while let Some(dir) = left.pop() {
                for entry in self.disk.list(&dir)? {
                    let path = dir.join(&entry.name);
                    let part = path.strip_prefix(all.join(&snapshot.name).join("parts"));
                    if entry.is_dir {
                        left.push(path);
                    } else if part.map_or(true, |part| held.insert(part.to_owned())) {
                        bytes += entry.size;
                    }
                }
            }
        }
        Ok(bytes)
    }
}

/// Each part's day, the name of its file, and its path.
fn part_files(view: &View) -> impl Iterator<Item = (String, String, &Path)> {
    let text = |name: Option<&std::ffi::OsStr>| name.map(|name| name.to_string_lossy().into_owned());
    view.parts.iter().filter_map(move |sealed| {
        let path = sealed.path();
        Some((text(path.parent()?.file_name())?, text(path.file_name())?, path))
    })
}

/// A name that no snapshot has, made of the time and a number.
fn name(disk: &dyn Disk, all: &Path, now: Timestamp, number: u64) -> Result<String> {
    let taken = disk.list(all).map_err(|e| StorageError::io("listing the snapshots", e))?;
    let time = match jiff::Timestamp::from_millisecond(now.millis()) {
        Ok(time) => time.strftime("%Y%m%dT%H%M%SZ").to_string(),
        Err(_) => now.millis().to_string(),
    };
    let names = (number..).map(|number| format!("{time}-{number:016x}"));
    let free =
        |name: &String| !taken.iter().any(|entry| entry.name.trim_end_matches(TEMPORARY_SUFFIX) == name);
    names.into_iter().find(free).ok_or_else(|| {
        StorageError::Unsupported("there are more snapshots of this second than can be told apart".to_owned())
    })
}

/// Removes a snapshot: first its name, so that a crash leaves nothing that looks like a whole one.
pub(super) fn remove(disk: &dyn Disk, snapshot: &Path) -> io::Result<()> {
    let mut unfinished = snapshot.as_os_str().to_owned();
    unfinished.push(TEMPORARY_SUFFIX);
    let unfinished = PathBuf::from(unfinished);
    disk.rename(snapshot, &unfinished)?;
    snapshot.parent().map_or(Ok(()), |all| disk.sync_dir(all))?;
    disk.remove_dir_all(&unfinished)
}

/// Removes what a crash has left unfinished.
pub(super) fn remove_unfinished(disk: &Arc<dyn Disk>, data_dir: &Path) -> Result<()> {
    let all = data_dir.join(SNAPSHOTS);
    let entries = disk.list(&all).map_err(|e| StorageError::io("listing the snapshots", e))?;
    for entry in entries.iter().filter(|entry| entry.is_dir && entry.name.ends_with(TEMPORARY_SUFFIX)) {
        if let Err(error) = disk.remove_dir_all(&all.join(&entry.name)) {
            tracing::warn!(%error, name = entry.name, "an unfinished snapshot could not be removed");
        }
    }
    Ok(())
}
