//! Writes a backup into an empty directory.
//!
//! The directory says that it is being restored into from before the first file to after the last, and the engine does not open
//! one that does. What is cut off is gone on with by the next try of the same backup: files that are there and have
//! their checksum are not fetched again.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{
        disk::{Disk, contents, replace},
        lock::Lock,
        part::{Part, TEMPORARY_SUFFIX},
    },
    BackupError, Finding, Progress, Result, Told,
    manifest::{BackedFile, BackupName, Manifest},
    pieces::Pieces,
    target::Target,
};
use crate::storage::StorageError;

/// The file in a directory that says that it is being restored into, and what.
const RESTORING: &str = "RESTORING";

/// What is restored, and where to.
#[derive(Debug)]
pub struct RestoreOptions {
    /// Which backup; the newest unless one is named.
    pub name: Option<BackupName>,
    /// The directory, which is empty or not there.
    pub into: PathBuf,
    /// Leave out what is damaged or missing, and restore the rest.
    pub skip_damaged: bool,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the backup is made of.
    pub manifest: Manifest,
    /// What was left out.
    pub left_out: Vec<Finding>,
}

/// Refuses a directory that is being restored into, or was, and not all of it is there.
pub(in super::super) fn refuse_unfinished(disk: &dyn Disk, data_dir: &Path) -> crate::storage::Result<()> {
    match disk.open(&data_dir.join(RESTORING)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(StorageError::io(format!("looking into {}", data_dir.display()), e)),
        Ok(_) => Err(StorageError::Unavailable {
            detail: format!(
                "a backup is half restored into {}: finish it with the same luminate backup restore, or begin with an empty \
                 directory",
                data_dir.display()
            ),
            retry_after: None,
        }),
    }
}

/// Restores a backup.
pub fn restore(
    target: &dyn Target,
    disk: &Arc<dyn Disk>,
    options: &RestoreOptions,
    told: &mut Told<'_>,
) -> Result<Restored> {
    let into = &options.into;
    let manifest = Manifest::find(target, options.name.as_ref())?;
    // Before anything is written there.
    let fresh = is_fresh(disk.as_ref(), into, &manifest)?;
    if fresh {
        disk.create_dir_all(into).map_err(BackupError::local(format!("creating {}", into.display())))?;
    }
    let lock = Lock::take(into)?;
    is_fresh(disk.as_ref(), into, &manifest)?;
    let mut work = Work { target, disk, into, synced: BTreeSet::new() };
    let restored = work.run(&manifest, options.skip_damaged, told);
    lock.give_back();
    Ok(Restored { left_out: restored?, manifest })
}

/// Whether a directory has nothing in it, or else what is there of the same backup.
fn is_fresh(disk: &dyn Disk, into: &Path, manifest: &Manifest) -> Result<bool> {
    let reading = || format!("looking into {}", into.display());
    let entries = disk.list(into).map_err(BackupError::local(reading()))?;
    // What a file system has of its own, and what a try before this has that did not get far.
    let counts = |name: &str| {
        !["LOCK", "lost+found"].contains(&name) && name != format!("{RESTORING}{TEMPORARY_SUFFIX}")
    };
    if entries.iter().any(|entry| entry.name == RESTORING) {
        let text = contents(disk, &into.join(RESTORING)).map_err(BackupError::local(reading()))?;
        if text.as_deref() == Some(mark(manifest).as_bytes()) {
            return Ok(false);
        }
        return Err(BackupError::Refused(format!(
            "another backup is half restored into {}; empty it first",
            into.display()
        )));
    }
    match entries.iter().find(|entry| counts(&entry.name)) {
        None => Ok(true),
        Some(entry) => Err(BackupError::Refused(format!(
            "{} is not empty, {} is in it; a backup is restored into a directory of its own",
            into.display(),
            entry.name
        ))),
    }
}

/// What stands in the file that says so.
fn mark(manifest: &Manifest) -> String {
    format!("{} {}\n", manifest.name, manifest.made_ms)
}

struct Work<'a> {
    target: &'a dyn Target,
    disk: &'a Arc<dyn Disk>,
    into: &'a Path,
    /// Folders that were written to.
    synced: BTreeSet<PathBuf>,
}

impl Work<'_> {
    fn run(&mut self, manifest: &Manifest, skip_damaged: bool, told: &mut Told<'_>) -> Result<Vec<Finding>> {
        let at = |what: &str| BackupError::local(format!("{what} {}", self.into.display()));
        let marker = self.into.join(RESTORING);
        replace(self.disk, &marker, mark(manifest).as_bytes()).map_err(at("writing to"))?;
        let above = self.into.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
        if let Some(Err(error)) = above.map(|above| self.disk.sync_dir(above)) {
            tracing::debug!(%error, "the directory above could not be synced; it may belong to somebody else");
        }
        let mut progress = Progress {
            of_files: manifest.files.len() as u64,
            of_bytes: manifest.bytes,
            ..Progress::default()
        };
        told(progress);
        let (there, missing): (Vec<&BackedFile>, Vec<_>) =
            manifest.files.iter().partition(|file| self.is_there(file));
        // The try before may have ended before their names were durable.
        let folders = there.iter().filter_map(|file| self.into.join(&file.path).parent().map(Path::to_owned));
        self.synced.extend(folders);
        let needed: u64 = missing.iter().map(|file| file.bytes).sum();
        let free = self.disk.free_bytes(self.into).map_err(at("asking for the space of"))?;
        if free < needed {
            return Err(BackupError::Refused(format!(
                "{} has room for {free} bytes, and {needed} are to be restored",
                self.into.display()
            )));
        }
        progress.files = progress.of_files - missing.len() as u64;
        progress.bytes = progress.of_bytes.saturating_sub(needed);
        let mut left_out = Vec::new();
        for file in missing {
            match self.fetch(file) {
                Ok(()) => {}
                Err(error @ (BackupError::Damaged { .. } | BackupError::Missing { .. })) if skip_damaged => {
                    left_out.push(Finding { path: file.path.clone(), why: error.to_string() });
                }
                Err(error) => return Err(error),
            }
            progress.files += 1;
            progress.bytes += file.bytes;
            told(progress);
        }
        let parts = self.into.join("parts");
        self.disk.create_dir_all(&parts).map_err(at("writing to"))?;
        // A store has them, also when it has nothing else.
        let above = self.synced.iter().cloned().chain([parts, self.into.to_owned()]);
        for dir in above.collect::<Vec<_>>() {
            self.disk.sync_dir(&dir).map_err(BackupError::local(format!("syncing {}", dir.display())))?;
        }
        self.disk
            .remove_file(&marker)
            .and_then(|()| self.disk.sync_dir(self.into))
            .map_err(at("writing to"))?;
        Ok(left_out)
    }

    /// Whether a file is there as it should be, from a try before.
    fn is_there(&self, file: &BackedFile) -> bool {
        let path = self.into.join(&file.path);
        if self.disk.open(&path).and_then(|there| there.len()).ok() != Some(file.bytes) {
            return false;
        }
        let pieces = Pieces::of_file(self.disk.as_ref(), &path, file.bytes);
        pieces.and_then(Pieces::sha256_of_all).is_ok_and(|sha256| sha256 == file.sha256)
    }

    /// Writes a file beside its place, checks it, and gives it its name.
    fn fetch(&mut self, file: &BackedFile) -> Result<()> {
        let path = self.into.join(&file.path);
        let folder = path.parent().unwrap_or(self.into).to_owned();
        let failed = || BackupError::local(format!("writing {}", path.display()));
        self.disk.create_dir_all(&folder).map_err(failed())?;
        self.synced.insert(folder);
        let mut temporary = path.clone().into_os_string();
        temporary.push(TEMPORARY_SUFFIX);
        let temporary = PathBuf::from(temporary);
        let written = self.write(&temporary, file, &failed).and_then(|()| {
            self.opens(&temporary, file)?;
            self.disk.rename(&temporary, &path).map_err(failed())
        });
        if written.is_err() {
            // There may be none; the next try or the next start takes what stays.
            let _ = self.disk.remove_file(&temporary);
        }
        written
    }

    fn write<F: FnOnce(io::Error) -> BackupError>(
        &self,
        path: &Path,
        file: &BackedFile,
        failed: &impl Fn() -> F,
    ) -> Result<()> {
        let mut writes = self.disk.create(path).map_err(failed())?;
        let (mut pieces, mut at) = (Pieces::of_backed(self.target, file), 0);
        while let Some(piece) = pieces.next()? {
            writes.write_all_at(&piece, at).map_err(failed())?;
            at += piece.len() as u64;
        }
        if pieces.sha256() != file.sha256 {
            return Err(self.damaged(file, "its bytes are not those that were written"));
        }
        writes.sync_all().map_err(failed())
    }

    /// A part has to open here before a store is trusted with it, which would set it aside.
    fn opens(&self, path: &Path, file: &BackedFile) -> Result<()> {
        let Some(part) = &file.part else { return Ok(()) };
        match Part::open(self.disk, path) {
            Ok(_) => Ok(()),
            // As it was where it came from.
            Err(_) if part.damaged => Ok(()),
            Err(StorageError::Corrupt { detail, .. }) => Err(self.damaged(file, &detail)),
            Err(error) => Err(error.into()),
        }
    }

    fn damaged(&self, file: &BackedFile, why: &str) -> BackupError {
        BackupError::Damaged {
            place: self.target.place().to_owned(),
            name: format!("{} ({})", file.path, file.object()),
            why: why.to_owned(),
        }
    }
}
