//! One process at a time has a data directory.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::storage::{Result, StorageError};

/// Holds the directory until it is dropped, or the process ends however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    was_left: bool,
}

impl Lock {
    /// Takes the directory, or says who has it.
    pub(crate) fn take(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("LOCK");
        let context = |e| StorageError::io(format!("locking {}", path.display()), e);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(context)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(context(error.into()));
            }
            return Err(in_use(&mut file, data_dir));
        }
        let mut before = String::new();
        // What is no number is nobody who was here before.
        let was_left = file.read_to_string(&mut before).is_ok_and(|_| !before.trim().is_empty());
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            // When the power goes, it is to be there.
            .and_then(|()| file.sync_all());
        if let Err(error) = written {
            // The lock holds without the number, which only tells who has it, or had it last.
            tracing::warn!(%error, "the process id could not be written to the lock file");
        }
        Ok(Self { file, was_left })
    }

    /// Keeps others out without a trace: the next one sees what the last one left. None if nobody ever had the directory.
    pub(crate) fn hold(data_dir: &Path) -> Result<Option<Self>> {
        let path = data_dir.join("LOCK");
        let context = |e| StorageError::io(format!("locking {}", path.display()), e);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(context(e)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file, was_left: false })),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(in_use(&mut file, data_dir)),
            Err(error) => Err(context(error.into())),
        }
    }

    /// Whether the process that had the directory before ended without giving it back.
    pub(crate) fn was_left(&self) -> bool {
        self.was_left
    }

    /// Lets go in order: the number is taken out, so that the next one sees that nothing was cut short.
    pub(crate) fn give_back(self) {
        if let Err(error) = self.file.set_len(0).and_then(|()| self.file.sync_all()) {
            tracing::warn!(%error, "the lock file could not be emptied; the next start will take this stop for a crash");
        }
    }
}

/// Refuses to write into a directory of another user: what we write there, their server could not use.
pub(crate) fn refuse_foreign(data_dir: &Path) -> Result<()> {
    let metadata = std::fs::metadata(data_dir)
        .map_err(|e| StorageError::io(format!("looking at {}", data_dir.display()), e))?;
    let (owner, us) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == us {
        return Ok(());
    }
    Err(StorageError::Unavailable {
        detail: format!(
            "{} belongs to user {owner} and this is user {us}, whose files that one's server could not use: do this as its \
             user",
            data_dir.display()
        ),
        retry_after: None,
    })
}

/// Says who has the directory.
fn in_use(file: &mut File, data_dir: &Path) -> StorageError {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    let holder = match holder.trim() {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    };
    StorageError::Unavailable {
        detail: format!("{} is in use by {holder}", data_dir.display()),
        retry_after: None,
    }
}

/// Lets go at once: closing alone would wait for a child process that is just being started.
impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%error, "the data directory could not be unlocked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(lock);
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn whoever_only_looks_keeps_others_out_and_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Lock::hold(dir.path()).unwrap().is_none());
        drop(Lock::take(dir.path()).unwrap());
        let held = Lock::hold(dir.path()).unwrap();
        assert!(Lock::take(dir.path()).unwrap_err().to_string().contains("in use"));
        drop(held);
        let taken = Lock::take(dir.path()).unwrap();
        assert!(taken.was_left(), "what was cut short before is still seen");
        assert!(Lock::hold(dir.path()).unwrap_err().to_string().contains("in use"));
    }

    #[test]
    fn the_next_sees_whether_the_last_ended_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        assert!(!first.was_left(), "nobody was there before");
        drop(first);
        let second = Lock::take(dir.path()).unwrap();
        assert!(second.was_left());
        second.give_back();
        assert!(!Lock::take(dir.path()).unwrap().was_left());
    }
}
