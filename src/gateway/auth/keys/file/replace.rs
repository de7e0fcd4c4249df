//! Changes a file of keys so that it is, at any moment, the old one or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::{Content, KeyFileError, TITLE, cannot_read, index, read_open};
use crate::gateway::auth::keys::KeyRecord;

/// How often, and after what, a file that another process changes is tried again.
const TRIES: u32 = 200;
const BETWEEN_TRIES: Duration = Duration::from_millis(25);

/// Makes an empty file if there is none.
pub(super) fn make_if_missing(path: &Path) -> Result<(), KeyFileError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => change(path, |_| Ok(())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(cannot_write(path, source)),
    }
}

/// Changes what a file holds; nobody else does meanwhile.
pub(super) fn change<T>(
    path: &Path,
    change: impl FnOnce(&mut Vec<KeyRecord>) -> Result<T, KeyFileError>,
) -> Result<T, KeyFileError> {
    // The file itself is replaced, not what points at it.
    let path = fs::canonicalize(path).map_err(|source| cannot_read(path, source))?;
    let mut file = lock(&path)?;
    let mut keys = read_open(&path, &mut file)?.unwrap_or_default();
    index(&path, keys.clone())?;
    let answer = change(&mut keys)?;
    let yaml =
        serde_yaml::to_string(&Content { keys }).map_err(|e| cannot_write(&path, io::Error::other(e)))?;
    let new = write_beside(&path, &file, &format!("{TITLE}{yaml}")).map_err(|e| cannot_write(&path, e))?;
    put_in_place(&new, &path).map_err(|source| cannot_write(&path, source))?;
    Ok(answer)
}

/// Opens the file for as long as nobody else has it so.
fn lock(path: &Path) -> Result<File, KeyFileError> {
    for _ in 0..TRIES {
        let file = File::open(path).map_err(|source| cannot_read(path, source))?;
        let is_ours = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Who had the lock before may have put another file in its place.
        let inode = |file: io::Result<fs::Metadata>| file.map(|file| (file.dev(), file.ino())).ok();
        if is_ours && inode(file.metadata()) == inode(fs::metadata(path)) {
            return Ok(file);
        }
        drop(file);
        std::thread::sleep(BETWEEN_TRIES);
    }
    Err(cannot_write(path, io::Error::new(io::ErrorKind::TimedOut, "another process is changing it")))
}

/// Writes a file that is to take the place of `old`: for the same owner, and never for everybody.
pub(super) fn write_beside(path: &Path, old: &File, text: &str) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default();
    let new = path.with_file_name(format!(".{}.new", name.to_string_lossy()));
    // Under the lock, what is there was left by somebody who was interrupted.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) | Ok(()) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let (is, was) = (file.metadata()?, old.metadata()?);
    if (is.uid(), is.gid()) != (was.uid(), was.gid()) {
        fchown(&file, Some(was.uid()), Some(was.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(0o600 | was.mode() & 0o060))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(new)
}

fn put_in_place(new: &Path, path: &Path) -> io::Result<()> {
    fs::rename(new, path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn cannot_write(path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Write { path: path.to_owned(), source }
}
