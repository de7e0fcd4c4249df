//! Reading files piece by piece, here and where backups are kept, and what their bytes are called by.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

use super::{
    super::disk::{Disk, ReadFile},
    BackupError, Result, hex,
    manifest::BackedFile,
    target::{PIECE, Target},
};

/// A file that is read from front to back.
pub(super) struct Pieces<'a> {
    origin: Origin<'a>,
    at: u64,
    end: u64,
    sha256: Context,
}

enum Origin<'a> {
    /// A file of this machine.
    Disk { file: Arc<dyn ReadFile>, path: PathBuf },
    /// An object of a backup.
    Target { target: &'a dyn Target, object: String },
}

impl<'a> Pieces<'a> {
    /// The first `bytes` bytes of a file of this machine.
    pub(super) fn of_file(disk: &dyn Disk, path: &Path, bytes: u64) -> Result<Self> {
        let file = disk.open(path).map_err(BackupError::local(format!("opening {}", path.display())))?;
        Ok(Self::new(Origin::Disk { file, path: path.to_owned() }, bytes))
    }

    /// A file of a backup.
    pub(super) fn of_backed(target: &'a dyn Target, file: &BackedFile) -> Self {
        Self::new(Origin::Target { target, object: file.object() }, file.bytes)
    }

    fn new(origin: Origin<'a>, end: u64) -> Self {
        Self { origin, at: 0, end, sha256: Context::new(&SHA256) }
    }

    /// The next piece, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>> {
        let length = PIECE.min(self.end - self.at);
        if length == 0 {
            return Ok(None);
        }
        let piece = match &self.origin {
            Origin::Disk { file, path } => {
                let mut piece = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
                file.read_exact_at(&mut piece, self.at)
                    .map_err(BackupError::local(format!("reading {}", path.display())))?;
                piece.into()
            }
            Origin::Target { target, object } => target.read(object, self.at, length)?,
        };
        self.at += length;
        self.sha256.update(&piece);
        Ok(Some(piece))
    }

    /// Reads what is left: the SHA-256 of everything.
    pub(super) fn sha256_of_all(mut self) -> Result<String> {
        while self.next()?.is_some() {}
        Ok(self.sha256())
    }

    /// The SHA-256 of what was read.
    pub(super) fn sha256(&self) -> String {
        hex(self.sha256.clone().finish().as_ref())
    }
}
