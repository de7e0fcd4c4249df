//! Backups in a directory: of another disk, or of another machine that is mounted here.
//!
//! An object is written beside its place, synced, and renamed into it; then the names above are synced.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    super::{disk::Disk, part::TEMPORARY_SUFFIX},
    BackupError, Result,
    target::{Held, Source, Target},
};

/// A directory that keeps backups.
#[derive(Debug)]
pub struct Directory {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    place: String,
    /// Another for each process, so that no two write the same file.
    seed: u64,
    written: AtomicU64,
    /// Folders that are durable.
    made: Mutex<BTreeSet<PathBuf>>,
}

impl Directory {
    /// Uses a directory, which is made when the first object is written; `seed` is unlike that of other processes.
    pub fn new(disk: Arc<dyn Disk>, root: impl Into<PathBuf>, seed: u64) -> Self {
        let root = root.into();
        let place = format!("file://{}", root.display());
        Self { disk, root, place, seed, written: AtomicU64::new(0), made: Mutex::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn failed(&self, doing: &str, name: &str) -> impl FnOnce(io::Error) -> BackupError {
        let (place, doing, name) = (self.place.clone(), format!("{doing} {name}"), name.to_owned());
        move |error| match error.kind() {
            io::ErrorKind::NotFound => BackupError::Missing { place, name },
            io::ErrorKind::UnexpectedEof => {
                BackupError::Damaged { place, name, why: "it ends early".to_owned() }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                BackupError::Place { place, doing, why: format!("there is no space left ({error})") }
            }
            _ => BackupError::Place { place, doing, why: error.to_string() },
        }
    }

    /// Makes the folder of `path`, durably.
    fn make_folder(&self, path: &Path) -> io::Result<PathBuf> {
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        let mut made = self.made.lock();
        if !made.contains(&folder) {
            self.disk.create_dir_all(&folder)?;
            for dir in folder.ancestors().skip(1) {
                if dir == self.root || dir.starts_with(&self.root) {
                    self.disk.sync_dir(dir)?;
                } else {
                    // It may belong to somebody else, who made this directory for us.
                    let _ = self.disk.sync_dir(dir);
                    break;
                }
            }
            made.insert(folder.clone());
        }
        Ok(folder)
    }

    /// Writes a file beside its place, durably but for its name.
    fn write(&self, path: &Path, name: &str, source: &mut Source<'_>) -> Result<()> {
        let failed = || self.failed("writing", name);
        let mut file = self.disk.create(path).map_err(failed())?;
        let mut at = 0;
        while let Some(piece) = source()? {
            file.write_all_at(&piece, at).map_err(failed())?;
            at += piece.len() as u64;
        }
        file.sync_all().map_err(failed())
    }

    /// Writes an object beside its place and lets `place` put it there.
    fn put_by(
        &self,
        name: &str,
        source: &mut Source<'_>,
        place: impl FnOnce(&Path, &Path) -> io::Result<bool>,
    ) -> Result<bool> {
        let path = self.path(name);
        let folder = self.make_folder(&path).map_err(self.failed("writing", name))?;
        let number = self.written.fetch_add(1, Relaxed);
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = folder.join(format!("{file}.{:016x}-{number}{TEMPORARY_SUFFIX}", self.seed));
        let written = self.write(&temporary, name, source).and_then(|()| {
            place(&temporary, &path)
                .and_then(|done| self.disk.sync_dir(&folder).map(|()| done))
                .map_err(self.failed("writing", name))
        });
        if written.is_err() {
            // There may be none; if it stays, a sweep takes it.
            let _ = self.disk.remove_file(&temporary);
        }
        written
    }

    /// Calls `with` for every file of a folder and those below.
    fn walk(&self, folder: &str, with: &mut dyn FnMut(String, u64)) -> io::Result<()> {
        for entry in self.disk.list(&self.path(folder))? {
            let name = if folder.is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
            if entry.is_dir {
                self.walk(&name, with)?;
            } else {
                with(name, entry.size);
            }
        }
        Ok(())
    }
}

impl Target for Directory {
    fn place(&self) -> &str {
        &self.place
    }

    fn list(&self, folder: &str) -> Result<Vec<Held>> {
        let mut held = Vec::new();
        self.walk(folder, &mut |name, bytes| {
            if !name.ends_with(TEMPORARY_SUFFIX) {
                held.push(Held { name, bytes });
            }
        })
        .map_err(self.failed("listing", folder))?;
        held.sort();
        Ok(held)
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        let size = self.disk.open(&self.path(name)).and_then(|file| file.len());
        self.read(name, 0, size.map_err(self.failed("reading", name))?)
    }

    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Bytes> {
        let read = || {
            let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let mut bytes = vec![0; length];
            self.disk.open(&self.path(name))?.read_exact_at(&mut bytes, offset)?;
            Ok(bytes.into())
        };
        read().map_err(self.failed("reading", name))
    }

    fn put(&self, name: &str, _: u64, source: &mut Source<'_>) -> Result<()> {
        self.put_by(name, source, |from, to| self.disk.rename(from, to).map(|()| true)).map(|_| ())
    }

    fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool> {
        let mut bytes = Some(bytes);
        self.put_by(name, &mut || Ok(bytes.take()), |from, to| match self.disk.hard_link(from, to) {
            Ok(()) => self.disk.remove_file(from).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.disk.remove_file(from).map(|()| false),
            // A file system without second names.
            Err(e) if matches!(e.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
                if self.disk.open(to).is_ok() {
                    return self.disk.remove_file(from).map(|()| false);
                }
                self.disk.rename(from, to).map(|()| true)
            }
            Err(e) => Err(e),
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match self.disk.remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.map_err(self.failed("removing", name))?,
        }
        let folder = path.parent().unwrap_or(&self.root);
        self.disk.sync_dir(folder).map_err(self.failed("removing", name))
    }

    fn sweep(&self) -> Result<()> {
        let mut waste = Vec::new();
        for folder in super::manifest::FOLDERS {
            self.walk(folder, &mut |name, _| {
                if name.ends_with(TEMPORARY_SUFFIX) {
                    waste.push(name);
                }
            })
            .map_err(self.failed("listing", folder))?;
        }
        waste.iter().try_for_each(|name| self.remove(name))
    }
}
