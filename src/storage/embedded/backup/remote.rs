//! Objects of a backup as files that are read, so that what opens a part of the engine opens one of a backup.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::disk::{Disk, Entry, Mapped, ReadFile, WriteFile},
    BackupError,
    manifest::{BackedFile, Manifest},
    target::Target,
};

/// The files of a backup, each where it belongs under no directory in particular.
pub(super) struct Remote {
    target: Arc<dyn Target>,
    files: BTreeMap<PathBuf, BackedFile>,
}

impl Remote {
    pub(super) fn new(target: &Arc<dyn Target>, manifest: &Manifest) -> Self {
        let files = manifest.files.iter().map(|file| (PathBuf::from(&file.path), file.clone())).collect();
        Self { target: Arc::clone(target), files }
    }

    fn find(&self, path: &Path) -> io::Result<RemoteFile> {
        let file = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(RemoteFile { target: Arc::clone(&self.target), object: file.object(), bytes: file.bytes })
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("target", &self.target).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct RemoteFile {
    target: Arc<dyn Target>,
    object: String,
    bytes: u64,
}

impl ReadFile for RemoteFile {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let read = self.target.read(&self.object, offset, into.len() as u64).map_err(as_io)?;
        into.copy_from_slice(&read);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }
}

fn as_io(error: BackupError) -> io::Error {
    match error {
        BackupError::Missing { .. } => io::Error::new(io::ErrorKind::NotFound, error.to_string()),
        error => io::Error::other(error.to_string()),
    }
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for Remote {
    fn create(&self, _: &Path) -> io::Result<Box<dyn WriteFile>> {
        read_only()
    }

    fn open_write(&self, _: &Path) -> io::Result<Box<dyn WriteFile>> {
        read_only()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(self.find(path)?))
    }

    fn map(&self, path: &Path, offset: u64, length: usize) -> io::Result<Mapped> {
        let mut bytes = vec![0; length];
        self.find(path)?.read_exact_at(&mut bytes, offset)?;
        Ok(Mapped::Bytes(bytes.into()))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn is_one_file(&self, path: &Path, other: &Path) -> io::Result<bool> {
        Ok(path == other)
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn list(&self, _: &Path) -> io::Result<Vec<Entry>> {
        Ok(Vec::new())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(0)
    }
}
