//! A file whose content is used for as long as it can be read, and read again when it changes.

use std::{
    fmt, fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::model::Timestamp;

/// A file that was changed less than this before it was read may be changed again without looking it.
const SETTLED: Duration = Duration::from_secs(10);

/// By what a file is seen to have changed; that of a link is its target's, as Kubernetes mounts secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

/// Makes something of a file's content.
pub(super) type Load<T> = Box<dyn Fn(&[u8]) -> Result<T, String> + Send + Sync>;

/// A file, and what was made of it when it last could be.
pub(super) struct Watched<T> {
    path: PathBuf,
    /// The key of the configuration that names it.
    setting: String,
    max_bytes: u64,
    load: Load<T>,
    /// How it looked when it was last read, and when that was; none if it could not even be looked at.
    seen: Option<(Look, Timestamp)>,
    content: Vec<u8>,
    /// What was told last about it, so that it is told once.
    complaint: Option<String>,
    value: T,
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("path", &self.path)
            .field("setting", &self.setting)
            .finish_non_exhaustive()
    }
}

/// What came of looking at a file again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// It says what it said.
    Same,
    /// It says something else now, or can be used again.
    Changed,
    /// It cannot be used; what it said before holds. Told once for each way of being wrong.
    Wrong(String),
}

impl<T> Watched<T> {
    /// Reads a file for the first time.
    pub(super) fn open(
        path: &Path,
        setting: impl Into<String>,
        max_bytes: u64,
        now: Timestamp,
        load: Load<T>,
    ) -> Result<Self, String> {
        let setting = setting.into();
        let about = |wrong: String| format!("{setting}: {} {wrong}", path.display());
        let look = look(path).map_err(about)?;
        let content = read(path, max_bytes).map_err(about)?;
        let value = load(&content).map_err(about)?;
        Ok(Self {
            path: path.to_owned(),
            max_bytes,
            load,
            seen: Some((look, now)),
            content,
            complaint: None,
            value,
            setting,
        })
    }

    /// What the file says.
    pub(super) fn value(&self) -> &T {
        &self.value
    }

    /// Why the file cannot be used as it is now.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// Looks at the file again.
    pub(super) fn poll(&mut self, now: Timestamp) -> Polled {
        match self.read_again(now) {
            Ok(changed) => {
                let mended = self.complaint.take().is_some();
                if changed || mended { Polled::Changed } else { Polled::Same }
            }
            Err(wrong) => {
                let wrong = format!("{}: {} {wrong}", self.setting, self.path.display());
                if self.complaint.as_ref() == Some(&wrong) {
                    return Polled::Same;
                }
                self.complaint = Some(wrong.clone());
                Polled::Wrong(wrong)
            }
        }
    }

    fn read_again(&mut self, now: Timestamp) -> Result<bool, String> {
        let look = look(&self.path)?;
        if self.complaint.is_none()
            && self.seen.is_some_and(|(seen, at)| seen == look && is_settled(look.modified, at))
        {
            return Ok(false);
        }
        let content = read(&self.path, self.max_bytes)?;
        if content != self.content {
            self.value = (self.load)(&content)?;
            self.content = content;
            self.seen = Some((look, now));
            return Ok(true);
        }
        self.seen = Some((look, now));
        Ok(false)
    }
}

fn is_settled(modified: SystemTime, read_at: Timestamp) -> bool {
    let modified = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let settled = i64::try_from((modified + SETTLED).as_millis()).unwrap_or(i64::MAX);
    settled < read_at.0
}

fn look(path: &Path) -> Result<Look, String> {
    let metadata = fs::metadata(path).map_err(|e| format!("cannot be read: {e}"))?;
    let modified = metadata.modified().map_err(|e| format!("cannot be read: {e}"))?;
    Ok(Look { modified, bytes: metadata.len(), inode: metadata.ino() })
}

fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let file = fs::File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    file.take(max_bytes + 1).read_to_end(&mut content).map_err(|e| format!("cannot be read: {e}"))?;
    if content.len() as u64 > max_bytes {
        return Err(format!("is larger than {max_bytes} bytes"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(content: &[u8]) -> Result<u32, String> {
        std::str::from_utf8(content)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| "is no number".to_owned())
    }

    #[test]
    fn a_file_is_used_as_long_as_it_can_be_read_and_read_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        let now = Timestamp(0);
        let open = |max| Watched::open(&path, "some.key", max, now, Box::new(number));
        let error = open(10).unwrap_err();
        assert!(error.starts_with("some.key: /") && error.contains("No such file"), "{error}");
        fs::write(&path, "1").unwrap();
        let mut file = open(10).unwrap();
        assert_eq!((*file.value(), file.poll(now)), (1, Polled::Same));
        // The same number of bytes, and likely within the same tick of the file system's clock.
        fs::write(&path, "2").unwrap();
        assert_eq!((file.poll(now), *file.value()), (Polled::Changed, 2));
        fs::write(&path, "x").unwrap();
        assert!(matches!(file.poll(now), Polled::Wrong(wrong) if wrong.contains("is no number")));
        assert_eq!((file.poll(now), *file.value()), (Polled::Same, 2));
        assert!(file.complaint().is_some());
        fs::write(&path, "2").unwrap();
        assert_eq!((file.poll(now), file.complaint()), (Polled::Changed, None));
        assert_eq!(file.poll(now), Polled::Same);
        fs::remove_file(&path).unwrap();
        assert!(matches!(file.poll(now), Polled::Wrong(wrong) if wrong.contains("No such file")));
        fs::write(&path, "12345678901").unwrap();
        assert!(matches!(file.poll(now), Polled::Wrong(wrong) if wrong.contains("larger than 10")));
        assert_eq!(*file.value(), 2);
        let next = dir.path().join("next");
        fs::write(&next, "3").unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!((file.poll(now), *file.value()), (Polled::Changed, 3));
        assert!(open(0).unwrap_err().contains("larger than 0"));
    }

    #[test]
    fn a_file_that_settled_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        fs::write(&path, "1").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(100)).unwrap();
        assert!(is_settled(look(&path).unwrap().modified, Timestamp(110_001)));
        assert!(!is_settled(look(&path).unwrap().modified, Timestamp(110_000)));
    }
}
